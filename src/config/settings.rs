//! [`ServerSettings`], and the two policies that users choose.

use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use super::per_source::PerSource;
use crate::error::{Error, Result};
use crate::proxy::ProxyProtocol;
use crate::tls::TlsConfig;

/// The policy for a client beyond the connection limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AtLimit {
    /// The client waits in the kernel's queue, connected, until a permit is free. The default: a client that
    /// waits is served later, a refused one is not.
    #[default]
    Wait,
    /// The client is accepted, sent this message, and closed. The message goes as far as the socket takes it
    /// at once. What the client has sent by then is read and thrown away, up to 64 KiB: with unread input, the
    /// close would be a reset. One thread must always be free to refuse, at the price of a hand-over for each connection.
    /// [`Sequential`](crate::Sequential) has no thread to spare: its clients wait with either policy. Where connections are
    /// parked ([`per_request`](crate::per_request)), a client is refused as soon as a thread is free.
    Refuse(Vec<u8>),
}

/// The longest wait for more input in a lingering close.
pub(crate) const LINGER_IDLE: Duration = Duration::from_secs(2);
/// The longest lingering close in all.
pub(crate) const LINGER_TOTAL: Duration = Duration::from_secs(30);
/// The first pause between two looks for something that no event reports. Each pause is twice as long as the
/// last one.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(1);
/// The longest of these pauses.
pub(crate) const LAST_LOOK: Duration = Duration::from_millis(50);

/// The longest time by which a drain is prolonged if its thread wakes late: the process was stopped or frozen.
pub(crate) const AFTER_A_LATE_WAKE_UP: Duration = Duration::from_secs(2);

/// When a connection is closed in two steps, so that the peer can read all of the reply.
///
/// If a socket is closed with unread input, the kernel sends a reset, and the reset destroys the reply. A
/// lingering close shuts the writing side first. Then it reads the peer's input and throws it away, until the
/// input ends. It waits for 2 s without input, and for 30 s in all; for 2 s in all after a time limit. Then
/// it closes the socket. The permit is held until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LingeringClose {
    /// If the handler has left input unread. The default: it costs other connections one system call.
    #[default]
    IfUnread,
    /// Always: for protocols whose clients send while they read the reply.
    Always,
    /// Never: a reset may cut off the reply.
    Never,
}

/// The settings of a server, without its hooks and its sockets.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) backlog: usize,
    pub(crate) limits: Limits,
    pub(crate) drain_timeout: Duration,
    pub(crate) line_limit: usize,
    /// The most bytes that are buffered of a request whose handler waits for the rest.
    pub(crate) request_limit: usize,
    pub(crate) read_buffer: usize,
    pub(crate) write_buffer: usize,
    pub(crate) writer_capacity: usize,
    pub(crate) max_packet_size: usize,
    pub(crate) lingering_close: LingeringClose,
    pub(crate) at_limit: AtLimit,
    pub(crate) verify_timeout: Duration,
    /// Absent in a server without TLS. Without the feature there is no such value.
    pub(crate) tls: Option<TlsConfig>,
    /// The networks whose connections begin with a PROXY header.
    pub(crate) proxy_protocol: Option<Arc<ProxyProtocol>>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) per_source: Option<PerSource>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            // A burst waits in the queue instead of sending its SYN again. The kernel caps it at
            // `net.core.somaxconn`.
            backlog: 4096,
            // Idle, read and request have none: only the protocol's author knows how long a client may be
            // silent. A peer that takes nothing for 30 s is gone, with any protocol.
            limits: Limits { write: Some(Duration::from_secs(30)), ..Limits::default() },
            // Container runtimes and service managers wait about as long before they kill.
            drain_timeout: Duration::from_secs(10),
            // Above the lines of text protocols, and small enough for each connection to have one.
            line_limit: 64 << 10,
            // As a line: each client may fill it.
            request_limit: 64 << 10,
            // The standard library's sizes.
            read_buffer: 8 << 10,
            write_buffer: 8 << 10,
            // Many messages for a peer that pauses, and a bound for one that has stopped reading.
            writer_capacity: 1 << 20,
            max_packet_size: 65_535,
            lingering_close: LingeringClose::default(),
            at_limit: AtLimit::default(),
            // A resolver gives up on a silent name server after about this time.
            verify_timeout: Duration::from_secs(10),
            tls: None,
            proxy_protocol: None,
            // A client sends its part at once. Over a bad line, a lost packet is sent again a few times.
            handshake_timeout: Duration::from_secs(10),
            per_source: None,
        }
    }
}

/// The longest time limit: 68 years. A longer one is a mistake, or an overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(1 << 31);
/// The largest buffer or line: 1 GiB.
const LARGEST: usize = 1 << 30;

impl ServerSettings {
    pub(crate) fn check(&self) -> Result<()> {
        let limits = &self.limits;
        check_time("idle_timeout", limits.idle.flatten())?;
        check_time("read_timeout", limits.read)?;
        check_time("write_timeout", limits.write)?;
        check_time("request_timeout", limits.request)?;
        check_needed_time("verify_timeout", self.verify_timeout)?;
        check_needed_time("handshake_timeout", self.handshake_timeout)?;
        self.proxy_protocol.iter().try_for_each(|proxies| proxies.check())?;
        self.per_source.iter().try_for_each(PerSource::check)?;
        check_size("max_line_length", self.line_limit)?;
        check_size("max_request_length", self.request_limit)?;
        check_size("read_buffer", self.read_buffer)?;
        check_size("write_buffer", self.write_buffer)?;
        check_size("writer_capacity", self.writer_capacity)?;
        check_size("max_packet_size", self.max_packet_size)?;
        if self.drain_timeout > LONGEST {
            return Err(too_long("drain_timeout", self.drain_timeout));
        }
        if self.backlog == 0 || i32::try_from(self.backlog).is_err() {
            return Err(Error::setting("backlog", format!("{} is not from 1 to {}", self.backlog, i32::MAX)));
        }
        Ok(())
    }
}

fn check_time(name: &'static str, limit: Option<Duration>) -> Result<()> {
    match limit {
        Some(Duration::ZERO) => {
            Err(Error::setting(name, "a limit of zero would cut every connection; give a time, or None for no limit"))
        }
        Some(limit) if limit > LONGEST => Err(too_long(name, limit)),
        _ => Ok(()),
    }
}

/// Checks a time that must be set.
pub(crate) fn check_needed_time(name: &'static str, time: Duration) -> Result<()> {
    match time {
        Duration::ZERO => Err(Error::setting(name, "a time of zero leaves no time; give a millisecond at least")),
        time if time > LONGEST => Err(Error::setting(name, format!("{time:?} is more than 68 years; give less"))),
        _ => Ok(()),
    }
}

fn too_long(name: &'static str, limit: Duration) -> Error {
    Error::setting(name, format!("{limit:?} is more than 68 years; give less, or None for no limit"))
}

fn check_size(name: &'static str, bytes: usize) -> Result<()> {
    if bytes == 0 || bytes > LARGEST {
        return Err(Error::setting(name, format!("{bytes} bytes are not from 1 to 1 GiB")));
    }
    Ok(())
}

/// Checks a connection limit, for the builder and for `ServerHandle::set_max_connections`.
pub(crate) fn check_limit(limit: usize) -> Result<()> {
    match limit {
        0 => {
            Err(Error::setting("max_connections", "a limit of zero serves no client; to accept nothing, call pause()"))
        }
        n if i32::try_from(n).is_err() => Err(Error::setting(
            "max_connections",
            format!("{n} is more than a system can have; give {} at most", i32::MAX),
        )),
        _ => Ok(()),
    }
}
