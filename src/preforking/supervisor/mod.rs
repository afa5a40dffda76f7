//! [`Supervisor`]: the loop of the master. It compares the workers that there are with those that there
//! should be, and does the difference.
//!
//! Nobody else starts or ends workers. A wish for a change is written into the scoreboard, and the master
//! is woken. Wishes come from handles in any process, from signals, and from workers that have served their time. So two wishes at
//! once need no protocol, and no wish is lost.
//!
//! The walk of a turn is [`Supervisor::serve`]. It hears the workers and the signals, checks the heartbeats
//! ([`hearts`]), starts and dismisses ([`reconcile`]), divides the limit ([`limits`]), and waits. [`ends`] accounts
//! for each end, and drains.

mod ends;
mod hearts;
mod limits;
mod reconcile;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use log::Level;

use crate::config::AFTER_A_LATE_WAKE_UP;
use crate::error::{Error, Result};
use crate::hooks::Pace;
use crate::lifecycle::{check_count, Core, Restarts, Scoreboard, ServerHandle, MOST_WORKERS};
use crate::observe::log_line;
use crate::preforking::settings::PreForkingSettings;
use crate::preforking::starts::Starts;
use crate::preforking::worker::{Run, State, Worker, AFTER_THE_DRAIN};
use crate::server::Bound;
use crate::sys::process::{ChildSignals, Private};
use crate::sys::{self, master, restart, signal, Epoll};
use crate::systemd::Notifier;

/// Permits come back without a sign to the master. While it waits for some, it looks this often.
const CHECK_AGAIN: Duration = Duration::from_millis(20);

/// The state of a master during one run. It runs on one thread, since a fork copies no other.
pub(super) struct Supervisor<'a> {
    bound: &'a Bound,
    settings: &'a PreForkingSettings,
    run: Run<'a>,
    scoreboard: Arc<Scoreboard>,
    /// The most connections that a worker can serve.
    capacity: usize,
    workers: Vec<Worker>,
    /// Each worker's pidfd and pipe. A token is the process number and one of [`ENDED`] and [`SPOKE`].
    watch: Private<Epoll>,
    starts: Starts,
    child_signals: ChildSignals,
    /// `None` if the server does not handle signals.
    signals: Option<master::Run>,
    /// The generation of workers that the files of TLS were last read for.
    certified: u64,
    /// True if each worker has its share of the limit.
    settled: bool,
    /// Silence before this moment does not count: the master itself did not run.
    awake_since: Instant,
    /// When the master last came late: it did not run for a while.
    woke_late_at: Option<Instant>,
    /// True if one worker serves one connection, and the run ends with it.
    is_single: bool,
    /// The error that ends the run.
    fault: Option<Error>,
    /// The handlers that ended workers have left running.
    abandoned: u64,
    /// The numbers of workers that a request has ended. A drain starts them again.
    lost: Vec<usize>,
}

/// The lowest bit of a token.
const ENDED: u64 = 0;
const SPOKE: u64 = 1;
/// The token of the bell, which workers ring when they have a wish.
const BELL: u64 = u64::MAX;

impl<'a> Supervisor<'a> {
    pub(super) fn new(
        bound: &'a Bound,
        settings: &'a PreForkingSettings,
        scoreboard: Arc<Scoreboard>,
        capacity: usize,
        run: Run<'a>,
    ) -> Result<Self> {
        let switch = bound.core.control.switch();
        let is_handling = signal::are_handled_by(switch);
        let watch = || {
            let watch = Private::new(Epoll::new()?);
            watch.add(bound.core.control.pipes()?.bell(), BELL)?;
            Ok(watch)
        };
        let watch = watch().map_err(Error::system("prepare to watch workers"))?;
        let signals = is_handling.then(|| master::Run::begin(switch));
        // A terminal sends SIGINT to the whole group, and it is the master that drains.
        let mut left = if is_handling { vec![Signal::SIGINT] } else { Vec::new() };
        left.extend(signals.iter().flat_map(|_| master::MASTER_SIGNALS));
        // Until the worker has a handler of its own.
        left.push(Signal::SIGTERM);
        left.extend(restart::handled());
        let generation = scoreboard.generation();
        Ok(Self {
            bound,
            settings,
            run,
            scoreboard,
            capacity,
            workers: Vec::new(),
            watch,
            starts: Starts::default(),
            child_signals: ChildSignals::of_this_process(&left),
            signals,
            awake_since: Instant::now(),
            woke_late_at: None,
            is_single: false,
            certified: generation,
            settled: true,
            fault: None,
            abandoned: 0,
            lost: Vec::new(),
        })
    }

