//! [`Restarts`]: the program is started anew, and its new process takes over from this one.
//!
//! It concerns the process and not one server: a program comes back with all of its servers. One attempt is made at a
//! time. The thread in `serve_forever` waits for [`Restarts::watch`] beside its own work, and calls
//! [`step`](Restarts::step), which never waits. So no thread is needed, and processes that fork may restart too.
//!
//! The walk: SIGUSR2 or `ServerHandle::restart` → `Request::make` → `step` → `begin` (fork, exec) → `step` hears that
//! the successor serves → `hand_over` → all servers drain. What fails instead, leaves them serving: `fail`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;
use std::{io, mem};

use log::Level;
use nix::sys::signal::Signal;
use parking_lot::{Condvar, Mutex};

use super::core::Core;
use crate::error::{Error, Result};
use crate::listen::{describe, Listener};
use crate::observe::log_line;
use crate::sys::process::{self, Private, Status, Timer};
use crate::sys::restart::{self, Request};
use crate::sys::successor::{path_of_this_program, Heard, Successor};
use crate::sys::Epoll;
use crate::systemd::Notifier;

const TARGET: &str = "socketserver::restart";

/// The restarts of this process. Made by the first server that can be restarted.
static RESTARTS: OnceLock<Restarts> = OnceLock::new();

/// The restarts of one process.
#[derive(Debug)]
pub(crate) struct Restarts {
    /// The path as it was when the first server was made. An error, if the system did not tell it then.
    program: std::result::Result<PathBuf, String>,
    request: &'static Request,
    /// Readable when `step` has something to do.
    watch: Private<Epoll>,
    state: Mutex<State>,
    /// An attempt has ended.
    ended: Condvar,
}

#[derive(Debug)]
struct State {
    attempt: Attempt,
    servers: Vec<Restartable>,
    /// The threads in `serve_forever`.
    drivers: Vec<ThreadId>,
    /// The number of attempts that have ended, and the result of the last one: the successor's process number, or
    /// why there is none.
    count: u64,
    result: std::result::Result<u32, String>,
}

/// A server that can be restarted.
#[derive(Debug)]
struct Restartable {
    core: Weak<Core>,
    listeners: Weak<Vec<Listener>>,
    /// The time that its successor has to become ready.
    limit: Duration,
    /// True if the present successor has its sockets.
    is_given: bool,
}

#[derive(Debug)]
enum Attempt {
    None,
    /// A successor is to become ready.
    Starting(Child),
    /// The attempt has failed, and the successor is on its way out.
    Ending(Child),
}

/// A successor, and the time that it has.
#[derive(Debug)]
struct Child {
    successor: Successor,
    timer: Private<Timer>,
    /// The time to become ready.
    limit: Duration,
}

impl Restarts {
    /// Returns the restarts of this process.
    pub(crate) fn of_this_process() -> io::Result<&'static Self> {
        if RESTARTS.get().is_none() {
            let program = path_of_this_program().map_err(|e| format!("the path of the program is unknown: {e}"));
            let request = Request::of_this_process()?;
            let watch = Private::new(Epoll::new()?);
            watch.add(request, 0)?;
            let state =
                State { attempt: Attempt::None, servers: Vec::new(), drivers: Vec::new(), count: 0, result: Ok(0) };
            let _ = RESTARTS.set(Self { program, request, watch, state: state.into(), ended: Condvar::new() });
        }
        RESTARTS.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Adds a server, which is given to each successor from now on.
    pub(crate) fn add(&self, core: &Arc<Core>, listeners: &Arc<Vec<Listener>>, limit: Duration) {
        let (core, listeners) = (Arc::downgrade(core), Arc::downgrade(listeners));
        let mut state = self.state.lock();
        state.servers.retain(|server| server.core.strong_count() > 0);
        state.servers.push(Restartable { core, listeners, limit, is_given: false });
    }

