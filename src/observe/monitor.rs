//! [`Monitor`]: counters, log and hook. One event is one line.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use super::failure::{remedy, ErrorHook, Failure};
use super::greeting::GreetingFailure;
use super::inside::{InHandler, ServerId};
use super::line::log_line;
use super::observer::Observers;
use super::outcome::{Cause, Outcome};
#[cfg(feature = "testing")]
use super::roll::OpenConnections;
use super::stats::Counters;
use super::throttle::{Kind, LogThrottle};
use super::unheard::Unheard;
use crate::config::Limit;
use crate::error::Error;
use crate::net::Addr;
use crate::panics::caught;
use crate::sources::SourceRefusal;
use crate::sys::shared::SharedRef;

/// The error of a handler.
type UserError = dyn std::error::Error + Send + Sync + 'static;

/// The counters, the log and the hook of one server.
pub(crate) struct Monitor {
    pub(crate) server: ServerId,
    counters: SharedRef<Counters>,
    in_child: AtomicBool,
    /// Bounds the log lines that clients can cause.
    throttle: LogThrottle,
    handle_error: Option<Arc<ErrorHook>>,
    pub(super) observers: Observers,
    /// For a program that has neither a logger nor a hook.
    pub(crate) unheard: Unheard,
    #[cfg(feature = "testing")]
    pub(crate) open: OpenConnections,
}

/// How far a stop had come when a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopPhase {
    /// No stop was requested.
    Running,
    /// Connections may finish.
    Draining,
    /// The drain limit has passed, and connections are cut.
    Cut,
    /// Connections are cut, because the stop is urgent.
    CutAtOnce,
    /// The run is over. An abandoned handler that ends now belongs to no run.
    Over { was_cut: bool },
}

/// How a connection's process ended.
pub(crate) enum ChildEnd {
    Served,
    Failed(String),
    TimedOut(String),
    Disconnected(String),
    AtFault(String),
    Panicked(String),
    /// `verify_request` has refused it.
    Refused(io::ErrorKind, String),
    /// Its greeting failed.
    NotGreeted(GreetingFailure, String),
    /// It was refused for its source.
    NotAdmitted(SourceRefusal),
    Exited(i32),
    Killed {
        signal: &'static str,
        limit: Option<Limit>,
    },
}

