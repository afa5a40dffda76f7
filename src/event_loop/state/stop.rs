//! A stop in progress.

use std::time::{Duration, Instant};

/// A stop in progress.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The limit given to [`Reactor::shutdown`](crate::Reactor::shutdown). If `None`, the server's holds.
    pub(crate) deadline: Option<Instant>,
    /// How long the drain may take.
    pub(crate) grace: Duration,
    /// True if the time is over, and connections are cut.
    pub(crate) cut: bool,
}

/// If the loop is to end, and how.
#[derive(Default)]
pub(crate) struct Stop {
    /// True if the run ends with this turn.
    pub(crate) asked: bool,
    pub(crate) drain: Option<Drain>,
}
