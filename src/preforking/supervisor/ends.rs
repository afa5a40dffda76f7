//! The ends of workers: of one at any moment, and of all at the stop.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{Supervisor, CHECK_AGAIN};
use crate::error::Result;
use crate::hooks;
use crate::lifecycle::LostWith;
use crate::preforking::worker::{State, Worker, AFTER_THE_DRAIN};
use crate::preforking::WorkerExit;
use crate::sys::process::{self, Status};
use crate::sys::signal;

/// A worker whose engine fails within this time is a failed start, although it was ready.
const SOON: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Accounts for a worker that has ended.
    pub(super) fn reap(&mut self, mut worker: Worker, status: Status) {
        self.watch.remove(&worker.pidfd);
        self.watch.remove(&worker.pipe);
        let became_ready = worker.read_pipe();
        worker.was_ready |= became_ready;
        let how = match status {
            Status::Exited(code) => format!("exited with {code}"),
            Status::Killed(signal) => format!("was killed by {signal}"),
            Status::Gone => "ended unseen, as somebody else has waited for it".to_owned(),
        };
        let in_order = status == Status::Exited(0) && worker.last_words().is_none();
        let lost = match worker.state {
            State::Killed { cut: true } => LostWith::Cut,
            State::Leaving(_) if in_order => LostWith::Left,
            _ => LostWith::Crashed,
        };
        let Some(post) = worker.post() else { return };
        let connections = post.slot.settle(lost);
        if in_order {
            self.abandoned += post.slot.result();
        }
        post.slot.give_back();
        let is_asked = matches!(worker.state, State::Leaving(_) | State::Killed { .. });
        let (now, lived) = (Instant::now(), worker.started.elapsed());
        let failed_soon = worker.last_words().is_some() && lived < SOON;
        let how = worker.last_words().map_or(how.clone(), |words| format!("{how}: {words}"));
        self.call_exit_hook(&worker, status, is_asked);
        if is_asked || (self.is_single && in_order) {
            log::info!(
                target: "socketserver::preforking", "worker {} (process {}) {how}", worker.index, worker.pid
            );
        } else if worker.was_ready && !failed_soon {
            self.core().monitor.report_lost_worker(worker.index, worker.pid.as_raw(), &how, connections);
            self.starts.died(worker.index, lived, now);
        } else if !(in_order && self.core().control.stopping()) {
            let how = if worker.was_ready { how } else { format!("{how} before it was ready") };
            self.core().monitor.report_lost_worker(worker.index, worker.pid.as_raw(), &how, connections);
            self.start_failed(worker.index, how);
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

    /// Ends all workers, under one deadline.
    pub(super) fn drain(mut self) -> Result<u64> {
        let core = self.core();
        let control = &core.control;
        if self.fault.is_some() {
            control.request_stop();
        }
        if !control.paused() {
            self.scoreboard.queued.count(&self.bound.listeners, core.settings.backlog);
        }
        while !self.workers.is_empty() {
            control.events.clear();
            // Who has no index for the last of the queue waits at its gate, and is told there that others have had it: not
            // by a ring that came before.
            let looks = (!self.scoreboard.queued.is_empty()).then_some(CHECK_AGAIN);
            self.forward_stop();
            self.poll_workers();
            if !self.workers.is_empty() {
                self.wait(self.longest_wait().into_iter().chain(looks).min())?;
            }
        }
        self.scoreboard.queued.clear();
        self.fault.take().map_or(Ok(self.abandoned), Err)
    }

    fn forward_stop(&mut self) {
        let (core, now) = (self.core(), Instant::now());
        let end = core.drain_deadline();
        for worker in &mut self.workers {
            if core.control.is_urgent() {
                worker.core.control.request_stop_now();
            } else if core.control.stopping() {
                worker.core.control.request_stop();
            }
            worker.core.control.wake_gate(); // those that were spared while it ended alone
            match worker.state {
                State::Killed { .. } => {}
                State::Leaving(Some(at)) if at <= now => worker.kill(true),
                State::Leaving(at) => {
                    let end = end.and_then(|end| end.checked_add(AFTER_THE_DRAIN));
                    worker.state = State::Leaving(at.into_iter().chain(end).min());
                }
                _ => worker.state = State::Leaving(end.and_then(|end| end.checked_add(AFTER_THE_DRAIN))),
            }
        }
    }
}

/// The end of this worker, if it has ended. Its number may be another's from then on.
pub(super) fn ended(worker: &Worker) -> Option<Status> {
    signal::child_ends(worker.pid.as_raw());
    let status = process::ended(worker.pidfd.as_fd());
    if status.is_none() {
        signal::child_begins(worker.pid.as_raw());
    }
    status
}
