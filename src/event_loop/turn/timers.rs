//! What is due.

use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::hooks;

impl State {
    /// Has the server's `service_actions` called, if it has any, by the first of its loops; or the worker's heart beat,
    /// which takes all of them.
    pub(crate) fn schedule_actions(&mut self) {
        if self.loops.number > 0 && !self.core.is_worker() {
            return;
        }
        if let Some(every) = hooks::every(&self.core) {
            self.time.timers.set(self.time.clock.now(), every, TimerTask::Actions);
        }
    }

    pub(crate) fn run_actions(&mut self) {
        if self.stop.drain.is_some() {
            return;
        }
        self.time.now = self.time.clock.now();
        match self.core.worker() {
            Some(post) => post.beat_at(self.loops.group.beat(self.loops.number, post.millis())),
            None => hooks::perform(&self.core),
        }
        self.note_stall("service_actions", None);
        self.schedule_actions();
    }

    /// Those that are due, and were set before this turn.
    pub(crate) fn fire_timers(&mut self, mark: u64) {
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
