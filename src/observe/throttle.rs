//! [`LogThrottle`]: one log line a second for each kind of event that clients can cause.
//!
//! A lack lasts, and each turn of a loop meets it anew. A log that grows by a line for each fills the disk,
//! which is the next lack. So the first event is logged, and the others are counted into the next line.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::greeting::GreetingFailure;
use crate::sync::{now, Mutex};

/// A kind of event, counted together. Their number is bounded by the number of error numbers.
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
    /// A worker that cannot wait, or cannot be started.
    Worker,
    /// A callback that holds up a loop.
    Stalled,
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
            Self::Worker => f.write_str("workers that had to rest"),
            Self::Stalled => f.write_str("slow callbacks"),
        }
    }
}

/// Lets one event of each kind pass in a second, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<Kind, (Instant, u64)>>);

impl LogThrottle {
    /// `Some` if this event passes, with the number of events left out since the last one that passed.
    pub(crate) fn pass(&self, kind: Kind) -> Option<u64> {
        let mut last = self.0.lock();
        let now = now();
        match last.get_mut(&kind) {
            Some((at, left_out)) if now - *at < Duration::from_secs(1) => {
                *left_out += 1;
                None
            }
            // The number goes with this line, so the count starts again.
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            None => {
                last.insert(kind, (now, 0));
                Some(0)
            }
        }
    }

    /// Takes the numbers of events that were left out and not logged yet.
    pub(crate) fn take_left_out(&self) -> Vec<(Kind, u64)> {
        let mut last = self.0.lock();
        let counted = last.iter_mut().map(|(kind, (_, left_out))| (*kind, std::mem::take(left_out)));
        counted.filter(|(_, left_out)| *left_out > 0).collect()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_passes_each_second_and_the_rest_are_counted() {
        let (throttle, other) = (LogThrottle::default(), Kind::Refused(None));
        assert_eq!(throttle.pass(Kind::Accept(24)), Some(0));
        assert_eq!((throttle.pass(Kind::Accept(24)), throttle.pass(Kind::Accept(24))), (None, None));
        assert_eq!(throttle.pass(Kind::Accept(23)), Some(0), "another kind");
        assert_eq!(throttle.pass(other), Some(0), "another kind");
        let before = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        throttle.0.lock().get_mut(&Kind::Accept(24)).unwrap().0 = before;
        assert_eq!(throttle.pass(Kind::Accept(24)), Some(2));
        assert_eq!(throttle.pass(Kind::Accept(24)), None);
        assert_eq!(throttle.take_left_out(), [(Kind::Accept(24), 1)]);
        assert!(throttle.take_left_out().is_empty());
    }
}
