//! Timers that are due, and the hook `service_actions`.

use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::hooks;

impl State {
    /// Sets the timer for the next `service_actions`, in the first loop only. In a worker process every loop has the
    /// timer: it beats the worker's heart.
    pub(crate) fn schedule_actions(&mut self) {
        if self.loops.number > 0 && !self.core.is_worker() {
            return;
        }
        if let Some(every) = hooks::every(&self.core) {
            self.time.timers.set(self.time.clock.now(), every, TimerTask::Actions);
        }
    }

    /// Calls `service_actions`, or beats the worker's heart, and sets the timer for the next time.
    pub(crate) fn run_actions(&mut self) {
        if self.stop.drain.is_some() {
            return;
        }
        self.time.now = self.time.clock.now();
        match self.core.worker() {
            // The master sees the oldest beat of all loops: for its clients, one loop that hangs is a hung worker.
            Some(post) => post.beat_at(self.loops.group.beat(self.loops.number, post.millis())),
            None => hooks::perform(&self.core),
        }
        self.note_stall("service_actions", None);
        self.schedule_actions();
    }

    /// Fires the timers that are due and were set before `mark`, the beginning of this turn. A timer that sets itself
    /// anew with no delay cannot hold up the turn.
    pub(crate) fn fire_timers(&mut self, mark: u64) {
        // As of the wake-up: the time that callbacks of this turn took is not the peers' fault.
        let now = self.time.woke;
        while let Some((timer, task)) = self.time.timers.pop(now, mark) {
            match task {
                TimerTask::Call(call) => self.call_free("a timer's call", call),
                TimerTask::Limit(id) => self.check_limits(id),
                TimerTask::Rate(id, direction) => self.resume_at_rate(id, direction),
                TimerTask::Connect(connector) => self.continue_client(connector),
                TimerTask::Rested => self.ports.rests = false,
                TimerTask::Verify(key) => self.time_out_verdict(key),
                TimerTask::Actions => self.run_actions(),
                TimerTask::Protocol(id) => {
                    if self.is_open(id) {
                        self.call(id, "timer", |p, t| p.timer(t, timer));
                    }
                    self.mark(id);
                }
            }
        }
    }
}
