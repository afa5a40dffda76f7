//! What a server is set to.

use std::fmt;
use std::time::Duration;

use crate::connection::Limits;
use crate::error::{Error, Result};
use crate::finish::{Failure, LingeringClose};
use crate::hooks::{Actions, Verify};
use crate::listen::Access;
use crate::sys::socket::{TcpOptions, SILENCE};

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

pub(crate) type ErrorHook = Box<dyn Fn(&Failure<'_>) + Send + Sync>;

pub(crate) struct Config {
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
    pub(crate) handle_error: Option<ErrorHook>,
    pub(crate) verify_request: Option<Verify>,
    pub(crate) verify_timeout: Duration,
    pub(crate) service_actions: Option<Actions>,
    pub(crate) handle_timeout: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Config {
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
            handle_error: None,
            verify_request: None,
            verify_timeout: Duration::from_secs(10),
            service_actions: None,
            handle_timeout: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("limits", &self.limits)
            .field("drain_timeout", &self.drain_timeout)
            .field("at_limit", &self.at_limit)
            .finish_non_exhaustive()
    }
}

/// The longest time limit: 68 years; more is a slip, or an overflow.
const LONGEST: Duration = Duration::from_secs(1 << 31);
/// The largest buffer or line: 1 GiB.
const LARGEST: usize = 1 << 30;

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        let limits = &self.limits;
        check_time("idle_timeout", limits.idle)?;
        check_time("read_timeout", limits.read)?;
        check_time("write_timeout", limits.write)?;
        check_time("request_timeout", limits.request)?;
        check_needed_time("verify_timeout", self.verify_timeout)?;
        self.service_actions.iter().try_for_each(|actions| check_needed_time("service_actions", actions.every))?;
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
fn check_needed_time(name: &'static str, time: Duration) -> Result<()> {
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

/// Settings of the listening sockets.
pub(crate) fn check_sockets(tcp: TcpOptions, access: Access) -> Result<()> {
    if access.mode > 0o777 {
        return Err(Error::setting("unix_mode", format!("{:#o} is not from 0 to 0o777", access.mode)));
    }
    match tcp.keep_alive_time {
        Some(time) if !SILENCE.contains(&time.as_secs()) => {
            Err(Error::setting("keep_alive_time", format!("{time:?} is not from 6 to 32767 s")))
        }
        _ => Ok(()),
    }
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
