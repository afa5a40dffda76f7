//! The master: it starts workers, and sees that there are always as many as there should be.

mod ends;
mod hearts;
mod limits;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{Error, Result};
use crate::hooks::{self, Pace};
use crate::lifecycle::{Core, Scoreboard, WorkerRole};
use crate::preforking::settings::PreForkingSettings;
use crate::preforking::starts::Starts;
use crate::preforking::worker::{Run, State, Worker};
use crate::server::Bound;
use crate::sys::process::{self, ChildSignals, Private};
use crate::sys::shared::Shared;
use crate::sys::worker::{MasterSignals, MASTER_SIGNALS};
use crate::sys::{self, signal, Epoll, Interest};

/// While places of the limit are still held by those who are on their way out: when it is looked again.
const CHECK_AGAIN: Duration = Duration::from_millis(20);

/// What the master knows, during one run.
pub(super) struct Supervisor<'a> {
    bound: &'a Bound,
    settings: &'a PreForkingSettings,
    run: Run<'a>,
    scoreboard: Arc<Shared<Scoreboard>>,
    /// How many connections one worker can serve.
    capacity: usize,
    workers: Vec<Worker>,
    watch: Private<Epoll>,
    starts: Starts,
    child_signals: ChildSignals,
    signals: Option<MasterSignals>,
    /// When it has last looked, and whether all have their share of the limit.
    looked: Instant,
    settled: bool,
    /// Hearts are listened to from here on.
    awake_since: Instant,
    /// Whether one worker serves one connection, and the run ends with it.
    is_single: bool,
    /// What ends the run.
    fault: Option<Error>,
    /// Handlers that were left running, by workers that have ended.
    abandoned: u64,
}

