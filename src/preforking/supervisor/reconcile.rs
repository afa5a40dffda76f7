//! Starts workers that are missing or are to succeed others, and dismisses workers that are too many.

use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::{Supervisor, ENDED, SPOKE};
use log::Level;

use crate::error::{Error, Result};
use crate::hooks;
use crate::lifecycle::WorkerRole;
use crate::observe::log_line;
use crate::preforking::check_threads;
use crate::preforking::worker::{State, Worker};
use crate::sys::{process, signal};

impl Supervisor<'_> {
    /// Brings the workers there are to those there should be: one for each index below the wanted number.
    pub(super) fn reconcile(&mut self) {
        let (now, more_time) = (Instant::now(), self.more_time());
        // Kill workers that are slow to end.
        for worker in &mut self.workers {
            if matches!(worker.state, State::Leaving(Some(at)) if more_time.map_or(at, |more| at.max(more)) <= now) {
                worker.kill(true);
            }
        }
        // Dismiss workers that are too many. They need no successor.
        let wanted = self.scoreboard.wanted();
        let extra = |w: &&mut Worker| w.index >= wanted && matches!(w.state, State::Starting | State::Ready);
        self.workers.iter_mut().filter(extra).for_each(|worker| worker.dismiss(now));
        // Start the missing ones, and successors. A start may end the run, by its hook or its failure.
        for index in 0..wanted {
            if self.fault.is_some() || self.core().control.stopping() {
                return;
            }
            if self.starts.rest(index, now).is_none() && self.needs_a_worker(index) {
                self.start(index);
            }
        }
    }

    /// At a reload, reads the files of TLS: the workers that are forked from here on have the new certificate. A bad file
    /// is an error in the log, and the old certificate stays.
    pub(super) fn read_certificates_again(&mut self) {
        let generation = self.scoreboard.generation();
        let Some(tls) = self.core().settings.tls.as_ref().filter(|_| generation != self.certified) else { return };
        self.certified = generation;
        if let Err(why) = tls.reload_files() {
            let text = format_args!("the reload keeps the old certificate: {why}");
            log_line(Level::Error, "socketserver::preforking", text);
        }
    }

    fn needs_a_worker(&self, index: usize) -> bool {
        if self.workers.iter().any(|w| w.index == index && w.state == State::Starting) {
            return false;
        }
        let Some(present) = self.workers.iter().find(|w| w.index == index && w.is_ready()) else { return true };
        // One after another at a reload, so that there are never twice as many.
        let is_old = present.generation < self.scoreboard.generation()
            && !self.workers.iter().any(|w| w.state == State::Starting);
        is_old || present.is_stuck || present.slot.wants_successor()
    }

    /// True if a worker was started.
    pub(super) fn start(&mut self, index: usize) -> bool {
        let forked = self.fork(index);
        if let Err(why) = &forked {
            log_line(Level::Error, "socketserver::preforking", format_args!("cannot start worker {index}: {why}"));
            self.note_failed_start(index, format!("could not be forked: {why}"));
        }
        forked.is_ok()
    }

    /// Notes a failed start. After too many in a row, it ends the run.
    pub(super) fn note_failed_start(&mut self, index: usize, how: String) {
        let failures = self.starts.failed(index, Instant::now());
        // While a worker serves, no failure ends the server: a reload with a broken configuration is no
        // reason to.
        let is_served = self.workers.iter().any(Worker::is_ready);
        if (failures >= self.settings.start_failures && !is_served) || self.is_single {
            self.fault = Some(Error::Workers { failures, cause: how });
        }
    }

    fn fork(&mut self, index: usize) -> Result<()> {
        let (core, settings) = (self.core(), self.settings);
        check_threads()?;
        if let Some(hook) = &settings.before_fork {
            hooks::call(core, "before_fork", || hook(index));
            // The hook may have started one.
            check_threads()?;
        }
        let none_left = || Error::setting("PreForking", "more than 2048 processes, those on their way out included");
        // After a stop, the pipe for it is made anew.
        let pipes = core.control.pipes().map_err(Error::system("make the pipes of the workers"))?;
        let slot = self.scoreboard.take().ok_or_else(none_left)?;
        slot.prepare(settings.recycle_after());
        let role = |words| {
            let shared = (self.scoreboard.clone(), slot.clone());
            WorkerRole::new(core, shared, index, settings.heartbeat, (words, pipes))
        };
        let started = Worker::start(self.bound, role, self.capacity, &self.child_signals, settings, &mut *self.run);
        match started.and_then(|worker| self.watch_worker(worker)) {
            Ok(mut worker) => {
                // A second SIGINT or SIGTERM takes it along.
                signal::child_begins(worker.pid.as_raw());
                worker.generation = self.scoreboard.generation();
                self.workers.push(worker);
                Ok(())
            }
            Err(e) => {
                self.scoreboard.give_back(&slot);
                Err(Error::System { act: "fork".into(), source: e })
            }
        }
    }

    /// Watches a worker's end and its pipe. A worker that cannot be watched is ended at once.
    fn watch_worker(&self, worker: Worker) -> std::io::Result<Worker> {
        let token = (worker.pid.as_raw() as u64) << 1;
        let watched = self.watch.add(&worker.pidfd, token | ENDED);
        match watched.and_then(|()| self.watch.add(&worker.pipe, token | SPOKE)) {
            Ok(()) => Ok(worker),
            Err(e) => {
                process::end_now(worker.pid);
                Err(e)
            }
        }
    }

    /// Ends the worker that the ready worker `new` succeeds: only now, so that there is always one that
    /// serves.
    pub(super) fn retire_predecessors(&mut self, index: usize, new: Pid) {
        let (core, now) = (self.core(), Instant::now());
        let limit = self.settings.heartbeat.unwrap_or(Duration::MAX);
        for old in self.workers.iter_mut().filter(|w| w.index == index && w.pid != new && w.is_ready()) {
            // Its heart may beat again by now. Then it can be drained like any other.
            if old.is_stuck && old.time_since_beat(self.awake_since) >= limit {
                let open = old.core.admission.permits.active() as u64;
                core.monitor.report_lost_worker(index, old.pid.as_raw(), "is stuck, and was killed", open);
                old.kill(false);
            } else {
                old.dismiss(now);
            }
        }
    }
}
