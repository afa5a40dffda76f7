//! Counters, log and hook: one event, one line.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use log::Level;

use crate::config::Limit;
use crate::error::Error;
use crate::lifecycle::{Core, InHandler};
use crate::net::Addr;
use crate::observe::{Cause, Counters, Failure, Kind, Outcome};
use crate::panics::panic_message;

/// A connection was taken from the kernel's queue.
#[cfg_attr(not(feature = "testing"), allow(unused_variables))]
pub(crate) fn accepted(core: &Core, peer: &Addr) {
    let before = core.counters().accepted.fetch_add(1, Relaxed);
    core.post.iter().for_each(|post| post.has_accepted(before + 1));
    #[cfg(feature = "testing")]
    core.roll.enter(peer);
}

/// A connection was closed without a handler: one line a second above `debug`.
pub(crate) fn refused(core: &Core, peer: &Addr, error: &io::Error) {
    core.counters().refused.fetch_add(1, Relaxed);
    #[cfg(feature = "testing")]
    core.roll.leave(peer, false);
    let failure = Failure::Refused { peer, error };
    report_throttled(core, Kind::Refused(error.raw_os_error()), Level::Warn, &failure);
}

/// `verify_request` did not let it in. That it says no is no fault.
pub(crate) fn turned_away(core: &Core, peer: &Addr, error: &io::Error) {
    core.counters().refused.fetch_add(1, Relaxed);
    #[cfg(feature = "testing")]
    core.roll.leave(peer, false);
    let said_no = error.kind() == io::ErrorKind::PermissionDenied;
    let level = if said_no { Level::Info } else { Level::Warn };
    report_throttled(core, Kind::TurnedAway { said_no }, level, &Failure::Refused { peer, error });
}

/// A hook of the server has panicked.
pub(crate) fn hook_panicked(core: &Core, hook: &'static str, message: &str) {
    report(core, Level::Error, &Failure::Hook { hook, message });
}

/// An accept has failed, which is news for the log where accepting rests for it.
pub(crate) fn accept_failed(core: &Core, local: &Addr, error: &io::Error, rests: bool) {
    one(&core.counters().accept_errors);
    let level = if rests { Level::Warn } else { Level::Debug };
    let kind = Kind::Accept(error.raw_os_error().unwrap_or(0));
    report_throttled(core, kind, level, &Failure::Accept { local, error });
}

/// A listener is of no use any more.
pub(crate) fn listener_lost(core: &Core, local: &Addr, error: &io::Error) {
    one(&core.counters().accept_errors);
    report(core, Level::Error, &Failure::ListenerLost { local, error });
}

/// A callback has held up an event loop.
pub(crate) fn stalled(core: &Core, callback: &'static str, peer: Option<&Addr>, took: Duration) {
    report_throttled(core, Kind::Stalled, Level::Warn, &Failure::Stalled { callback, peer, took });
}

/// A worker process has ended, or must be ended, without being asked to.
pub(crate) fn worker_lost(core: &Core, worker: usize, pid: i32, how: &str, connections: u64) {
    report(core, Level::Error, &Failure::Worker { worker, pid, how, connections });
}

/// A worker cannot even wait, or cannot be started.
pub(crate) fn worker_failed(core: &Core, error: &Error) {
    if let Some(left_out) = core.log.pass(Kind::Worker) {
        log::warn!(target: "socketserver::accept", "a worker rests: {error}{}", more(left_out));
    }
}

/// At the end of a run: what the log's bound has kept back, and no later line will tell.
pub(crate) fn tell_left_out(core: &Core) {
    for (kind, left_out) in core.log.take_left_out() {
        log::warn!(target: "socketserver::accept", "{left_out} more {kind} were left out of the log");
    }
}

fn more(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        n => format!(" ({n} more like it since the last line)"),
    }
}

/// A connection was served, or not, and is closed.
pub(crate) fn ended(core: &Core, peer: &Addr, lost: bool, outcome: &Outcome) {
    if let Outcome::NotServed(why) = outcome {
        return refused(core, peer, &why.into());
    }
    count_end(core, peer);
    match outcome {
        Outcome::NotServed(_) => {}
        Outcome::Served => one(&core.counters().served),
        Outcome::Panicked(message) => panicked(core, peer, message),
        Outcome::Failed(error) => failed(core, peer, Cause::of(&**error, lost), &**error),
    }
}

/// A connection that nobody was served on, since this side has made it: told, and not counted.
pub(crate) fn ended_uncounted(core: &Core, peer: &Addr, lost: bool, outcome: &Outcome) {
    match outcome {
        Outcome::Served | Outcome::NotServed(_) => {}
        Outcome::Panicked(message) => report(core, Level::Error, &Failure::Panic { peer, message }),
        Outcome::Failed(error) => tell_failed(core, peer, Cause::of(&**error, lost), &**error),
    }
}

