//! [`Limit`]: the time limits of a connection, and the error that shows them.

use std::fmt;
use std::io;
use std::time::Duration;

/// A time limit of a connection. When one ends a wait, the error is [`io::ErrorKind::TimedOut`], and
/// [`Limit::of`] returns the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// An idle wait, that is a wait for a request: see [`Connection`](crate::Connection#requests).
    Idle,
    /// Any other wait for input; without an idle limit, each wait for input. It counts from its own beginning.
    Read,
    /// A wait for a peer that takes nothing. Any progress begins it anew.
    Write,
    /// A whole request: see [`Connection`](crate::Connection#requests). It ends a client that sends a byte now and
    /// then. It is checked when the handler waits for the peer.
    Request,
    /// A whole connection in an event loop, see
    /// [`Transport::set_total_timeout`](crate::Transport::set_total_timeout).
    Total,
    /// A TLS handshake, see [`ServerBuilder::handshake_timeout`](crate::ServerBuilder::handshake_timeout).
    Handshake,
    /// The time from the request to stop until every wait of every connection ends.
    Drain,
}

impl Limit {
    /// Returns the limit that this error reports. `None` for any other error.
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
            Self::Handshake => "handshake",
            Self::Drain => "drain",
        })
    }
}

/// The error, inside an [`io::Error`], of a wait that a limit has ended. After [`Limit::Idle`] and
/// [`Limit::Read`] the connection can still be used. After [`Limit::Write`] it can no longer be written to,
/// because it is not known how much the peer has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitExceeded {
    /// The limit.
    pub limit: Limit,
    /// Its length.
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

/// The limits of one connection. `None`: no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// `None`: not set. The read limit then bounds idle waits too.
    pub(crate) idle: Option<Option<Duration>>,
    pub(crate) read: Option<Duration>,
    pub(crate) write: Option<Duration>,
    pub(crate) request: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Limits {
    /// Returns the limit of an idle wait, and its length.
    pub(crate) fn of_idle_wait(&self) -> (Limit, Option<Duration>) {
        self.idle.map_or((Limit::Read, self.read), |idle| (Limit::Idle, idle))
    }

    /// Returns the length of a limit.
    pub(crate) fn get(&self, limit: Limit) -> Option<Duration> {
        match limit {
            Limit::Idle => self.idle.flatten(),
            Limit::Read => self.read,
            Limit::Write => self.write,
            Limit::Request => self.request,
            Limit::Total => self.total,
            Limit::Handshake | Limit::Drain => None,
        }
    }

    pub(crate) fn set(&mut self, limit: Limit, value: Option<Duration>) {
        match limit {
            Limit::Idle => self.idle = Some(value),
            Limit::Read => self.read = value,
            Limit::Write => self.write = value,
            Limit::Request => self.request = value,
            Limit::Total => self.total = value,
            Limit::Handshake | Limit::Drain => {}
        }
    }
}
