//! Why a connection ended.

use std::{fmt, io};

use crate::config::{Limit, LimitExceeded};
use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::slab::ConnId;
use crate::net::Addr;
use crate::observe::Outcome;

/// A connection that is gone, and why. [`connection_lost`](crate::Protocol::connection_lost) gets it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Lost {
    /// The id it had.
    pub id: ConnId,
    /// The peer's address.
    pub peer: Addr,
    /// Why it ended. Of several causes it is the first, except that an error or a panic replaces a close or an abort.
    pub reason: LostReason,
    /// The number of bytes that were written and could not be sent.
    pub unsent: usize,
    /// The client of the connection; `None` if it was accepted.
    pub connector: Option<Connector>,
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum LostReason {
    /// The peer ended its stream, and what was written has been sent.
    PeerClosed,
    /// The protocol closed it, and what was written has been sent.
    Closed,
    /// The protocol, or another one, aborted it.
    Aborted,
    /// The connection broke: the peer reset it, or vanished.
    Reset(io::Error),
    /// A time limit ended it.
    TimedOut(LimitExceeded),
    /// More output was queued than the loop keeps for a peer that does not read.
    Overflow(QueueFull),
    /// A callback returned this error.
    Error(Box<dyn std::error::Error + Send + Sync>),
    /// A callback panicked, with this text.
    Panic(String),
    /// The loop was shut down, or dropped.
    Shutdown,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("closed by the peer"),
            Self::Closed => f.write_str("closed"),
            Self::Aborted => f.write_str("aborted"),
            Self::Reset(e) => write!(f, "broken: {e}"),
            Self::TimedOut(e) => write!(f, "{e}"),
            Self::Overflow(e) => write!(f, "{e}"),
            Self::Error(e) => write!(f, "failed: {e}"),
            Self::Panic(text) => write!(f, "panicked: {text}"),
            Self::Shutdown => f.write_str("the server stops"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        match self.unsent {
            0 => Ok(()),
            n => write!(f, ", {n} bytes unsent"),
        }
    }
}

impl LostReason {
    /// True if the queue is still to be sent. It is not for a peer that is gone, nor for a connection that was cut.
    pub(crate) fn flushes(&self) -> bool {
        match self {
            Self::PeerClosed | Self::Closed | Self::Error(_) | Self::Panic(_) | Self::Shutdown => true,
            Self::TimedOut(e) => e.limit != Limit::Write && e.limit != Limit::Drain,
            Self::Aborted | Self::Reset(_) | Self::Overflow(_) => false,
        }
    }

    /// True if the connection ended in order. A later failure is then the better reason.
    pub(crate) fn is_orderly(&self) -> bool {
        matches!(self, Self::PeerClosed | Self::Closed | Self::Shutdown)
    }

    /// True if a callback has failed.
    pub(crate) fn is_from_callback(&self) -> bool {
        matches!(self, Self::Error(_) | Self::Panic(_))
    }

    /// True if the close resets the connection, so that our kernel drops what it has queued.
    pub(crate) fn resets(&self) -> bool {
        match self {
            Self::Aborted | Self::Overflow(_) => true,
            Self::TimedOut(e) => e.limit == Limit::Write,
            _ => false,
        }
    }

    /// Returns the outcome for the counters, the log and the hook. The `bool` is true if the peer broke the connection.
    pub(crate) fn into_outcome(self) -> (Outcome, bool) {
        match self {
            Self::PeerClosed | Self::Closed | Self::Aborted | Self::Shutdown => (Outcome::Served, false),
            Self::Reset(e) => (Outcome::Failed(e.into()), true),
            Self::TimedOut(e) => (Outcome::Failed(io::Error::from(e).into()), false),
            Self::Overflow(e) => (Outcome::Failed(e.into()), false),
            Self::Error(e) => (Outcome::Failed(e), false),
            Self::Panic(text) => (Outcome::Panicked(text), false),
        }
    }
}

/// More output was queued for a connection than the loop keeps for a peer that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueFull {
    /// The most bytes that are queued for one connection.
    pub limit: usize,
}

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the output queue would exceed {} bytes", self.limit)
    }
}

impl std::error::Error for QueueFull {}

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The connection is being closed, or is gone.
    Closed,
    /// The queue would exceed its limit. The connection is aborted.
    QueueFull(QueueFull),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection is being closed"),
            Self::QueueFull(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for WriteError {}

/// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe) for a connection that is being closed, else
/// [`Other`](std::io::ErrorKind::Other), with the [`WriteError`] inside.
impl From<WriteError> for std::io::Error {
    fn from(e: WriteError) -> Self {
        let kind = match e {
            WriteError::Closed => std::io::ErrorKind::BrokenPipe,
            WriteError::QueueFull(_) => std::io::ErrorKind::Other,
        };
        Self::new(kind, e)
    }
}
