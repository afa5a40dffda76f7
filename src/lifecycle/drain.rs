//! The end of a run: wake who idles, let the rest finish, cut what is left at the limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use log::Level;

use super::core::Core;
use super::registry::SlotState;
use crate::accept::ServingStrategy;
use crate::observe::log_line;
use crate::sync::now;
use crate::sys;

/// After the cut, handlers get this long to notice and to return.
const AFTER_THE_CUT: Duration = Duration::from_millis(100);

impl Core {
    /// Ends what is in progress; the strategy looks after its part meanwhile. Returns at the drain limit plus 100 ms at
    /// the latest, with the number of handlers
    /// that were left running.
    pub(crate) fn drain(&self, strategy: &dyn ServingStrategy) -> io::Result<u64> {
        let idle = || self.admission.permits.active() == 0 && self.run.workers.load(SeqCst) == 0;
        self.wake_idle();
        if self.wait_for(strategy, &idle, || self.drain_deadline())? {
            return Ok(0);
        }
        let left = self.admission.permits.active();
        self.control.cut();
        self.registry.cut_all();
        self.waiting.wake_all();
        log_line(Level::Warn, "socketserver::drain", format_args!("the drain is over: cut {left} connections"));
        let grace = now() + AFTER_THE_CUT;
        self.wait_for(strategy, &idle, || Some(grace))?;
        let abandoned = self.admission.permits.active() as u64;
        self.monitor.counters().forced.fetch_add(abandoned, Relaxed);
        Ok(abandoned)
    }

    /// Whether this is a worker whose server goes on: then nobody who has just connected is sent away.
    pub(crate) fn ends_alone(&self) -> bool {
        self.is_worker() && !self.server().control.stopping()
    }

    /// Ends the waits of idle connections, once a stop; those who begin to wait later see the switch themselves.
    pub(crate) fn wake_idle(&self) {
        let (first, first_of_all) = self.control.first_to_wake(self.ends_alone());
        if first {
            self.registry.wake(SlotState::Idle);
        }
        if first_of_all {
            self.registry.wake(SlotState::New);
        }
    }

    /// Waits until `idle`; `false` if `deadline`, which may come closer meanwhile, passes first.
    fn wait_for(
        &self,
        strategy: &dyn ServingStrategy,
        idle: &impl Fn() -> bool,
        deadline: impl Fn() -> Option<Instant>,
    ) -> io::Result<bool> {
        loop {
            self.control.events.clear();
            strategy.service_actions();
            self.wake_idle(); // the server may follow its worker
            if idle() {
                return Ok(true);
            }
            let left = deadline().map(|d| d.saturating_duration_since(now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            sys::poll([Some(self.control.events.as_fd()), strategy.wake_fd()], None, left)?;
        }
    }
}
