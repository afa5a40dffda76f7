//! Time limits, and how they show.

use std::fmt;
use std::io;
use std::time::Duration;

/// A time limit of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Waiting for a request: nothing read since the last flush, or since the start.
    Idle,
    /// One wait for more of a request.
    Read,
    /// One wait for a peer that takes nothing.
    Write,
    /// A whole request.
    Request,
    /// A connection, from its beginning to its end: in an event loop, by
    /// [`Transport::set_total_timeout`](crate::Transport::set_total_timeout).
    Total,
    /// What a stopping server leaves its connections.
    Drain,
}

impl Limit {
    /// The limit that this error reports, if it does.
    ///
    /// ```
    /// use std::{io::Read, time::Duration};
    /// use socketserver::{Connection, Limit};
    /// let (mut conn, _client) = Connection::pair()?;
    /// conn.set_idle_timeout(Some(Duration::from_millis(10)));
    /// let error = conn.read(&mut [0; 10]).unwrap_err();
    /// assert_eq!(Limit::of(&error), Some(Limit::Idle));
    /// assert_eq!(error.to_string(), "idle limit of 10ms exceeded");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<LimitExceeded>().map(|e| e.limit)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Read => "read",
            Self::Write => "write",
            Self::Request => "request",
            Self::Total => "total",
            Self::Drain => "drain",
        })
    }
}

/// Inside an [`io::Error`] of a connection: this limit has ended the wait. After [`Limit::Idle`] and
/// [`Limit::Read`] the connection stays usable; after [`Limit::Write`] it can no longer be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitExceeded {
    /// Which limit.
    pub limit: Limit,
    /// How long it is.
    pub after: Duration,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} limit of {:?} exceeded", self.limit, self.after)
    }
}

impl std::error::Error for LimitExceeded {}

impl From<LimitExceeded> for io::Error {
    fn from(e: LimitExceeded) -> Self {
        Self::new(io::ErrorKind::TimedOut, e)
    }
}

/// The limits that hold for one connection; `None`: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) idle: Option<Duration>,
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) request: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Limits {
    pub(crate) fn set(&mut self, limit: Limit, value: Option<Duration>) {
        match limit {
            Limit::Idle => self.idle = value,
            Limit::Read => self.read = value,
            Limit::Write => self.write = value,
            Limit::Request => self.request = value,
            Limit::Total => self.total = value,
            Limit::Drain => {}
        }
    }
}
