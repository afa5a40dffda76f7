//! What a stop does to parked connections. Those that have sent nothing end at once, and the others are served. The
//! cut ends what is left.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::visit::{end_together, Visit};
use super::{Lot, STOP_NOW};
use crate::sync::atomic::Ordering::SeqCst;
use crate::sys;

impl Lot {
    /// Notes that a thread has seen the stop. From here on it wakes nobody, as it would wake them for ever. A thread that
    /// also drains must hear of the urgent stop.
    pub(in crate::accept) fn begin_stop(&self, drains: bool) {
        if !self.is_stopping.swap(true, SeqCst) {
            self.set.remove(self.core.control.stop_fd());
            if drains {
                let _ = self.set.add(&*self.core.control.now, STOP_NOW);
            }
        }
    }

    /// Ends the connections that have sent nothing. Threads that call it at the same time share the work. A connection
    /// that is parked later sees the stop itself.
    pub(in crate::accept) fn end_idle(&self) {
        let shards = Self::shards().len();
        loop {
            let round = self.rounds.fetch_add(1, SeqCst);
            if round >= 2 * shards {
                // Not further, or the count would begin again some day.
                self.rounds.store(2 * shards, SeqCst);
                return;
            }
            // Those whose peer takes no output come last: they must not hold up the others.
            let is_last = round >= shards;
            let ends = |visit: &Visit| visit.ends_at_stop() && (is_last || visit.is_acknowledged());
            end_together(&self.core, self.take_if(round % shards, ends));
        }
    }

    /// Ends all connections: the drain is over.
    pub(in crate::accept) fn cut(&self) {
        Self::shards().flat_map(|shard| self.take_if(shard, |_| true)).for_each(Visit::cut);
    }

    /// True if the threads have nothing to wait for: then it wakes all of them. Else a later change wakes them.
    pub(in crate::accept) fn is_left(&self, is_left: impl Fn() -> bool) -> bool {
        // Cleared before the look: a change after it sets it again.
        self.leave.clear();
        let is_left = is_left() || self.core.control.is_cut();
        if is_left {
            self.leave.set();
        }
        is_left
    }

    /// Ends the parked connections at a stop, while all threads may be busy. It returns when none is left.
    pub(crate) fn end_parked(&self) -> io::Result<()> {
        self.end_idle();
        while !self.is_left(|| self.core.admission.permits.parked() == 0) {
            sys::poll([Some(self.leave.as_fd())], None, None)?;
        }
        if self.core.control.is_cut() {
            self.cut();
        }
        Ok(())
    }

    /// Ends the run. A handler that was left behind then parks its connection nowhere.
    pub(crate) fn close(self: &Arc<Self>) {
        self.is_over.store(true, SeqCst);
        Self::shards().flat_map(|shard| self.take_if(shard, |_| true)).for_each(Visit::stop);
    }
}
