//! How a handler ended.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::config::Limit;
use crate::error::HandlerResult;
use crate::panics::take_message;

/// How a handler ended.
pub(crate) enum Outcome {
    Served,
    Failed(Box<dyn Error + Send + Sync>),
    /// It was none: the connection is refused.
    NotServed(NotServed),
    /// With the panic's text.
    Panicked(String),
}

impl Outcome {
    /// What becomes of it with the last output sent, or not.
    pub(crate) fn and(self, sent: io::Result<()>) -> Self {
        match (self, sent) {
            (Self::Served, Err(e)) => Self::Failed(e.into()),
            (outcome, _) => outcome,
        }
    }

    /// Whether a time limit has ended the handler.
    pub(crate) fn is_limit(&self) -> bool {
        matches!(self, Self::Failed(e) if Cause::of(&**e, false) == Cause::Limit)
    }
}

/// The error of a handler that serves nobody with this connection.
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

/// Runs a handler; no panic comes out.
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

/// What an error of a handler says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The handler's own.
    Handler,
    /// A time limit's.
    Limit,
    /// The peer's, who went away.
    Peer,
}

impl Cause {
    /// `lost`: whether the connection itself has met its peer's end. Without that, an error of a peer's kind comes
    /// from something else that the handler talks to.
    pub(crate) fn of(error: &(dyn Error + Send + Sync + 'static), lost: bool) -> Self {
        // The chain is the user's code.
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

/// What the kernel says of a peer that answers no more.
fn has_vanished(e: &io::Error) -> bool {
    use nix::libc::{EHOSTUNREACH, ENETUNREACH, ETIMEDOUT};
    matches!(e.raw_os_error(), Some(ETIMEDOUT | EHOSTUNREACH | ENETUNREACH))
}