/// A callback that belongs to no request: only what goes wrong is news, and nothing is counted.
pub(crate) fn callback_ended(core: &Core, of: &Addr, outcome: &Outcome) {
    match outcome {
        Outcome::Served | Outcome::NotServed(_) => {}
        Outcome::Failed(error) => report(core, Level::Error, &Failure::Error { peer: of, error: &**error }),
        Outcome::Panicked(message) => report(core, Level::Error, &Failure::Panic { peer: of, message }),
    }
}

/// How the process of a connection has ended.
pub(crate) enum Ended {
    Served,
    Failed(String),
    TimedOut(String),
    Disconnected(String),
    Panicked(String),
    /// `verify_request` did not let it in.
    Refused(io::ErrorKind, String),
    Exited(i32),
    Killed {
        signal: &'static str,
        limit: Option<Limit>,
    },
}

/// The same as [`ended`] for a connection that was served in another process.
pub(crate) fn child_ended(core: &Core, peer: &Addr, ended: &Ended) {
    if let Ended::Refused(kind, text) = ended {
        return turned_away(core, peer, &io::Error::new(*kind, text.as_str()));
    }
    count_end(core, peer);
    let told = |cause, text: &String| {
        failed(core, peer, cause, &*Box::<dyn std::error::Error + Send + Sync>::from(text.as_str()))
    };
    let counters = core.counters();
    match ended {
        Ended::Served => one(&counters.served),
        Ended::Failed(text) => told(Cause::Handler, text),
        Ended::TimedOut(text) => told(Cause::Limit, text),
        Ended::Disconnected(text) => told(Cause::Peer, text),
        Ended::Panicked(message) => panicked(core, peer, message),
        Ended::Refused(..) => {}
        Ended::Exited(code) => {
            one(&counters.failed);
            one(&counters.crashed);
            report(core, Level::Error, &Failure::Exited { peer, code: *code });
        }
        Ended::Killed { signal, limit } => {
            one(&counters.failed);
            one(if limit.is_some() { &counters.timed_out } else { &counters.crashed });
            report(core, Level::Error, &Failure::Killed { peer, signal, limit: *limit });
        }
    }
}

fn one(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

#[cfg_attr(not(feature = "testing"), allow(unused_variables))]
fn count_end(core: &Core, peer: &Addr) {
    #[cfg(feature = "testing")]
    core.roll.leave(peer, core.control.is_cut() && !core.control.is_urgent());
    if core.control.stopping() && core.is_serving() {
        let Counters { drained, forced, .. } = core.counters();
        one(if core.control.is_cut() { forced } else { drained });
    }
}

fn panicked(core: &Core, peer: &Addr, message: &str) {
    one(&core.counters().failed);
    one(&core.counters().panicked);
    report(core, Level::Error, &Failure::Panic { peer, message });
}

fn failed(core: &Core, peer: &Addr, cause: Cause, error: &(dyn std::error::Error + Send + Sync + 'static)) {
    let counters = core.counters();
    match cause {
        Cause::Peer => one(&counters.disconnected),
        Cause::Limit => {
            one(&counters.failed);
            one(&counters.timed_out);
        }
        Cause::Handler => one(&counters.failed),
    }
    tell_failed(core, peer, cause, error);
}

fn tell_failed(core: &Core, peer: &Addr, cause: Cause, error: &(dyn std::error::Error + Send + Sync + 'static)) {
    match cause {
        Cause::Peer => report(core, Level::Debug, &Failure::Disconnected { peer, error }),
        Cause::Limit => report(core, Level::Info, &Failure::Error { peer, error }),
        Cause::Handler => report(core, Level::Error, &Failure::Error { peer, error }),
    }
}

/// To the log and to the user's hook. Neither may end the thread that serves.
fn report(core: &Core, level: Level, failure: &Failure<'_>) {
    tell(core, failure, level, 0);
}

/// The same for what others can cause at will: one line a second of a kind, the rest at `debug`. The hook hears of all.
fn report_throttled(core: &Core, kind: Kind, level: Level, failure: &Failure<'_>) {
    match core.log.pass(kind) {
        Some(left_out) => tell(core, failure, level, left_out),
        None => tell(core, failure, Level::Debug, 0),
    }
}

fn tell(core: &Core, failure: &Failure<'_>, level: Level, left_out: u64) {
    contained(|| log::log!(target: target(failure), level, "{failure}{}", more(left_out)));
    let Some(hook) = &core.hooks.handle_error else { return };
    let _inside = InHandler::of(core);
    if let Some(message) = contained(|| hook(failure)) {
        contained(|| log::error!(target: "socketserver::server", "handle_error panicked: {}", message.escape_debug()));
    }
}

/// The text of the panic, if there was one.
fn contained(code: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(code)).err()?;
    let message = panic_message(payload.as_ref());
    crate::panics::forget(payload);
    Some(message)
}

fn target(failure: &Failure<'_>) -> &'static str {
    match failure {
        Failure::Accept { .. } | Failure::ListenerLost { .. } | Failure::Refused { .. } => "socketserver::accept",
        Failure::Hook { .. } => "socketserver::server",
        Failure::Stalled { .. } => "socketserver::event_loop",
        Failure::Worker { .. } => "socketserver::preforking",
        _ => "socketserver::handler",
    }
}