    fn core(&self) -> &'a Arc<Core> {
        &self.bound.core
    }

    /// Serves until the stop, and drains. Returns the number of handlers that were left running.
    pub(super) fn serve(mut self) -> Result<u64> {
        let core = self.core();
        let mut actions = Pace::begin(core);
        while !core.control.stopping() && self.fault.is_none() {
            // Cleared before the look at what it announces: what comes later sets it again.
            core.control.events.clear();
            // What is: the workers that became ready or ended, and what signals have asked for.
            self.poll_workers();
            self.handle_signals();
            self.read_certificates_again();
            self.check_heartbeats();
            // What should be: start and dismiss, and give each worker its share of the limit.
            self.reconcile();
            self.distribute_limit();
            self.report_state();
            // A hook that was called meanwhile may have stopped the server.
            if core.control.stopping() || self.fault.is_some() {
                break;
            }
            let timeout = self.longest_wait().into_iter().chain(actions.left()).min();
            self.wait(timeout)?;
            actions.act();
        }
        self.drain()
    }

    /// Runs one worker to its end. Returns the result of its run, if it had one.
    pub(super) fn serve_once(mut self) -> Result<Option<u64>> {
        self.is_single = true;
        self.start(0);
        while !self.workers.is_empty() && !self.core().control.stopping() {
            self.core().control.events.clear();
            self.poll_workers();
            self.check_heartbeats();
            // There is no successor to wait for.
            for stuck in self.workers.iter_mut().filter(|w| w.is_stuck && w.is_ready()) {
                stuck.kill(false);
            }
            self.distribute_limit();
            if !self.workers.is_empty() {
                self.wait(self.longest_wait())?;
            }
        }
        let answer = self.drain()?;
        Ok(Some(answer).filter(|n| *n > 0))
    }

    /// Tells the service manager and a former process when all workers are ready, and when a reload begins.
    fn report_state(&self) {
        let generation = self.scoreboard.generation();
        let is_current =
            |index| self.workers.iter().any(|w| w.index == index && w.is_ready() && w.generation == generation);
        if (0..self.scoreboard.wanted()).all(is_current) {
            self.core().report_ready();
        } else if self.workers.iter().any(|w| w.generation < generation) {
            self.core().notifier().into_iter().for_each(Notifier::reloading);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<()> {
        let began = Instant::now();
        let restarts = self.core().restarts().map(Restarts::watch);
        let wait = [Some(self.core().control.events.as_fd()), Some(self.watch.as_fd()), restarts];
        if sys::poll(wait, None, timeout).map_err(Error::system("wait for workers"))?.has(2) {
            self.core().restarts().into_iter().for_each(Restarts::step);
        }
        // A master that was stopped or frozen (and its workers with it, perhaps) knows nothing of their
        // hearts.
        let late = timeout.map_or(Duration::ZERO, |timeout| began.elapsed().saturating_sub(timeout));
        if self.settings.heartbeat.is_some_and(|limit| late >= limit / 4) {
            self.awake_since = Instant::now();
        }
        // Drains go on for a moment after that, so workers are killed later.
        if late >= AFTER_THE_DRAIN {
            self.woke_late_at = Some(Instant::now());
        }
        Ok(())
    }

    /// Returns the time until something is due by itself. `None`: nothing is.
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
            State::Leaving(Some(at)) => {
                Some(self.more_time().map_or(at, |more| at.max(more)).saturating_duration_since(now))
            }
            _ => None,
        });
        // A heart that is late by a part of a millisecond must not make the master spin.
        let least = hearts.chain(kills).map(|time| time.max(Duration::from_millis(1)));
        let unsettled = (!self.settled).then_some(CHECK_AGAIN);
        least.chain(self.starts.next(now)).chain(unsettled).min()
    }

    /// Returns when workers that are too slow to end are killed at the earliest, after a late wake-up.
    fn more_time(&self) -> Option<Instant> {
        self.woke_late_at.map(|late| late + AFTER_A_LATE_WAKE_UP + AFTER_THE_DRAIN)
    }

    /// Reads what workers have written, and reaps workers that have ended.
    fn poll_workers(&mut self) {
        let mut tokens = [0; 32];
        while let Ok(ready) = self.watch.ready(&mut tokens) {
            if ready.contains(&BELL) {
                self.hear_wishes();
            }
            for token in ready.iter().filter(|token| **token != BELL) {
                let is_meant = |w: &Worker| w.pid.as_raw() as u64 == token >> 1;
                let Some(at) = self.workers.iter().position(is_meant) else { continue };
                if token & 1 == SPOKE {
                    self.read_pipe_of(at);
                } else if let Some(status) = ends::ended(&self.workers[at]) {
                    let worker = self.workers.swap_remove(at);
                    self.reap(worker, status);
                }
            }
            // Fewer than there is room for: these were all.
            if ready.len() < 32 {
                break;
            }
        }
    }

    fn hear_wishes(&self) {
        self.core().control.made_pipes().into_iter().for_each(|pipes| pipes.hear());
        self.workers.iter().for_each(|worker| self.fulfil(worker));
    }

    fn fulfil(&self, worker: &Worker) {
        let server = ServerHandle { core: self.core().clone() };
        worker.slot.wishes.fulfil(|wish| server.fulfil(wish));
    }

    fn read_pipe_of(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        if !worker.read_pipe() {
            // Its last words, or the end of the pipe. The end of the worker has a token of its own.
            self.watch.remove(&worker.pipe);
        } else if worker.state == State::Starting {
            worker.state = State::Ready;
            worker.was_ready = true;
            let (index, pid) = (worker.index, worker.pid);
            let replaces_dead = self.starts.succeeded(index);
            self.core().monitor.report_ready_worker(index, pid.as_raw(), replaces_dead);
            self.retire_predecessors(index, pid);
        }
    }

    /// Writes what signals have asked for into the scoreboard.
    fn handle_signals(&mut self) {
        let Some(signals) = &self.signals else { return };
        let (reload, more) = signals.asked();
        if reload {
            self.scoreboard.reload();
        }
        if more != 0 {
            let wanted = self.scoreboard.wanted() as i64 + i64::from(more);
            let wanted = wanted.clamp(1, MOST_WORKERS as i64) as usize;
            if let Err(why) = check_count("SIGTTIN", wanted) {
                log_line(
                    Level::Warn,
                    "socketserver::preforking",
                    format_args!("a signal asked for more workers than there can be: {why}"),
                );
                return;
            }
            log_line(Level::Info, "socketserver::preforking", format_args!("{wanted} workers from now on"));
            self.scoreboard.set_wanted(wanted, &self.core().admission.permits);
        }
    }
}
