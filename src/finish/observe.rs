//! Counters, log and hook: one event, one line.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use log::Level;

use super::outcome::{panic_message, Cause, Outcome};
use super::Failure;
use crate::connection::Limit;
use crate::error::Error;
use crate::lifecycle::{Core, Counters, InHandler, Throttle};
use crate::listen::Addr;

/// A connection was taken from the kernel's queue.
pub(crate) fn accepted(core: &Core) {
    core.counters().accepted.fetch_add(1, Relaxed);
}

/// A connection was closed without a handler: one line a second above `debug`.
pub(crate) fn refused(core: &Core, peer: &Addr, error: &io::Error) {
    core.counters().refused.fetch_add(1, Relaxed);
    let level = if core.refusal_log.pass().is_some() { Level::Warn } else { Level::Debug };
    report(core, level, &Failure::Refused { peer, error });
}

/// `verify_request` did not let it in: one line a second above `debug`. That it says no is no fault.
pub(crate) fn turned_away(core: &Core, peer: &Addr, error: &io::Error) {
    core.counters().refused.fetch_add(1, Relaxed);
    let level = match core.verify_log.pass() {
        None => Level::Debug,
        Some(_) if error.kind() == io::ErrorKind::PermissionDenied => Level::Info,
        Some(_) => Level::Warn,
    };
    report(core, level, &Failure::Refused { peer, error });
}

/// A hook of the server has panicked.
pub(crate) fn hook_panicked(core: &Core, hook: &'static str, message: &str) {
    report(core, Level::Error, &Failure::Hook { hook, message });
}

/// Accepting rests: one line a second.
pub(crate) fn accept_failed(core: &Core, local: &Addr, error: &io::Error) {
    if let Some(left_out) = core.accept_log.pass() {
        report(core, Level::Warn, &Failure::Accept { local, error });
        left_out_before(left_out);
    }
}

/// A callback has held up an event loop: one line a second.
pub(crate) fn stalled(core: &Core, log: &Throttle, callback: &'static str, peer: Option<&Addr>, took: Duration) {
    if log.pass().is_some() {
        report(core, Level::Warn, &Failure::Stalled { callback, peer, took });
    }
}

/// A worker cannot even wait: one line a second, together with the above.
pub(crate) fn waiting_failed(core: &Core, error: &Error) {
    if let Some(left_out) = core.accept_log.pass() {
        log::warn!(target: "socketserver::accept", "a worker rests: {error}");
        left_out_before(left_out);
    }
}

fn left_out_before(events: u64) {
    if events > 0 {
        log::warn!(target: "socketserver::accept", "{events} such events before were left out of the log");
    }
}

/// A connection was served, or not, and is closed.
pub(crate) fn ended(core: &Core, peer: &Addr, lost: bool, outcome: &Outcome) {
    count_end(core);
    match outcome {
        Outcome::Served => one(&core.counters().served),
        Outcome::Panicked(message) => panicked(core, peer, message),
        Outcome::Failed(error) => failed(core, peer, Cause::of(&**error, lost), &**error),
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
    count_end(core);
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

fn count_end(core: &Core) {
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
        Cause::Peer => {
            one(&counters.disconnected);
            report(core, Level::Debug, &Failure::Disconnected { peer, error });
        }
        Cause::Limit => {
            one(&counters.failed);
            one(&counters.timed_out);
            report(core, Level::Info, &Failure::Error { peer, error });
        }
        Cause::Handler => {
            one(&counters.failed);
            report(core, Level::Error, &Failure::Error { peer, error });
        }
    }
}

/// To the log and to the user's hook. Neither may end the thread that serves.
fn report(core: &Core, level: Level, failure: &Failure<'_>) {
    contained(|| log::log!(target: target(failure), level, "{failure}"));
    let Some(hook) = &core.config.handle_error else { return };
    let _inside = InHandler::of(core);
    if let Some(message) = contained(|| hook(failure)) {
        contained(|| log::error!(target: "socketserver::server", "handle_error panicked: {}", message.escape_debug()));
    }
}

/// The text of the panic, if there was one.
fn contained(code: impl FnOnce()) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(code)).err()?;
    let message = panic_message(payload.as_ref());
    crate::handler::forget(payload);
    Some(message)
}

fn target(failure: &Failure<'_>) -> &'static str {
    match failure {
        Failure::Accept { .. } | Failure::Refused { .. } => "socketserver::accept",
        Failure::Hook { .. } => "socketserver::server",
        Failure::Stalled { .. } => "socketserver::event_loop",
        _ => "socketserver::handler",
    }
}