impl Monitor {
    pub(crate) fn new(
        server: ServerId,
        counters: SharedRef<Counters>,
        handle_error: Option<Arc<ErrorHook>>,
        observers: Observers,
        unheard: Unheard,
    ) -> Self {
        Self {
            server,
            counters,
            in_child: AtomicBool::new(false),
            throttle: LogThrottle::default(),
            handle_error,
            observers,
            unheard,
            #[cfg(feature = "testing")]
            open: OpenConnections::default(),
        }
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// From now on nothing is counted: a forked child can only read the counters.
    pub(crate) fn become_child(&self) {
        self.in_child.store(true, Relaxed);
    }

    pub(super) fn is_in_child(&self) -> bool {
        self.in_child.load(Relaxed)
    }

    fn count(&self, counter: &AtomicU64) {
        if !self.in_child.load(Relaxed) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Counts a connection that was taken from the kernel's queue, and returns the count, or 0 in a child.
    #[cfg_attr(not(feature = "testing"), allow(unused_variables))]
    pub(crate) fn count_accepted(&self, peer: &Addr) -> u64 {
        #[cfg(feature = "testing")]
        self.open.enter(peer);
        if self.in_child.load(Relaxed) {
            return 0;
        }
        self.counters.accepted.fetch_add(1, Relaxed) + 1
    }

    /// Reports a connection that was closed without a handler, at most one line a second above `debug`.
    pub(crate) fn report_refused(&self, peer: &Addr, error: &io::Error) {
        self.count_refused(peer);
        let kind = Kind::Refused(error.raw_os_error());
        self.report_throttled(kind, Level::Warn, &Failure::Refused { peer, error });
    }

    /// Reports a connection that `verify_request` has refused. Its "no" is no fault, so the line is at
    /// `info`.
    pub(crate) fn report_unverified(&self, peer: &Addr, error: &io::Error) {
        self.count_refused(peer);
        // The kinds are throttled apart: many "no"s must not hide a hook that hangs.
        let said_no = error.kind() == io::ErrorKind::PermissionDenied;
        let level = if said_no { Level::Info } else { Level::Warn };
        self.report_throttled(Kind::Unverified { said_no }, level, &Failure::Refused { peer, error });
    }

    /// Counts and reports a connection that was refused for its source. The log has a line a second and no more, even
    /// at `debug`: such refusals come in floods.
    pub(crate) fn report_source(&self, peer: &Addr, why: SourceRefusal) {
        self.count(self.counters.sources.of(why));
        self.count_refused(peer);
        let error = why.into();
        let failure = Failure::Refused { peer, error: &error };
        if let Some(left_out) = self.throttle.pass(Kind::Source(why), (Level::Debug, target(&failure))) {
            self.log(&failure, Level::Debug, left_out);
        }
        self.tell_hook(&failure);
    }

    /// Counts and reports a connection that was closed while it was greeted.
    pub(crate) fn report_not_greeted(&self, peer: &Addr, reason: GreetingFailure, error: &io::Error) {
        if !self.in_child.load(Relaxed) {
            self.counters.greetings.count(reason);
        }
        let failure = Failure::Greeting { peer, reason, error };
        if reason == GreetingFailure::Left {
            self.count(&self.counters.disconnected);
            self.leave_open(peer, false);
        } else {
            self.count_refused(peer);
        }
        match reason {
            // Health checks leave, and a stop is nobody's fault.
            GreetingFailure::Left | GreetingFailure::Stopped => self.report(Level::Debug, &failure),
            GreetingFailure::System => self.report_throttled(Kind::Greeting(reason), Level::Warn, &failure),
            // Often a mistake in the configuration of one of the two sides.
            GreetingFailure::Source | GreetingFailure::Header | GreetingFailure::TimedOut | GreetingFailure::Tls => {
                self.report_throttled(Kind::Greeting(reason), Level::Info, &failure);
            }
        }
    }

    /// Notes that a connection that was accepted from a proxy is a client's.
    #[cfg_attr(not(feature = "testing"), allow(unused_variables, clippy::unused_self))]
    pub(crate) fn note_client(&self, proxy: &Addr, client: &Addr) {
        #[cfg(feature = "testing")]
        self.open.rename(proxy, client);
    }

    #[cfg_attr(not(feature = "testing"), allow(unused_variables, clippy::unused_self))]
    fn leave_open(&self, peer: &Addr, cut: bool) {
        #[cfg(feature = "testing")]
        self.open.leave(peer, cut);
    }

    fn count_refused(&self, peer: &Addr) {
        self.count(&self.counters.refused);
        self.leave_open(peer, false);
    }

    /// Reports the panic of a hook.
    pub(crate) fn report_hook_panic(&self, hook: &'static str, message: &str) {
        self.report_throttled(Kind::Hook(hook), Level::Error, &Failure::Hook { hook, message });
    }

    /// Reports a failed accept. The line is a warning only if accepting rests after it.
    pub(crate) fn report_accept_error(&self, local: &Addr, error: &io::Error, rests: bool) {
        self.count(&self.counters.accept_errors);
        let level = if rests { Level::Warn } else { Level::Debug };
        let kind = Kind::Accept(error.raw_os_error().unwrap_or(0));
        self.report_throttled(kind, level, &Failure::Accept { local, error });
    }

    /// Reports a listener that has failed for good.
    pub(crate) fn report_lost_listener(&self, local: &Addr, error: &io::Error) {
        self.count(&self.counters.accept_errors);
        self.report(Level::Error, &Failure::ListenerLost { local, error });
    }

    /// Reports a callback that has held up an event loop.
    pub(crate) fn report_stall(&self, callback: &'static str, peer: Option<&Addr>, took: Duration) {
        self.report_throttled(Kind::Stalled, Level::Warn, &Failure::Stalled { callback, peer, took });
    }

    /// Reports a worker process that has ended, or must be ended, although the master has not asked it to.
    pub(crate) fn report_lost_worker(&self, worker: usize, pid: i32, how: &str, connections: u64) {
        let failure = Failure::Worker { worker, pid, how, connections };
        self.report_throttled(Kind::LostWorker(worker), Level::Error, &failure);
    }

    /// Logs a worker process that is ready. One that replaces a dead one is throttled, because clients may be what
    /// kills workers.
    pub(crate) fn report_ready_worker(&self, worker: usize, pid: i32, replaces_dead: bool) {
        let (target, text) = ("socketserver::preforking", format_args!("worker {worker} (process {pid}) is ready"));
        if replaces_dead {
            self.log_throttled(Kind::Replaced(worker), Level::Info, target, text);
        } else {
            log_line(Level::Info, target, text);
        }
    }

    /// Logs a child that was ended, because its end could not be watched.
    pub(crate) fn report_unwatched_child(&self, peer: &Addr, error: &io::Error) {
        let text = format_args!("ended the process of {peer}, which cannot be watched: {error}{}", remedy(error));
        self.log_throttled(Kind::Unwatched, Level::Error, "socketserver::accept", text);
    }

    /// Reports a worker thread that cannot wait, or cannot be started.
    pub(crate) fn report_resting_worker(&self, error: &Error) {
        let text = format_args!("a worker rests: {error}");
        self.log_throttled(Kind::Worker, Level::Warn, "socketserver::accept", text);
    }

    /// Reports a panic of a call that belongs to no connection. No hook gets it.
    pub(crate) fn report_panic_of_call(&self, what: &str, message: &str) {
        let text = format_args!("{what} panicked: {}", message.escape_debug());
        self.log_throttled(Kind::Call, Level::Error, "socketserver::event_loop", text);
    }

    /// Reports a failed attempt of a client of the loop. No hook gets it.
    pub(crate) fn report_failed_attempt(&self, error: &dyn fmt::Display) {
        self.log_throttled(Kind::Attempt, Level::Warn, "socketserver::event_loop", format_args!("{error}"));
    }

    /// Logs the numbers that the throttle has kept back, at the end of a run: no later line will tell them.
    pub(crate) fn report_left_out(&self) {
        for (kind, (level, target), left_out) in self.throttle.take_left_out() {
            log_line(level, target, format_args!("{left_out} more {kind} were left out of the log"));
        }
    }

    /// Counts and reports a connection that is closed. `lost` is true if its peer had left before.
    pub(crate) fn report_end(&self, peer: &Addr, lost: bool, outcome: &Outcome, phase: StopPhase) {
        // The handler did not serve at all: that is a refusal, and no end of a served connection.
        if let Outcome::NotServed(why) = outcome {
            return self.report_refused(peer, &why.into());
        }
        self.count_end(peer, phase);
        match outcome {
            Outcome::NotServed(_) => {}
            Outcome::Served => self.count(&self.counters.served),
            Outcome::Panicked(message) => self.count_panic(peer, message),
            Outcome::Failed(error) => self.report_failed(peer, Cause::of(&**error, lost), &**error),
        }
    }

    /// Reports the end of a connection that this side has made. It served no client, so it is not counted.
    pub(crate) fn report_uncounted_end(&self, peer: &Addr, lost: bool, outcome: &Outcome) {
        match outcome {
            Outcome::Served | Outcome::NotServed(_) => {}
            Outcome::Panicked(message) => self.report_panic(peer, message),
            Outcome::Failed(error) => self.report_error(peer, Cause::of(&**error, lost), &**error),
        }
    }

    /// Reports the failure of a callback that belongs to no request. Nothing is counted.
    pub(crate) fn report_callback(&self, of: &Addr, outcome: &Outcome) {
        match outcome {
            Outcome::Served | Outcome::NotServed(_) => {}
            Outcome::Failed(error) => self.report_error(of, Cause::of(&**error, false), &**error),
            Outcome::Panicked(message) => self.report_panic(of, message),
        }
    }

    /// Counts and reports a connection that was served in another process, as
    /// [`report_end`](Self::report_end) does.
    pub(crate) fn report_child_end(&self, peer: &Addr, end: &ChildEnd, phase: StopPhase) {
        if let ChildEnd::Refused(kind, text) = end {
            return self.report_unverified(peer, &io::Error::new(*kind, text.as_str()));
        }
        if let ChildEnd::NotGreeted(reason, text) = end {
            return self.report_not_greeted(peer, *reason, &io::Error::other(text.as_str()));
        }
        if let ChildEnd::NotAdmitted(why) = end {
            return self.report_source(peer, *why);
        }
        self.count_end(peer, phase);
        let failed = |cause, text: &String| {
            self.report_failed(peer, cause, &*Box::<UserError>::from(text.as_str()));
        };
        let counters = &self.counters;
        match end {
            ChildEnd::Served => self.count(&counters.served),
            ChildEnd::Failed(text) => failed(Cause::Handler, text),
            ChildEnd::TimedOut(text) => failed(Cause::Limit, text),
            ChildEnd::Disconnected(text) => failed(Cause::Peer, text),
            ChildEnd::AtFault(text) => failed(Cause::PeerFault, text),
            ChildEnd::Panicked(message) => self.count_panic(peer, message),
            ChildEnd::Refused(..) | ChildEnd::NotGreeted(..) | ChildEnd::NotAdmitted(_) => {}
            ChildEnd::Exited(code) => {
                self.count(&counters.failed);
                self.count(&counters.crashed);
                self.report_throttled(Kind::Exited(*code), Level::Error, &Failure::Exited { peer, code: *code });
            }
            // A signal that the server has sent at a limit is no crash.
            ChildEnd::Killed { signal, limit } => {
                self.count(&counters.failed);
                self.count(if limit.is_some() { &counters.timed_out } else { &counters.crashed });
                let kind = if limit.is_some() { Kind::Limit } else { Kind::Killed(signal) };
                self.report_throttled(kind, Level::Error, &Failure::Killed { peer, signal, limit: *limit });
            }
        }
    }

    fn count_end(&self, peer: &Addr, phase: StopPhase) {
        self.leave_open(peer, matches!(phase, StopPhase::Cut | StopPhase::Over { was_cut: true }));
        match phase {
            StopPhase::Running | StopPhase::Over { .. } => {}
            StopPhase::Draining => self.count(&self.counters.drained),
            StopPhase::Cut | StopPhase::CutAtOnce => self.count(&self.counters.forced),
        }
    }

    fn count_panic(&self, peer: &Addr, message: &str) {
        self.count(&self.counters.failed);
        self.count(&self.counters.panicked);
        self.report_panic(peer, message);
    }

    fn report_panic(&self, peer: &Addr, message: &str) {
        self.report_throttled(Kind::Panicked, Level::Error, &Failure::Panic { peer, message });
    }

    fn report_failed(&self, peer: &Addr, cause: Cause, error: &UserError) {
        match cause {
            Cause::Peer => self.count(&self.counters.disconnected),
            Cause::Limit => {
                self.count(&self.counters.failed);
                self.count(&self.counters.timed_out);
            }
            Cause::PeerFault => {
                self.count(&self.counters.failed);
                self.count(&self.counters.peer_faults);
            }
            Cause::Handler => self.count(&self.counters.failed),
        }
        self.report_error(peer, cause, error);
    }

    fn report_error(&self, peer: &Addr, cause: Cause, error: &UserError) {
        let failure = Failure::Error { peer, error, at_fault: cause == Cause::PeerFault };
        match cause {
            Cause::Peer => self.report(Level::Debug, &Failure::Disconnected { peer, error }),
            Cause::PeerFault => self.report(Level::Debug, &failure),
            Cause::Limit => self.report_throttled(Kind::Limit, Level::Info, &failure),
            Cause::Handler => self.report_throttled(Kind::Failed, Level::Error, &failure),
        }
    }

    /// Reports to the log and to the user's hook.
    fn report(&self, level: Level, failure: &Failure<'_>) {
        self.print_if_unheard(level, failure);
        self.report_with(failure, level, 0);
    }

    /// Prints the first error of a run, if the program has neither a logger nor a hook.
    fn print_if_unheard(&self, level: Level, failure: &Failure<'_>) {
        if level == Level::Error && self.handle_error.is_none() {
            self.unheard.say(failure);
        }
    }

    /// Logs a line that clients can cause: one a second for each kind.
    fn log_throttled(&self, kind: Kind, level: Level, target: &'static str, text: fmt::Arguments<'_>) {
        if let Some(left_out) = self.throttle.pass(kind, (level, target)) {
            log_line(level, target, format_args!("{text}{}", More(left_out)));
        }
    }

    /// Reports an event that clients can cause: one line a second for each kind, the others at `debug`. The
    /// hook gets all of them.
    fn report_throttled(&self, kind: Kind, level: Level, failure: &Failure<'_>) {
        self.print_if_unheard(level, failure);
        match self.throttle.pass(kind, (level, target(failure))) {
            Some(left_out) => self.report_with(failure, level, left_out),
            None => self.report_with(failure, Level::Debug, 0),
        }
    }

    fn report_with(&self, failure: &Failure<'_>, level: Level, left_out: u64) {
        self.log(failure, level, left_out);
        self.tell_hook(failure);
    }

    #[allow(clippy::unused_self)]
    fn log(&self, failure: &Failure<'_>, level: Level, left_out: u64) {
        log_line(level, target(failure), format_args!("{failure}{}", More(left_out)));
    }

    fn tell_hook(&self, failure: &Failure<'_>) {
        let Some(hook) = &self.handle_error else { return };
        // A hook that waits for the server's end gets an error: it would wait for itself.
        let _inside = InHandler::of(self.server);
        // A panic of the hook must not end the serving thread.
        if let Err(message) = caught(|| hook(failure)) {
            let text = format_args!("handle_error panicked: {}", message.escape_debug());
            self.log_throttled(Kind::Hook("handle_error"), Level::Error, "socketserver::server", text);
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("server", &self.server).finish_non_exhaustive()
    }
}

/// The number of similar lines that the throttle has kept back. It displays as nothing for zero.
struct More(u64);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more like it since the last line)"),
        }
    }
}

fn target(failure: &Failure<'_>) -> &'static str {
    match failure {
        Failure::Accept { .. } | Failure::ListenerLost { .. } | Failure::Refused { .. } | Failure::Greeting { .. } => {
            "socketserver::accept"
        }
        Failure::Hook { .. } => "socketserver::server",
        Failure::Stalled { .. } => "socketserver::event_loop",
        Failure::Worker { .. } => "socketserver::preforking",
        _ => "socketserver::handler",
    }
}
