//! The connection limit, divided among the workers. [`shares`](crate::preforking::shares) has the arithmetic.

use super::Supervisor;
use crate::preforking::shares::{raise, share, Part};
use crate::preforking::worker::{State, Worker};

impl Supervisor<'_> {
    /// At the stop, gives workers without a share of the limit what the others leave of theirs. Without a share they
    /// could not serve the queue. They have become ready too late, or will be, or a drain has started them.
    pub(super) fn give_missing_shares(&mut self) {
        let (limit, wanted) = (self.core().admission.permits.limit(), self.scoreboard.wanted());
        let is_to_serve = |w: &Worker| matches!(w.state, State::Starting | State::Ready) && w.limit == 0;
        for at in 0..self.workers.len() {
            let free = limit.saturating_sub(self.workers.iter().map(|w| w.limit.max(w.held())).sum());
            let worker = &mut self.workers[at];
            if is_to_serve(worker) {
                worker.give(share(limit, wanted, worker.index, self.capacity).min(free));
            }
        }
    }

    /// Divides the connection limit among the ready workers, and passes a resume on to them.
    pub(super) fn distribute_limit(&mut self) {
        let (limit, wanted) = (self.core().admission.permits.limit(), self.scoreboard.wanted());
        // First lower limits that are too high. Threads that have reserved more permits are asked to give
        // them back.
        let lower = |w: &mut Worker| {
            let share = if w.is_ready() { share(limit, wanted, w.index, self.capacity) } else { 0 };
            let permits = &w.core.admission.permits;
            if w.limit > share {
                w.limit = share;
                permits.set_limit(share);
                w.core.control.recall_permits(true);
                w.core.control.wake_gate();
                w.core.control.wake_supervisor();
            }
            let held = w.held();
            w.given = held.max(w.limit);
            Part { limit: w.limit, held, share }
        };
        let parts: Vec<Part> = self.workers.iter_mut().map(lower).collect();
        // Then raise others, by what has been given back.
        let (raised, settled) = raise(limit, &parts);
        self.settled = settled;
        let resumes = self.core().control.resumes();
        for ((worker, part), new) in self.workers.iter_mut().zip(&parts).zip(raised) {
            let is_resumed = std::mem::replace(&mut worker.resumes, resumes) != resumes;
            if new > part.limit {
                worker.give(new);
            }
            if is_resumed || new > part.limit {
                worker.core.control.wake_gate();
                worker.core.control.wake_supervisor();
            }
        }
    }
}
