//! A worker: as its master knows it ([`Worker`]), and in its own process from the fork to its end
//! ([`run_worker`]).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::lifecycle::{Core, WorkerRole, WorkerSlot, READY};
use crate::observe::Report;
use crate::panics::caught;
use crate::preforking::settings::PreForkingSettings;
use crate::server::Bound;
use crate::sources::Sources;
use crate::sys::process::{self, ChildSignals, PidFd, Private};
use crate::sys::shared::{let_go, SharedRef};
use crate::sys::worker::{become_worker, pipe, set_name, WorkerSwitches};

/// The engine's run. Its result is a number for the master.
pub(super) type Run<'a> = &'a mut dyn FnMut(&Bound) -> Result<u64>;

/// The most bytes of last words that a master keeps.
const LONGEST_WORDS: usize = 1024;

/// After its drain, a worker has this long to end.
pub(super) const AFTER_THE_DRAIN: Duration = Duration::from_millis(250);

/// How long a worker whose master has died may live on after its drain limit. Nobody waits for its end.
const AFTER_THE_DRAIN_OF_AN_ORPHAN: Duration = Duration::from_secs(1);

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It has been forked.
    Starting,
    /// It accepts.
    Ready,
    /// The master has asked it to end, and kills it at that time.
    Leaving(Option<Instant>),
    /// The master has sent SIGKILL.
    Killed {
        /// True if it was too slow to end, so that its connections count as cut. False if it was stuck.
        cut: bool,
    },
}

/// A worker as its master knows it.
#[derive(Debug)]
pub(super) struct Worker {
    /// The worker's core. The master has a copy of it, with the same eventfds and shared memory.
    pub(super) core: Arc<Core>,
    pub(super) slot: SharedRef<WorkerSlot>,
    pub(super) index: usize,
    pub(super) pid: Pid,
    /// Readable when the process has ended.
    pub(super) pidfd: PidFd,
    /// The reading end of what the worker writes: one byte when it is ready, then its last words.
    pub(super) pipe: Private,
    /// The writing end of a pipe in which nothing is ever written. The worker sees it close when the master
    /// dies.
    _lifeline: Private,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) started: Instant,
    pub(super) was_ready: bool,
    /// True if it has given no sign of life for too long.
    pub(super) is_stuck: bool,
    /// The counters of its slot when it began.
    pub(super) counted: Report,
    /// Its share of the connection limit.
    pub(super) limit: usize,
    /// The most permits that it can hold: what it was given, and has not given back.
    pub(super) given: usize,
    /// The number of resumes that it has been woken for.
    pub(super) resumes: u64,
    /// True if it has written anything.
    has_spoken: bool,
    words: Vec<u8>,
}

impl Worker {
    /// Forks a worker. It has no share of the connection limit yet.
    pub(super) fn start(
        bound: &Bound,
        role: impl FnOnce(Private) -> WorkerRole,
        capacity: usize,
        signals: &ChildSignals,
        settings: &PreForkingSettings,
        run: Run<'_>,
    ) -> io::Result<Self> {
        let (pipe, words) = pipe()?;
        let (lifeline, our_lifeline) = self::pipe()?;
        // Made before the fork, so that both have it. The master stops, pauses and limits a worker by the calls
        // that a server uses for itself. So a worker needs no thread that listens for commands.
        let core = Core::of_worker(role(words), capacity)?;
        let Some(role) = core.worker() else { return Err(io::Error::other("no worker")) };
        let (index, slot, started) = (role.index, role.slot.clone(), Instant::now());
        let counted = slot.state.counters.totals();

        let pid = process::fork_child(signals, || run_worker(bound, &core, role, &lifeline, settings, run))?;

        // The worker has the writing end. With a copy here, the pipe would never end.
        role.close_pipe();
        let pidfd = match PidFd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(e) => {
                process::end_now(pid);
                return Err(e);
            }
        };
        Ok(Self {
            slot,
            index,
            pid,
            pidfd,
            pipe,
            _lifeline: our_lifeline,
            state: State::Starting,
            generation: 0,
            started,
            was_ready: false,
            is_stuck: false,
            counted,
            limit: 0,
            given: 0,
            resumes: 0,
            has_spoken: false,
            words: Vec::new(),
            core,
        })
    }

    /// Reads what the worker has written. True if it has become ready by it.
    pub(super) fn read_pipe(&mut self) -> bool {
        let mut buffer = [0; 256];
        let mut is_ready = false;
        while let Ok(n @ 1..) = nix::unistd::read(&self.pipe, &mut buffer) {
            // Only its first byte can say that it is ready. All that follows is its last words, whatever they
            // are.
            let is_first = !std::mem::replace(&mut self.has_spoken, true);
            let begins = usize::from(is_first && buffer[0] == READY);
            is_ready |= begins == 1;
            let said = &buffer[begins..n];
            let room = LONGEST_WORDS.saturating_sub(self.words.len());
            self.words.extend(said.iter().take(room));
        }
        is_ready
    }

    /// Returns its last words, if it had any.
    pub(super) fn last_words(&self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.words).into_owned()).filter(|words| !words.is_empty())
    }

    /// Asks it to end. Its connections have the time that a stop leaves them.
    pub(super) fn dismiss(&mut self, now: Instant) {
        self.core.control.request_stop();
        self.state = State::Leaving(now.checked_add(self.core.settings.drain_timeout + AFTER_THE_DRAIN));
    }

    pub(super) fn kill(&mut self, cut: bool) {
        process::signal(self.pidfd.as_fd(), Signal::SIGKILL);
        self.state = State::Killed { cut };
    }

    /// Returns the time since its last heartbeat. Time before `awake_since` does not count.
    pub(super) fn time_since_beat(&self, awake_since: Instant) -> Duration {
        let control = &self.core.control;
        let since = self.slot.beat().map(|beat| beat.max(control.millis(awake_since)));
        // A strategy of the user's own may never beat. It is left alone.
        let silence = since.map_or(0, |since| control.millis(Instant::now()).saturating_sub(since));
        Duration::from_millis(silence)
    }

    /// Raises its share of the connection limit.
    pub(super) fn give(&mut self, limit: usize) {
        self.limit = limit;
        self.given = self.given.max(limit);
        self.core.admission.permits.set_limit(limit);
    }

    /// Returns the permits that it holds. It cannot hold more than it was given: if it says so, the others need
    /// not go short for it.
    pub(super) fn held(&self) -> usize {
        self.core.admission.permits.held().min(self.given)
    }

    /// True if a request has come to it.
    pub(super) fn has_accepted(&self) -> bool {
        self.slot.accepted() != self.counted.accepted
    }

    /// True if it serves, and is to go on.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }
}

