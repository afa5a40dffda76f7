//! [`LogThrottle`]: one log line a second for each kind of event that clients can cause.
//!
//! A lack lasts, and each turn of a loop meets it anew. A log that grows by a line for each fills the disk,
//! which is the next lack. So the first event is logged, and the others are counted into the next line.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use log::Level;

use super::greeting::GreetingFailure;
use crate::sources::SourceRefusal;
use crate::sync::{now, Mutex};

/// A kind of event, counted together. Their number is bounded: by the error numbers, the signals, the hooks and the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A failed accept, by its error number.
    Accept(i32),
    /// A connection closed without a handler. The error number, if the system lacked something.
    Refused(Option<i32>),
    /// A connection that `verify_request` refused, by a "no" or without an answer. They are two kinds, so
    /// that many "no"s do not hide a hook that hangs.
    Unverified { said_no: bool },
    /// A connection whose greeting failed, by the reason.
    Greeting(GreetingFailure),
    /// A connection that was refused for its source.
    Source(SourceRefusal),
    /// A worker that cannot wait, or cannot be started.
    Worker,
    /// A callback that holds up a loop.
    Stalled,
    /// A handler that returned an error.
    Failed,
    /// A handler that panicked.
    Panicked,
    /// A handler's process that exited, by its code.
    Exited(i32),
    /// A handler's process that was killed, by the signal.
    Killed(&'static str),
    /// A connection that a time limit has ended.
    Limit,
    /// A worker process that has died, by its number. Its connections may be what kills it.
    LostWorker(usize),
    /// A worker process that has replaced a dead one, by its number.
    Replaced(usize),
    /// A child that could not be watched.
    Unwatched,
    /// A panic of a hook, by the hook's name.
    Hook(&'static str),
    /// A panic of a call that belongs to no connection.
    Call,
    /// A failed attempt of a client of the loop.
    Attempt,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept(errno) => write!(f, "failed accepts (os error {errno})"),
            Self::Refused(None) => f.write_str("refused connections"),
            Self::Refused(Some(errno)) => write!(f, "refused connections (os error {errno})"),
            Self::Unverified { said_no: true } => f.write_str("connections refused by verify_request"),
            Self::Unverified { said_no: false } => f.write_str("connections without an answer of verify_request"),
            Self::Greeting(reason) => reason.fmt(f),
            Self::Source(SourceRefusal::AtOnce) => f.write_str("connections beyond what their source may have at once"),
            Self::Source(SourceRefusal::Rate) => f.write_str("connections of sources that connect too fast"),
            Self::Worker => f.write_str("workers that had to rest"),
            Self::Stalled => f.write_str("slow callbacks"),
            Self::Failed => f.write_str("errors of handlers"),
            Self::Panicked => f.write_str("panics of handlers"),
            Self::Exited(code) => write!(f, "processes that exited with {code}"),
            Self::Killed(signal) => write!(f, "processes that were killed by {signal}"),
            Self::Limit => f.write_str("connections at a time limit"),
            Self::LostWorker(worker) => write!(f, "ends of worker {worker}"),
            Self::Replaced(worker) => write!(f, "starts of worker {worker}"),
            Self::Unwatched => f.write_str("processes that could not be watched"),
            Self::Hook(hook) => write!(f, "panics of {hook}"),
            Self::Call => f.write_str("panics of calls"),
            Self::Attempt => f.write_str("failed attempts to connect"),
        }
    }
}

/// Lets one event of each kind pass in a second, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<Kind, Last>>);

/// The last event of a kind that passed.
#[derive(Debug)]
struct Last {
    at: Instant,
    /// The events since then.
    left_out: u64,
    place: Place,
}

/// Where the line of an event goes: its level and its target.
pub(crate) type Place = (Level, &'static str);

impl LogThrottle {
    /// `Some` if this event passes, with the number of events left out since the last one that passed.
    pub(crate) fn pass(&self, kind: Kind, place: Place) -> Option<u64> {
        let mut all = self.0.lock();
        let now = now();
        match all.get_mut(&kind) {
            Some(last) if now - last.at < Duration::from_secs(1) => {
                last.left_out += 1;
                None
            }
            // The number goes with this line, so the count starts again.
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.left_out))
            }
            None => {
                all.insert(kind, Last { at: now, left_out: 0, place });
                Some(0)
            }
        }
    }

    /// Takes the numbers of events that were left out and not logged yet.
    pub(crate) fn take_left_out(&self) -> Vec<(Kind, Place, u64)> {
        let mut all = self.0.lock();
        let counted = all.iter_mut().map(|(kind, last)| (*kind, last.place, std::mem::take(&mut last.left_out)));
        counted.filter(|(_, _, left_out)| *left_out > 0).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    const PLACE: Place = (Level::Warn, "socketserver::accept");

    #[test]
    fn one_of_a_kind_passes_each_second_and_the_rest_are_counted() {
        let (throttle, other) = (LogThrottle::default(), Kind::Refused(None));
        assert_eq!(throttle.pass(Kind::Accept(24), PLACE), Some(0));
        assert_eq!((throttle.pass(Kind::Accept(24), PLACE), throttle.pass(Kind::Accept(24), PLACE)), (None, None));
        assert_eq!(throttle.pass(Kind::Accept(23), PLACE), Some(0), "another kind");
        assert_eq!(throttle.pass(other, PLACE), Some(0), "another kind");
        let before = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        throttle.0.lock().get_mut(&Kind::Accept(24)).unwrap().at = before;
        assert_eq!(throttle.pass(Kind::Accept(24), PLACE), Some(2));
        assert_eq!(throttle.pass(Kind::Accept(24), PLACE), None);
        assert_eq!(throttle.take_left_out(), [(Kind::Accept(24), PLACE, 1)]);
        assert!(throttle.take_left_out().is_empty());
    }
}
