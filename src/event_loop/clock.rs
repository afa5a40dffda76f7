//! Monotonic time; in tests, as the test says.

use std::time::{Duration, Instant};

#[cfg(feature = "testing")]
use std::{cell::Cell, rc::Rc};

#[derive(Debug, Clone)]
pub(super) enum Clock {
    /// `CLOCK_MONOTONIC`: no change of the wall clock shows.
    System,
    #[cfg(feature = "testing")]
    Manual(Rc<Cell<Instant>>),
}

impl Clock {
    pub(super) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(feature = "testing")]
            Self::Manual(now) => now.get(),
        }
    }

    /// When a drain that begins now is over, where that cannot be told by the server's own clock.
    pub(super) fn drain_deadline(&self, _limit: Duration) -> Option<Instant> {
        match self {
            Self::System => None,
            #[cfg(feature = "testing")]
            Self::Manual(now) => now.get().checked_add(_limit),
        }
    }
}
