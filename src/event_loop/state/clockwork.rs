//! The loop's time: its clock, the last readings, and its timers.

use std::time::Instant;

use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::timers::Timers;
use crate::event_loop::state::work::TimerTask;

/// The loop's time.
pub(crate) struct Clockwork {
    pub(crate) clock: Clock,
    /// When the wait of this turn, or a later callback, ended.
    pub(crate) now: Instant,
    /// When the wait of this turn ended.
    pub(crate) woke: Instant,
    pub(crate) timers: Timers<TimerTask>,
}

impl Clockwork {
    pub(crate) fn new(clock: Clock, home: u32) -> Self {
        let now = clock.now();
        Self { clock, now, woke: now, timers: Timers::new(home) }
    }
}
