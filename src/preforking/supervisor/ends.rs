//! The ends of workers: of one at any moment, and of all at the stop.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{Supervisor, CHECK_AGAIN};
use log::Level;

use crate::error::Result;
use crate::hooks;
use crate::lifecycle::LostWith;
use crate::observe::log_line;
use crate::preforking::worker::{State, Worker, AFTER_THE_DRAIN};
use crate::preforking::WorkerExit;
use crate::sources::Sources;
use crate::sys::process::{self, Status};
use crate::sys::signal;

/// A worker whose engine fails within this time is a failed start, although it was ready.
const SOON: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Accounts for a worker that has ended. Its end is an obedient one, a death, or a failed start.
    pub(super) fn reap(&mut self, mut worker: Worker, status: Status) {
        // Taken out before they are closed: a copy in another process would keep the entries alive.
        self.watch.remove(&worker.pidfd);
        self.watch.remove(&worker.pipe);
        // What it wrote last may not have been read yet.
        let became_ready = worker.read_pipe();
        worker.was_ready |= became_ready;
        self.fulfil(&worker);

        // Count the connections that it took along, and give its slot to the next worker.
        let in_order = status == Status::Exited(0) && worker.last_words().is_none();
        let lost_with = match worker.state {
            State::Killed { cut: true } => LostWith::Cut,
            State::Leaving(_) if in_order => LostWith::Left,
            _ => LostWith::Crashed,
        };
        // A worker that has given all permits back has given back what its clients had, too: no need to search for it.
        let has_left = !in_order || worker.core.admission.permits.active() > 0;
        let connections = worker.slot.settle(lost_with, &worker.counted);
        worker.core.admission.sources.iter().filter(|_| has_left).for_each(Sources::settle);
        if in_order {
            self.abandoned = self.abandoned.saturating_add(worker.slot.result());
        }
        let has_accepted = worker.has_accepted();
        self.scoreboard.give_back(&worker.slot);
        if lost_with == LostWith::Crashed && has_accepted && self.core().control.stopping() {
            self.lost.push(worker.index);
        }

        let is_asked = matches!(worker.state, State::Leaving(_) | State::Killed { .. });
        let how = describe(&worker, status);
        let (now, lived) = (Instant::now(), worker.started.elapsed());
        self.call_exit_hook(&worker, status, is_asked);

        let failed_soon = worker.last_words().is_some() && lived < SOON;
        let (index, pid) = (worker.index, worker.pid);
        if is_asked || (self.is_single && in_order) {
            log_line(Level::Info, "socketserver::preforking", format_args!("worker {index} (process {pid}) {how}"));
        } else if worker.was_ready && !failed_soon {
            self.core().monitor.report_lost_worker(index, pid.as_raw(), &how, connections);
            self.starts.died(index, lived, has_accepted, now);
        } else if !(in_order && self.core().control.stopping()) {
            let how = if worker.was_ready { how } else { format!("{how} before it was ready") };
            self.core().monitor.report_lost_worker(index, pid.as_raw(), &how, connections);
            self.note_failed_start(index, how);
        }
    }

    fn call_exit_hook(&self, worker: &Worker, status: Status, is_asked: bool) {
        let Some(hook) = &self.settings.on_worker_exit else { return };
        let (code, signal) = match status {
            Status::Exited(code) => (Some(code), None),
            Status::Killed(signal) => (None, Some(signal)),
            Status::Gone => (None, None),
        };
        let exit = WorkerExit { index: worker.index, pid: worker.pid.as_raw(), code, signal, expected: is_asked };
        hooks::call(self.core(), "on_worker_exit", || hook(&exit));
    }

    /// Ends all workers, under one deadline. Returns the number of handlers that were left running, or the
    /// fault.
    pub(super) fn drain(mut self) -> Result<u64> {
        let core = self.core();
        let control = &core.control;
        core.report_stopping();
        if self.fault.is_some() {
            control.request_stop();
        }
        // The connections that the kernel holds now are still served, by whichever worker has a permit.
        if !control.paused() {
            self.scoreboard.queued.count(&self.bound.listeners, core.settings.backlog);
        }
        // A place may be empty at this moment: a request has ended its worker, or the stop came before the first one.
        let is_empty = |index: &usize| self.workers.iter().all(|worker| worker.index != *index);
        self.lost = (0..self.scoreboard.wanted()).filter(is_empty).collect();
        loop {
            control.events.clear();
            self.poll_workers();
            self.replace_lost();
            self.give_missing_shares();
            self.forward_stop();
            if self.workers.is_empty() {
                break;
            }
            // A worker without a permit for the rest of the queue waits at its gate until others have served
            // it. Nothing else wakes it then, so each turn does.
            let check_again = (!self.scoreboard.queued.is_empty()).then_some(CHECK_AGAIN);
            self.wait(self.longest_wait().into_iter().chain(check_again).min())?;
        }
        self.scoreboard.queued.clear();
        self.fault.take().map_or(Ok(self.abandoned), Err)
    }

    /// Starts workers in a drain, in place of those that a request has ended, while connections of the queue are left.
    /// They end with the queue.
    fn replace_lost(&mut self) {
        let (core, now) = (self.core(), Instant::now());
        let is_over = core.control.is_urgent() || core.drain_deadline().is_some_and(|at| at <= now);
        let lost = std::mem::take(&mut self.lost);
        if is_over || core.control.paused() || self.is_single {
            return;
        }
        for index in lost.into_iter().take(self.scoreboard.queued.left()) {
            let may_start = self.fault.is_none() && self.starts.rest(index, now).is_none();
            if may_start {
                self.start(index);
            }
        }
    }

    /// Stops all workers as this server is stopped, and kills workers that are too slow.
    fn forward_stop(&mut self) {
        let (core, now) = (self.core(), Instant::now());
        let kill_at = core.drain_deadline().and_then(|end| end.checked_add(AFTER_THE_DRAIN));
        let more_time = self.more_time();
        for worker in &mut self.workers {
            if core.control.is_urgent() {
                worker.core.control.request_stop_now();
            } else if core.control.stopping() {
                worker.core.control.request_stop();
            }
            // While it ended alone, it spared connections that wait for their first request. Now it need not.
            worker.core.control.wake_gate();
            match worker.state {
                State::Killed { .. } => {}
                State::Leaving(Some(at)) if more_time.map_or(at, |more| at.max(more)) <= now => worker.kill(true),
                // It was dismissed before: its own time may be over sooner.
                State::Leaving(at) => worker.state = State::Leaving(at.into_iter().chain(kill_at).min()),
                State::Starting | State::Ready => worker.state = State::Leaving(kill_at),
            }
        }
    }
}

/// Returns how the worker has ended, as logs and errors say it.
fn describe(worker: &Worker, status: Status) -> String {
    let how = match status {
        Status::Exited(code) => format!("exited with {code}"),
        Status::Killed(signal) => format!("was killed by {signal}"),
        Status::Gone => "ended, and other code waited for it first: its status is unknown".to_owned(),
    };
    worker.last_words().map_or(how.clone(), |words| format!("{how}: {words}"))
}

/// Returns the end of this worker, if it has ended. From then on, its number may be another process's.
pub(super) fn ended(worker: &Worker) -> Option<Status> {
    // So a second SIGINT must not kill by that number: it goes from the list before, and comes back if the
    // worker lives.
    signal::child_ends(worker.pid.as_raw());
    let status = process::ended(worker.pidfd.as_fd());
    if status.is_none() {
        signal::child_begins(worker.pid.as_raw());
    }
    status
}
