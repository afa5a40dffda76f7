//! A worker: in its own process, from the fork to its end; and as its master knows it.

use std::io;
use std::os::fd::AsFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::PreForkingSettings;
use crate::error::{Error, Result};
use crate::lifecycle::{Core, WorkerRole, READY};
use crate::panics::panic_message;
use crate::server::Bound;
use crate::sys::process::{self, ChildSignals, Private};
use crate::sys::worker::{become_worker, pipe, set_name, WorkerSwitches};

/// What a worker does, once it is one: the engine's run. Its number is for the master.
pub(super) type Run<'a> = &'a mut dyn FnMut(&Bound) -> Result<u64>;

/// The longest last words that a master listens to.
const LONGEST_WORDS: usize = 1024;

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    /// It has been told to end, and is killed at that time.
    Leaving(Option<Instant>),
    /// SIGKILL has been sent, since it was stuck, or too slow to end (then its connections were cut).
    Killed {
        cut: bool,
    },
}

/// A worker, as its master knows it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) index: usize,
    pub(super) pid: Pid,
    /// Readable when it has ended.
    pub(super) pidfd: Private,
    /// What it says.
    pub(super) pipe: Private,
    /// Whose other end tells it of our death.
    _lifeline: Private,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) started: Instant,
    pub(super) was_ready: bool,
    /// Its heart has stood still too long.
    pub(super) is_stuck: bool,
    /// The resumes of accepting that it has been told of.
    pub(super) resumes: u64,
    /// Whether it has said anything.
    has_spoken: bool,
    words: Vec<u8>,
}

impl Worker {
    /// Forks one. It has no share of the connection limit yet.
    pub(super) fn start(
        bound: &Bound,
        post: impl FnOnce(Private) -> WorkerRole,
        capacity: usize,
        signals: &ChildSignals,
        settings: &PreForkingSettings,
        run: Run<'_>,
    ) -> io::Result<Self> {
        let (pipe, words) = pipe()?;
        let (lifeline, ours) = self::pipe()?;
        let core = Core::of_worker(post(words), capacity)?;
        let Some(post) = core.worker() else { return Err(io::Error::other("no worker")) };
        let (index, started) = (post.index, Instant::now());
        let pid = process::fork_child(signals, || run_worker(bound, &core, &lifeline, settings, run))?;
        post.close_pipe();
        let pidfd = match process::pidfd(pid) {
            Ok(pidfd) => Private::new(pidfd),
            Err(e) => {
                process::end_now(pid);
                return Err(e);
            }
        };
        let (generation, words) = (0, Vec::new());
        Ok(Self {
            index,
            pid,
            pidfd,
            pipe,
            _lifeline: ours,
            state: State::Starting,
            generation,
            started,
            was_ready: false,
            is_stuck: false,
            resumes: 0,
            has_spoken: false,
            words,
            core,
        })
    }

    /// Takes what it has said; whether it has become ready by it.
    pub(super) fn read_pipe(&mut self) -> bool {
        let mut buffer = [0; 256];
        let mut is_ready = false;
        while let Ok(n @ 1..) = nix::unistd::read(&self.pipe, &mut buffer) {
            // Its first byte may say that it is ready; what follows is its last words, whatever they are.
            let is_first = !std::mem::replace(&mut self.has_spoken, true);
            let begins = usize::from(is_first && buffer[0] == READY);
            is_ready |= begins == 1;
            let said = &buffer[begins..n];
            let room = LONGEST_WORDS.saturating_sub(self.words.len());
            self.words.extend(said.iter().take(room));
        }
        is_ready
    }

    /// Its last words, if it had any.
    pub(super) fn last_words(&self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.words).into_owned()).filter(|words| !words.is_empty())
    }

    /// Tells it to end; its connections have as long as a stop leaves them.
    pub(super) fn dismiss(&mut self, now: Instant) {
        self.core.control.request_stop();
        self.state = State::Leaving(now.checked_add(self.core.settings.drain_timeout + AFTER_THE_DRAIN));
    }

    pub(super) fn kill(&mut self, cut: bool) {
        process::signal(self.pidfd.as_fd(), nix::sys::signal::Signal::SIGKILL);
        self.state = State::Killed { cut };
    }

    /// How long its heart has stood still, as far as was listened.
    pub(super) fn time_since_beat(&self, listened_since: Instant) -> Duration {
        let control = &self.core.control;
        let beat = self.post().and_then(|post| post.slot.beat());
        let since = beat.map(|beat| beat.max(control.millis(listened_since)));
        let still = since.map_or(0, |since| control.millis(Instant::now()).saturating_sub(since));
        Duration::from_millis(still)
    }

    /// Whether it serves, and is to go on.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(super) fn post(&self) -> Option<&WorkerRole> {
        self.core.worker()
    }
}

/// After its drain, a worker has this long to end.
pub(super) const AFTER_THE_DRAIN: Duration = Duration::from_millis(250);

/// In the worker; the exit code. Nothing that is the master's is dropped here: the caller exits.
fn run_worker(bound: &Bound, core: &Arc<Core>, lifeline: &Private, settings: &PreForkingSettings, run: Run<'_>) -> i32 {
    let Some(post) = core.worker() else { return 1 };
    let serve =
        AssertUnwindSafe(|| become_worker_process(bound, core, post, lifeline, settings).and_then(|own| run(&own)));
    let (words, code) = match catch_unwind(serve) {
        Ok(Ok(result)) => {
            post.slot.set_result(result);
            return 0;
        }
        Ok(Err(e)) => (e.to_string(), 1),
        Err(payload) => {
            let message = panic_message(payload.as_ref());
            std::mem::forget(payload);
            (format!("it panicked: {message}"), 101)
        }
    };
    post.say(words.as_bytes());
    code
}

/// Lets go of what is the master's and the other workers', and becomes what the settings say.
fn become_worker_process(
    bound: &Bound,
    core: &Arc<Core>,
    post: &WorkerRole,
    lifeline: &Private,
    settings: &PreForkingSettings,
) -> Result<Bound> {
    let words = post.pipe.lock();
    let ours = core.control.with_master().flat_map(|control| control.descriptors()).map(AsFd::as_fd);
    let listeners = bound.listeners.iter().map(AsFd::as_fd);
    let kept: Vec<_> = ours.chain(listeners).chain(words.iter().chain([lifeline]).map(AsFd::as_fd)).collect();
    process::close_private(&kept);
    drop(words);
    core.reserve.iter().for_each(|spare| spare.fill());
    let switches = WorkerSwitches { stop: core.control.switch().clone(), successor: post.successor.clone() };
    // Where somebody else has the socket too, listening goes on after the master's death.
    let listeners: Vec<_> = bound.listeners.iter().map(|l| (l.as_fd(), !l.is_adopted())).collect();
    become_worker(switches, &listeners, lifeline).map_err(Error::system("watch for the master's death"))?;
    let name = format!("{}-{}", settings.name, post.index);
    set_name(&name).map_err(Error::system("name the process"))?;
    settings.bounds.apply().map_err(Error::system("set the bounds of the process"))?;
    if let Some(hook) = &settings.after_fork {
        hook(post.index);
    }
    Ok(Bound { core: core.clone(), listeners: bound.listeners.clone() })
}