/// Runs a worker in its process. Returns the exit code. The caller exits, so that nothing of the master's is
/// dropped.
fn run_worker(
    bound: &Bound,
    core: &Arc<Core>,
    role: &WorkerRole,
    lifeline: &Private,
    settings: &PreForkingSettings,
    run: Run<'_>,
) -> i32 {
    let result = caught(|| {
        let own = become_worker_process(bound, core, role, lifeline, settings)?;
        run(&own)
    });
    // Each process has its own throttle.
    core.monitor.report_left_out();
    let (words, code) = match result {
        Ok(Ok(result)) => {
            role.slot.set_result(result);
            return 0;
        }
        Ok(Err(e)) => (e.to_string(), 1),
        Err(message) => (format!("it panicked: {message}"), 101),
    };
    role.say(words.as_bytes());
    code
}

/// Lets go of what belongs to the master and to other workers, and applies the settings. Returns the worker's
/// server.
fn become_worker_process(
    bound: &Bound,
    core: &Arc<Core>,
    role: &WorkerRole,
    lifeline: &Private,
    settings: &PreForkingSettings,
) -> Result<Bound> {
    // Let go of memory, except for what this worker writes. Keep its own eventfds, the master's pipes for workers,
    // the listeners, and the two pipes. A copy of another worker's lifeline, for one, would hide the master's death
    // from that worker.
    let sources = core.admission.sources.iter().map(Sources::on_pages);
    let_go(&[role.slot.on_pages(), role.queue_counts().on_pages()].into_iter().chain(sources).collect::<Vec<_>>())
        .map_err(Error::system("let go of the memory of the master"))?;
    let words = role.pipe.lock();
    let of_workers = role.master.control.become_masters(&role.slot.map(|slot| &slot.wishes));
    let eventfds =
        core.control.descriptors().map(AsFd::as_fd).chain(of_workers.into_iter().flat_map(|p| p.of_children()));
    let listeners = bound.listeners.iter().map(AsFd::as_fd);
    let pipes = words.iter().chain([lifeline]).map(AsFd::as_fd);
    process::close_private(eventfds.chain(listeners).chain(pipes));
    drop(words);
    core.reserve.iter().for_each(|reserve| reserve.fill());

    // Obey signals, and the master's death. A listener that somebody else has made goes on after it.
    let switches = WorkerSwitches {
        stop: core.control.switch().clone(),
        successor: role.successor.clone(),
        keeps_listeners: role.scoreboard.keeps_listeners(),
        outlives_master_by: core.settings.drain_timeout.saturating_add(AFTER_THE_DRAIN_OF_AN_ORPHAN),
    };
    let listeners: Vec<_> = bound.listeners.iter().map(|l| (l.as_fd(), !l.is_adopted())).collect();
    become_worker(switches, &listeners, lifeline).map_err(Error::system("watch for the master's death"))?;

    let name = format!("{}-{}", settings.name, role.index);
    set_name(&name).map_err(Error::system("name the process"))?;
    settings.bounds.apply().map_err(Error::system("set the bounds of the process"))?;
    // Last, within the bounds: the hook may tighten them, or set others.
    if let Some(hook) = &settings.after_fork {
        hook(role.index);
    }
    Ok(Bound { core: core.clone(), listeners: bound.listeners.clone() })
}
