//! What a server is set to.

use std::time::Duration;

use super::limits::Limits;
use crate::error::{Error, Result};

/// What happens to a client beyond the connection limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AtLimit {
    /// It waits in the kernel's queue, connected, until a place is free. The default.
    #[default]
    Wait,
    /// It is accepted, sent this message as far as the socket takes it at once, and closed. An accepting thread is
    /// then always there, which costs a hand-over per connection. Not with [`Sequential`](crate::Sequential), whose
    /// accepting thread is busy then.
    Refuse(Vec<u8>),
}

/// Longest wait for more unread input.
pub(crate) const LINGER_IDLE: Duration = Duration::from_secs(2);
/// Longest lingering close in all.
pub(crate) const LINGER_TOTAL: Duration = Duration::from_secs(30);
/// Looks at the unacknowledged output come this often at first, and ever less often.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(1);
pub(crate) const LAST_LOOK: Duration = Duration::from_millis(50);

/// When a connection is closed with care for what the peer still has to read: the writing side first, then the
/// peer's input is read into the void until it ends (2 s without any, 30 s in all, at most; 2 s in all after a time
/// limit), then the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LingeringClose {
    /// Where input is pending that the handler has not read. The default: it costs the others nothing.
    #[default]
    IfUnread,
    /// Always: for protocols whose clients send on while they read.
    Always,
    /// Never: the reply may be cut off by a reset.
    Never,
}

/// The settings of a server, but for its hooks and its sockets.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    pub(crate) backlog: usize,
    pub(crate) limits: Limits,
    pub(crate) drain_timeout: Duration,
    pub(crate) line_limit: usize,
    pub(crate) read_buffer: usize,
    pub(crate) write_buffer: usize,
    pub(crate) writer_capacity: usize,
    pub(crate) max_packet_size: usize,
    pub(crate) lingering_close: LingeringClose,
    pub(crate) at_limit: AtLimit,
    pub(crate) verify_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            backlog: 4096,
            limits: Limits { write: Some(Duration::from_secs(30)), ..Limits::default() },
            drain_timeout: Duration::from_secs(10),
            line_limit: 64 << 10,
            read_buffer: 8 << 10,
            write_buffer: 8 << 10,
            writer_capacity: 1 << 20,
            max_packet_size: 65_535,
            lingering_close: LingeringClose::default(),
            at_limit: AtLimit::default(),
            verify_timeout: Duration::from_secs(10),
        }
    }
}

/// The longest time limit: 68 years; more is a slip, or an overflow.
const LONGEST: Duration = Duration::from_secs(1 << 31);
/// The largest buffer or line: 1 GiB.
const LARGEST: usize = 1 << 30;

impl ServerSettings {
    pub(crate) fn check(&self) -> Result<()> {
        let limits = &self.limits;
        check_time("idle_timeout", limits.idle)?;
        check_time("read_timeout", limits.read)?;
        check_time("write_timeout", limits.write)?;
        check_time("request_timeout", limits.request)?;
        check_needed_time("verify_timeout", self.verify_timeout)?;
        check_size("max_line_length", self.line_limit)?;
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

/// Of a time that there must be one of.
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

/// For the builder and for the handle's live change.
pub(crate) fn check_limit(limit: usize) -> Result<()> {
    match limit {
        0 => Err(Error::setting(
            "max_connections",
            "a limit of zero serves nobody; pause() is the way to accept nothing",
        )),
        n if i32::try_from(n).is_err() => Err(Error::setting(
            "max_connections",
            format!("{n} is more than a system can have; give {} at most", i32::MAX),
        )),
        _ => Ok(()),
    }
}
