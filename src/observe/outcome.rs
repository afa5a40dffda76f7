//! [`Outcome`]: the result of a handler, and [`Cause`]: whose fault an error is.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::config::Limit;
use crate::error::HandlerResult;
use crate::panics::take_message;

/// The result of a handler.
pub(crate) enum Outcome {
    Served,
    Failed(Box<dyn Error + Send + Sync>),
    /// The handler could not serve at all: the connection is refused.
    NotServed(NotServed),
    /// The handler panicked, with this text.
    Panicked(String),
}

impl Outcome {
    /// Adds the result of sending the last output. An earlier error stays.
    pub(crate) fn and(self, sent: io::Result<()>) -> Self {
        match (self, sent) {
            (Self::Served, Err(e)) => Self::Failed(e.into()),
            (outcome, _) => outcome,
        }
    }

    /// True if a time limit has ended the handler.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::Failed(e) if Cause::of(&**e, false) == Cause::Limit)
    }
}

/// The error of a handler that could not serve this connection at all.
#[derive(Debug)]
pub(crate) struct NotServed(pub(crate) &'static str);

impl fmt::Display for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for NotServed {}

impl From<&NotServed> for io::Error {
    fn from(why: &NotServed) -> Self {
        Self::other(why.0)
    }
}

/// Runs a handler. Its error or its panic becomes an [`Outcome`].
pub(crate) fn contain(run: impl FnOnce() -> HandlerResult) -> Outcome {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Outcome::Served,
        Ok(Err(e)) => match e.downcast() {
            Ok(refusal) => Outcome::NotServed(*refusal),
            Err(e) => Outcome::Failed(e),
        },
        Err(payload) => Outcome::Panicked(take_message(payload)),
    }
}

/// The cause of a handler's error. It decides the counter and the level of the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The handler itself: `error` in the log.
    Handler,
    /// A time limit: failed and timed out, `info` in the log.
    Limit,
    /// The peer has left: disconnected, `debug` in the log, because a peer may leave.
    Peer,
}

impl Cause {
    /// Sorts an error by the first `io::Error` in its chain of sources. `lost` is true if the connection
    /// itself has lost its peer. Without that, an error of this kind comes from something else that the
    /// handler talks to.
    pub(crate) fn of(error: &(dyn Error + Send + Sync + 'static), lost: bool) -> Self {
        // `source` is the user's code, and may panic.
        fn next<'a>(e: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
            (*e).source()
        }
        let found = catch_unwind(AssertUnwindSafe(|| {
            let mut chain = std::iter::successors(Some(error as &(dyn Error + 'static)), next);
            chain.find_map(|e| e.downcast_ref::<io::Error>()).map(|e| Self::of_io(e, lost))
        }));
        found.ok().flatten().unwrap_or(Self::Handler)
    }

    fn of_io(e: &io::Error, lost: bool) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match e.kind() {
            _ if Limit::of(e).is_some() => Self::Limit,
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof if lost => Self::Peer,
            _ if lost && has_vanished(e) => Self::Peer,
            _ => Self::Handler,
        }
    }
}

/// True if the kernel reports a peer that no longer answers.
fn has_vanished(e: &io::Error) -> bool {
    use nix::libc::{EHOSTUNREACH, ENETUNREACH, ETIMEDOUT};
    matches!(e.raw_os_error(), Some(ETIMEDOUT | EHOSTUNREACH | ENETUNREACH))
}
