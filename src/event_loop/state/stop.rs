//! A stop in progress.

use std::time::{Duration, Instant};

/// A stop in progress.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The limit that [`Reactor::shutdown`](crate::Reactor::shutdown) was given; otherwise the server's holds.
    pub(crate) deadline: Option<Instant>,
    /// How long it may take.
    pub(crate) grace: Duration,
    /// Whether the time is over, and connections are cut.
    pub(crate) cut: bool,
}

/// Whether the loop is to end, and how.
#[derive(Default)]
pub(crate) struct Stop {
    /// True if the run ends with this turn.
    pub(crate) asked: bool,
    pub(crate) drain: Option<Drain>,
}
