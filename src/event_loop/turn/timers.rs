//! Timers that are due, and the hook `service_actions`.

use std::time::Duration;

use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::hooks::{self, Duty, DUTIES};

impl State {
    /// Sets the timers for what the server does by the clock.
    pub(crate) fn schedule_duties(&mut self) {
        DUTIES.into_iter().for_each(|duty| self.schedule(duty));
    }

    /// `service_actions` is the first loop's alone. In a worker process every loop has the timer: it beats the worker's
    /// heart. Every loop has a part in the report too.
    fn schedule(&mut self, duty: Duty) {
        if duty == Duty::Actions && self.loops.number > 0 && !self.core.is_worker() {
            return;
        }
        if let Some(every) = hooks::every(&self.core, duty) {
            self.time.timers.set(self.time.clock.now(), every, TimerTask::Duty(duty));
        }
    }

    /// Calls `service_actions`, beats the worker's heart or reports, and sets the timer for the next time.
    fn perform(&mut self, duty: Duty) {
        if self.stop.drain.is_some() {
            return;
        }
        self.time.now = self.time.clock.now();
        match (duty, self.core.worker()) {
            // The master sees the oldest beat of all loops: for its clients, one loop that hangs is a hung worker.
            (Duty::Actions, Some(post)) => post.beat_at(self.loops.group.beat(self.loops.number, post.millis())),
            (Duty::Actions, None) => hooks::perform(&self.core, duty),
            (Duty::Report, _) => self.report(),
        }
        self.note_stall("service_actions", None);
        self.schedule(duty);
    }

    /// Reports to the service manager, in the first loop. It does not if another loop hangs: the manager's watchdog
    /// then ends the server, as it does if this loop hangs.
    fn report(&mut self) {
        let Some(every) = hooks::every(&self.core, Duty::Report) else { return };
        let now = self.core.control.millis(self.time.now);
        let oldest = self.loops.group.beat(self.loops.number, now);
        let late = Duration::from_millis(now.saturating_sub(oldest));
        if self.loops.number == 0 && late < every * 2 {
            self.core.report_alive();
        }
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
                TimerTask::Greeting(place) => self.time_out_greeting(place),
                TimerTask::Verify(key) => self.time_out_verdict(key),
                TimerTask::Duty(duty) => self.perform(duty),
                TimerTask::Datagrams(place) => self.fire_datagram_timer(place, timer),
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