    /// Returns what is readable when [`step`](Self::step) has something to do.
    pub(crate) fn watch(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// Makes this process the one that is restarted, after a fork.
    pub(crate) fn serve_here(&self) -> io::Result<()> {
        if self.request.own()? {
            restart::take_over()?;
            self.watch.renew()?;
            self.watch.add(self.request, 0)?;
            self.state.lock().attempt = Attempt::None;
        }
        Ok(())
    }

    /// Notes that this thread serves, and drives restarts.
    pub(crate) fn begin_to_drive(&self) {
        self.state.lock().drivers.push(thread::current().id());
    }

    /// Notes that this thread serves no more. An attempt that nobody drives has failed.
    pub(crate) fn end_to_drive(&self) {
        let mut state = self.state.lock();
        let this = thread::current().id();
        if let Some(at) = state.drivers.iter().position(|driver| *driver == this) {
            state.drivers.swap_remove(at);
        }
        if state.drivers.is_empty() && self.request.take() {
            self.refuse(&mut state);
        }
    }

    /// Asks for a restart, and does not wait.
    pub(crate) fn request(&self) {
        self.request.make();
    }

    /// Asks for a restart, and waits for its end. Returns the process number of the successor.
    pub(crate) fn restart(&self) -> Result<u32> {
        let failed = |why: &str| Err(Error::Restart { why: why.to_owned() });
        let mut state = self.state.lock();
        if state.drivers.contains(&thread::current().id()) {
            return failed("this thread serves, and cannot wait for it; call request_restart");
        }
        if state.drivers.is_empty() {
            return failed("no server that is restartable is in serve_forever");
        }
        if !matches!(state.attempt, Attempt::None) || self.request.is_made() {
            return failed("another restart is under way");
        }
        let count = state.count;
        self.request.make();
        while state.count == count {
            self.ended.wait(&mut state);
        }
        state.result.clone().map_err(|why| Error::Restart { why })
    }

    /// Does what is due. It never waits.
    pub(crate) fn step(&self) {
        let mut state = self.state.lock();
        let asked = self.request.take();
        match mem::replace(&mut state.attempt, Attempt::None) {
            // Loops and masters come here in their drain, too.
            Attempt::None if asked && state.servers.iter().any(Restartable::stops) => self.refuse(&mut state),
            Attempt::None if asked => self.begin(&mut state),
            Attempt::None => {}
            Attempt::Starting(child) => {
                refuse_another(asked);
                self.follow(&mut state, child);
            }
            Attempt::Ending(child) => {
                refuse_another(asked);
                self.end(&mut state, child);
            }
        }
    }

    /// Ends an attempt that is under way, because a server stops. A successor that serves already takes over.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        match mem::replace(&mut state.attempt, Attempt::None) {
            Attempt::Starting(child) if child.successor.hear() == Heard::Ready => self.hand_over(&mut state, &child),
            Attempt::Starting(child) => {
                self.give_up(&mut state, child, "this server stops");
                self.take_back(&mut state);
            }
            other => state.attempt = other,
        }
    }

    fn begin(&self, state: &mut State) {
        let servers: Vec<_> = state.servers.iter().filter_map(Restartable::both).collect();
        let limit = state.servers.iter().map(|server| server.limit).max().unwrap_or_default();
        state.servers.iter_mut().for_each(|server| server.is_given = true);
        // Before the fork: from then on the death of this process must not shut the sockets.
        servers.iter().for_each(|(core, _)| core.is_restarting());
        let more = servers.iter().find_map(|(core, _)| core.notifier().map(Notifier::environment)).unwrap_or_default();
        let (agreed, descriptors) = describe(servers.iter().flat_map(|(_, listeners)| listeners.iter()));
        let started = match (process::id(), &self.program) {
            (1, _) => Err("this is process 1, whose end ends its container: let the container be replaced".to_owned()),
            (_, Err(why)) => Err(why.clone()),
            (_, Ok(program)) => Successor::start(program, &more, &agreed, &descriptors)
                .and_then(|successor| self.watch_over(successor, limit))
                .map_err(|e| format!("cannot start {}: {e}", program.display())),
        };
        match started {
            Ok(child) => {
                let text = format_args!("started process {}, which has {limit:?} to take over", child.successor.pid);
                log_line(Level::Info, TARGET, text);
                state.attempt = Attempt::Starting(child);
            }
            Err(why) => {
                self.take_back(state);
                self.fail(state, why);
            }
        }
    }

    fn watch_over(&self, successor: Successor, limit: Duration) -> io::Result<Child> {
        let watch = || -> io::Result<_> {
            let timer = Private::new(Timer::new()?);
            self.watch.add(&successor.told, 0)?;
            self.watch.add(&successor.ended, 0)?;
            self.watch.add(&*timer, 0)?;
            timer.set(limit)?;
            Ok(timer)
        };
        match watch() {
            Ok(timer) => Ok(Child { successor, timer, limit }),
            Err(e) => {
                process::end_now(successor.pid);
                Err(e)
            }
        }
    }

    /// Looks at a successor that is to become ready.
    fn follow(&self, state: &mut State, child: Child) {
        // The time first: what came within it counts.
        let is_late = child.timer.is_over();
        match child.successor.hear() {
            Heard::Ready => return self.hand_over(state, &child),
            Heard::Ended(status) => {
                let why = format!("{} before it was ready; its own output has the reason", told(&child, status));
                self.forget(&child);
                self.take_back(state);
                return self.fail(state, why);
            }
            // Its end, or the time, comes next.
            Heard::Silence => self.watch.remove(&child.successor.told),
            Heard::Nothing => {}
        }
        if is_late {
            let why = format!("process {} was not ready within {:?}", child.successor.pid, child.limit);
            return self.give_up(state, child, &why);
        }
        state.attempt = Attempt::Starting(child);
    }

    /// Asks a successor to end. It may have accepted connections, so it has time to drain.
    fn give_up(&self, state: &mut State, child: Child, why: &str) {
        child.successor.signal(Signal::SIGTERM);
        // One that is stopped would not hear of it.
        child.successor.signal(Signal::SIGCONT);
        let drain = state.servers.iter().filter_map(|server| server.core.upgrade());
        let drain = drain.map(|core| core.settings.drain_timeout).max().unwrap_or_default();
        let _ = child.timer.set(drain.saturating_add(Duration::from_secs(1)));
        self.watch.remove(&child.successor.told);
        state.attempt = Attempt::Ending(child);
        self.fail(state, why.to_owned());
    }

    /// Looks at a successor that is to end.
    fn end(&self, state: &mut State, child: Child) {
        if let Heard::Ended(_) = child.successor.hear() {
            self.forget(&child);
            return self.take_back(state);
        }
        if child.timer.is_over() {
            child.successor.signal(Signal::SIGKILL);
        }
        state.attempt = Attempt::Ending(child);
    }

    /// The successor serves: all servers drain, and leave their sockets to it.
    fn hand_over(&self, state: &mut State, child: &Child) {
        self.forget(child);
        let pid = child.successor.pid.as_raw() as u32;
        log_line(Level::Info, TARGET, format_args!("process {pid} serves now, and this one drains"));
        for (core, _) in state.servers.iter().filter(|server| server.is_given).filter_map(Restartable::both) {
            core.hand_over(pid);
        }
        self.finish(state, Ok(pid));
    }

    fn fail(&self, state: &mut State, why: String) {
        log_line(Level::Error, TARGET, format_args!("{}", Error::Restart { why: why.clone() }));
        state.servers.iter().filter_map(Restartable::both).for_each(|(core, _)| core.restart_has_failed());
        self.finish(state, Err(why));
    }

    /// Refuses a request that has come after a stop. The service manager knows of the stop.
    fn refuse(&self, state: &mut State) {
        let why = "this server has stopped".to_owned();
        log_line(Level::Error, TARGET, format_args!("{}", Error::Restart { why: why.clone() }));
        self.finish(state, Err(why));
    }

    fn finish(&self, state: &mut State, result: std::result::Result<u32, String>) {
        state.count += 1;
        state.result = result;
        self.ended.notify_all();
    }

    /// The successor has ended, so the sockets are this process's alone.
    fn take_back(&self, state: &mut State) {
        state.servers.iter().filter_map(Restartable::both).for_each(|(core, _)| core.keep_listeners(false));
        state.servers.iter_mut().for_each(|server| server.is_given = false);
    }

    fn forget(&self, child: &Child) {
        // Taken out before they are closed: a copy in another process would keep the entries alive.
        self.watch.remove(&child.successor.told);
        self.watch.remove(&child.successor.ended);
        self.watch.remove(&*child.timer);
    }
}

impl Restartable {
    fn both(&self) -> Option<(Arc<Core>, Arc<Vec<Listener>>)> {
        Some((self.core.upgrade()?, self.listeners.upgrade()?))
    }

    /// True if it drains.
    fn stops(&self) -> bool {
        self.core.upgrade().is_some_and(|core| core.control.stopping())
    }
}

fn told(child: &Child, status: Status) -> String {
    let pid = child.successor.pid;
    match status {
        Status::Exited(code) => format!("process {pid} exited with {code}"),
        Status::Killed(signal) => format!("process {pid} was killed by {signal}"),
        Status::Gone => format!("process {pid} ended, and other code has waited for it: its status is unknown"),
    }
}

fn refuse_another(asked: bool) {
    if asked {
        let why = "another restart is under way".to_owned();
        log_line(Level::Warn, TARGET, format_args!("{}", Error::Restart { why }));
    }
}
