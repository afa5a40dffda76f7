//! A stop in progress.

use std::time::{Duration, Instant};

use crate::event_loop::primitives::slab::ConnId;
use crate::observe::Outcome;

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

/// Of a loop that has been lent its connection.
pub(crate) struct Lender {
    pub(crate) id: ConnId,
    /// How the connection has ended.
    pub(crate) outcome: Option<Outcome>,
}

/// Whether the loop is to end, and how.
#[derive(Default)]
pub(crate) struct Stop {
    /// True if the run ends with this turn.
    pub(crate) asked: bool,
    pub(crate) drain: Option<Drain>,
}
