//! [`Outcome`]: the result of a handler, and [`Cause`]: whose fault an error is.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::config::Limit;
use crate::error::{HandlerResult, PeerFault};
use crate::framing::{FrameError, LineTooLong};
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
    /// The peer has sent what cannot be served: failed and a fault of the peer, `debug` in the log.
    PeerFault,
}

impl Cause {
    /// Sorts an error by the first error with a cause in its chain of sources. `lost` is true if the connection
    /// itself has lost its peer. Without that, a lost connection is that of something else that the handler
    /// talks to.
    pub(crate) fn of(error: &(dyn Error + Send + Sync + 'static), lost: bool) -> Self {
        // `source` is the user's code, and may panic.
        let found = catch_unwind(AssertUnwindSafe(|| Self::of_chain(error, lost)));
        found.ok().flatten().unwrap_or(Self::Handler)
    }

    fn of_chain(error: &(dyn Error + 'static), lost: bool) -> Option<Self> {
        // A bound, because a chain may be a ring.
        let chain = std::iter::successors(Some(error), |e| (*e).source()).take(MOST_SOURCES);
        chain.into_iter().find_map(|e| Self::of_one(e, lost))
    }

    fn of_one(e: &(dyn Error + 'static), lost: bool) -> Option<Self> {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            // The first one decides, with what is inside: `source` skips that.
            let inside = || e.get_ref().and_then(|inside| Self::of_chain(inside, lost));
            return Self::of_io(e, lost).or_else(inside).or(Some(Self::Handler));
        }
        if let Some(PeerFault(inside)) = e.downcast_ref() {
            let other = Self::of_chain(&**inside, lost).filter(|cause| matches!(cause, Self::Limit | Self::Peer));
            return other.or(Some(Self::PeerFault));
        }
        let is_theirs = match e.downcast_ref() {
            // The handler has tried to send this.
            Some(FrameError::Unencodable(_)) => false,
            Some(_) => true,
            None => e.is::<LineTooLong>(),
        };
        is_theirs.then_some(Self::PeerFault)
    }

    fn of_io(e: &io::Error, lost: bool) -> Option<Self> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match e.kind() {
            _ if Limit::of(e).is_some() => Some(Self::Limit),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof if lost => Some(Self::Peer),
            _ if lost && has_vanished(e) => Some(Self::Peer),
            _ => None,
        }
    }
}

/// The most errors of a chain that are looked at.
const MOST_SOURCES: usize = 32;

/// True if the kernel reports a peer that no longer answers.
fn has_vanished(e: &io::Error) -> bool {
    use nix::libc::{EHOSTUNREACH, ENETUNREACH, ETIMEDOUT};
    matches!(e.raw_os_error(), Some(ETIMEDOUT | EHOSTUNREACH | ENETUNREACH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LimitExceeded;
    use crate::framing::FrameError::{Malformed, Unencodable};

    type Boxed = Box<dyn Error + Send + Sync>;

    fn inside(e: impl Into<Boxed>) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, e)
    }

    /// An error of the user's, with another one as its source.
    #[derive(Debug)]
    struct Wrapped(Boxed);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&*self.0)
        }
    }

    #[test]
    fn what_the_peer_has_sent_is_its_fault_however_deep() {
        let faults: [Boxed; 7] = [
            Malformed("x").into(),
            LineTooLong { limit: 1, len: 2 }.into(),
            io::Error::from(Malformed("x")).into(),
            PeerFault::new("no such command").into(),
            inside(PeerFault::new("no such command")).into(),
            Wrapped(inside(Malformed("x")).into()).into(),
            PeerFault::new(inside("text")).into(),
        ];
        for e in faults {
            assert_eq!(Cause::of(&*e, false), Cause::PeerFault, "{e:?}");
        }
        let others: [Boxed; 4] =
            ["text".into(), Unencodable("x").into(), inside("text").into(), io::Error::from(Unencodable("x")).into()];
        for e in others {
            assert_eq!(Cause::of(&*e, false), Cause::Handler, "{e:?}");
        }
    }

    #[test]
    fn a_mark_does_not_hide_a_limit_or_a_loss() {
        let limit = || io::Error::from(LimitExceeded { limit: Limit::Read, after: std::time::Duration::ZERO });
        assert_eq!(Cause::of(&PeerFault::new(limit()), false), Cause::Limit);
        assert_eq!(Cause::of(&inside(PeerFault::new(limit())), false), Cause::Limit);
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Cause::of(&PeerFault::new(reset()), true), Cause::Peer);
        assert_eq!(Cause::of(&PeerFault::new(reset()), false), Cause::PeerFault);
        assert_eq!(Cause::of(&reset(), false), Cause::Handler, "of another connection");
    }
}
