//! Monotonic time; in tests, the time that the test sets.

use std::time::Instant;

#[cfg(feature = "testing")]
use std::{cell::Cell, rc::Rc};

#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// `CLOCK_MONOTONIC`: no change of the wall clock shows.
    System,
    #[cfg(feature = "testing")]
    Manual(Rc<Cell<Instant>>),
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(feature = "testing")]
            Self::Manual(now) => now.get(),
        }
    }

    /// Returns the time that a test has set. The server's `Control` has the real clock, so deadlines are made from
    /// this.
    pub(crate) fn set_by_hand(&self) -> Option<Instant> {
        match self {
            Self::System => None,
            #[cfg(feature = "testing")]
            Self::Manual(now) => Some(now.get()),
        }
    }
}