/// What the kernel tells of a worker.
const ENDED: u64 = 0;
const SPOKE: u64 = 1;

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        bound: &'a Bound,
        settings: &'a PreForkingSettings,
        scoreboard: Arc<Shared<Scoreboard>>,
        capacity: usize,
        run: Run<'a>,
    ) -> Result<Self> {
        let core = &bound.core;
        let failed = Error::system("prepare to watch workers");
        let handled = signal::are_handled_by(core.control.switch());
        let make = || {
            let watch = Private::new(Epoll::new()?);
            let signals = handled.then(|| MasterSignals::install(core.control.switch())).transpose()?;
            Ok((watch, signals))
        };
        let (watch, signals) = make().map_err(failed)?;
        let mut ignored = if handled { vec![Signal::SIGINT] } else { Vec::new() };
        ignored.extend(signals.iter().flat_map(|_| MASTER_SIGNALS));
        ignored.push(Signal::SIGTERM); // until it has a handler of its own
        Ok(Self {
            bound,
            settings,
            run,
            scoreboard,
            capacity,
            workers: Vec::new(),
            watch,
            starts: Starts::default(),
            child_signals: ChildSignals::of_this_process(&ignored),
            signals,
            looked: Instant::now(),
            awake_since: Instant::now(),
            is_single: false,
            settled: true,
            fault: None,
            abandoned: 0,
        })
    }

    fn core(&self) -> &'a Arc<Core> {
        &self.bound.core
    }

    /// Serves until the stop, and drains; how many handlers were left running.
    pub(super) fn serve(mut self) -> Result<u64> {
        let core = self.core();
        let mut actions = Pace::begin(core);
        while !core.control.stopping() && self.fault.is_none() {
            core.control.events.clear();
            self.poll_workers();
            self.handle_signals();
            self.check_heartbeats();
            self.reconcile();
            self.distribute_limit();
            if core.control.stopping() || self.fault.is_some() {
                break;
            }
            let patience = self.longest_wait().into_iter().chain(actions.left()).min();
            self.wait(patience)?;
            actions.act();
        }
        self.drain()
    }

    /// One worker, until it has ended; what its run has returned, if it came to that.
    pub(super) fn serve_once(mut self) -> Result<Option<u64>> {
        self.is_single = true;
        self.start(0);
        while !self.workers.is_empty() && !self.core().control.stopping() {
            self.core().control.events.clear();
            self.poll_workers();
            self.check_heartbeats();
            for stuck in self.workers.iter_mut().filter(|w| w.is_stuck && w.is_ready()) {
                stuck.kill(false); // nobody succeeds it
            }
            self.distribute_limit();
            if !self.workers.is_empty() {
                self.wait(self.longest_wait())?;
            }
        }
        let answer = self.drain()?;
        Ok(Some(answer).filter(|n| *n > 0))
    }

    fn wait(&mut self, patience: Option<Duration>) -> Result<()> {
        let began = Instant::now();
        let wait = [Some(self.core().control.events.as_fd()), Some(self.watch.as_fd())];
        sys::poll(wait, None, patience).map(drop).map_err(Error::system("wait for workers"))?;
        // Who was stopped or frozen himself, with his workers perhaps, knows nothing of their hearts.
        let late = patience.map_or(Duration::ZERO, |patience| began.elapsed().saturating_sub(patience));
        if self.settings.heartbeat.is_some_and(|limit| late >= limit / 4) {
            self.awake_since = Instant::now();
        }
        Ok(())
    }

    /// Takes in what the workers have said, and who has ended.
    fn poll_workers(&mut self) {
        self.looked = Instant::now();
        let mut tokens = [0; 32];
        while let Ok(told) = self.watch.ready(&mut tokens) {
            for token in told {
                let is_meant = |w: &Worker| w.pid.as_raw() as u64 == token >> 1;
                let Some(index) = self.workers.iter().position(is_meant) else { continue };
                if token & 1 == SPOKE {
                    self.read_pipe_of(index);
                } else if let Some(status) = ends::ended(&self.workers[index]) {
                    let worker = self.workers.swap_remove(index);
                    self.reap(worker, status);
                }
            }
            if told.len() < 32 {
                break;
            }
        }
    }

    fn read_pipe_of(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if !worker.read_pipe() {
            self.watch.remove(&worker.pipe); // last words, or the end of it; its own end is told apart
        } else if worker.state == State::Starting {
            worker.state = State::Ready;
            worker.was_ready = true;
            log::info!(
                target: "socketserver::preforking", "worker {} (process {}) is ready", worker.index, worker.pid
            );
            let (index, pid) = (worker.index, worker.pid);
            self.starts.succeeded(index);
            self.retire_predecessors(index, pid);
        }
    }

    /// A new worker is ready: the one before it in the same index may go.
    fn retire_predecessors(&mut self, index: usize, new: nix::unistd::Pid) {
        let (core, now) = (self.core(), Instant::now());
        for old in self.workers.iter_mut().filter(|w| w.index == index && w.pid != new && w.is_ready()) {
            if old.is_stuck && old.time_since_beat(self.awake_since) >= self.settings.heartbeat.unwrap_or(Duration::MAX)
            {
                core.monitor.report_lost_worker(index, old.pid.as_raw(), "is stuck, and was killed", open(old));
                old.kill(false);
            } else {
                old.dismiss(now);
            }
        }
    }

    /// A index that cannot get a worker ends the run after so many attempts, unless other workers serve.
    fn start_failed(&mut self, index: usize, how: String) {
        let failures = self.starts.failed(index, Instant::now());
        let is_served = self.workers.iter().any(Worker::is_ready);
        if (failures >= self.settings.start_failures && !is_served) || self.is_single {
            self.fault = Some(Error::Workers { failures, cause: how });
        }
    }

    fn handle_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        let (reload, more) = signals.asked();
        if reload {
            self.scoreboard.reload();
        }
        if more != 0 {
            let wanted = self.scoreboard.wanted() as i64 + i64::from(more);
            let wanted = wanted.clamp(1, crate::lifecycle::MOST_WORKERS as i64) as usize;
            if let Err(why) = crate::lifecycle::check_count("SIGTTIN", wanted) {
                log::warn!(target: "socketserver::preforking", "not as many workers as signals have asked for: {why}");
                return;
            }
            log::info!(target: "socketserver::preforking", "{wanted} workers from now on");
            self.scoreboard.set_wanted(wanted, &self.core().admission.permits);
        }
    }

    /// Workers that must be told something in a while; `None`: nothing will be due by itself.
    fn longest_wait(&self) -> Option<Duration> {
        let now = Instant::now();
        let hearts = self.settings.heartbeat.iter().flat_map(|limit| {
            self.workers.iter().filter_map(move |w| match w.state {
                State::Starting => Some((w.started + *limit).saturating_duration_since(now)),
                State::Ready if !w.is_stuck => Some(limit.saturating_sub(w.time_since_beat(self.awake_since))),
                _ => None,
            })
        });
        let kills = self.workers.iter().filter_map(|w| match w.state {
            State::Leaving(Some(at)) => Some(at.saturating_duration_since(now)),
            _ => None,
        });
        let unsettled = (!self.settled).then_some(CHECK_AGAIN);
        let least = hearts.chain(kills).map(|time| time.max(Duration::from_millis(1)));
        least.chain(self.starts.next(now)).chain(unsettled).min()
    }

    /// Starts who is missing, and who is to succeed another; ends who is too many, or too slow to end.
    fn reconcile(&mut self) {
        let now = Instant::now();
        for worker in &mut self.workers {
            if matches!(worker.state, State::Leaving(Some(at)) if at <= now) {
                worker.kill(true);
            }
        }
        let wanted = self.scoreboard.wanted();
        let extra = |w: &&mut Worker| w.index >= wanted && matches!(w.state, State::Starting | State::Ready);
        self.workers.iter_mut().filter(extra).for_each(|worker| worker.dismiss(now));
        for index in 0..wanted {
            if self.fault.is_some() || self.core().control.stopping() {
                return;
            }
            if self.starts.rest(index, now).is_none() && self.needs_a_worker(index) {
                self.start(index);
            }
        }
    }

    fn needs_a_worker(&self, index: usize) -> bool {
        if self.workers.iter().any(|w| w.index == index && w.state == State::Starting) {
            return false;
        }
        let Some(now) = self.workers.iter().find(|w| w.index == index && w.is_ready()) else { return true };
        // One after another at a reload, so that there are never twice as many.
        let is_old =
            now.generation < self.scoreboard.generation() && !self.workers.iter().any(|w| w.state == State::Starting);
        is_old || now.is_stuck || now.post().is_some_and(|post| post.slot.wants_successor())
    }

    fn start(&mut self, index: usize) {
        if let Err(why) = self.fork(index) {
            log::error!(target: "socketserver::preforking", "cannot start worker {index}: {why}");
            self.start_failed(index, format!("could not be forked: {why}"));
        }
    }

    fn fork(&mut self, index: usize) -> Result<()> {
        let (core, settings) = (self.core(), self.settings);
        crate::preforking::check_threads()?;
        if let Some(hook) = &settings.before_fork {
            hooks::call(core, "before_fork", || hook(index));
            crate::preforking::check_threads()?; // it may have started one
        }
        let none_left = || Error::setting("PreForking", "more than 2048 processes, those on their way out included");
        let slot = Scoreboard::take(&self.scoreboard).ok_or_else(none_left)?;
        slot.prepare(settings.recycle_after());
        let post =
            |pipe| WorkerRole::new(core, (self.scoreboard.clone(), slot.clone()), index, settings.heartbeat, pipe);
        let started = Worker::start(self.bound, post, self.capacity, &self.child_signals, settings, &mut *self.run);
        let watched = started.and_then(|worker| {
            let pid = worker.pid.as_raw();
            let token = (pid as u64) << 1;
            let watched = self.watch.add(&worker.pidfd, Interest::Read, token | ENDED);
            match watched.and_then(|()| self.watch.add(&worker.pipe, Interest::Read, token | SPOKE)) {
                Ok(()) => Ok(worker),
                Err(e) => {
                    process::end_now(worker.pid);
                    Err(e)
                }
            }
        });
        match watched {
            Ok(mut worker) => {
                signal::child_begins(worker.pid.as_raw());
                worker.generation = self.scoreboard.generation();
                self.workers.push(worker);
                Ok(())
            }
            Err(e) => {
                slot.give_back();
                Err(Error::System { act: "fork".into(), source: e })
            }
        }
    }
}

fn open(worker: &Worker) -> u64 {
    worker.core.admission.permits.active() as u64
}
