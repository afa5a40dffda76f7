//! Counters, log and hook: one event, one line.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering::Relaxed;

use log::Level;

use super::outcome::{Cause, Outcome};
use super::Failure;
use crate::connection::Wire;
use crate::error::Error;
use crate::lifecycle::{Core, Counters};
use crate::listen::Addr;

/// A connection was taken from the kernel's queue.
pub(crate) fn accepted(core: &Core) {
    core.counters.accepted.fetch_add(1, Relaxed);
}

/// A connection was closed without a handler: one line a second above `debug`.
pub(crate) fn refused(core: &Core, peer: &Addr, error: &io::Error) {
    core.counters.refused.fetch_add(1, Relaxed);
    let level = if core.refusal_log.pass().is_some() { Level::Warn } else { Level::Debug };
    report(core, level, &Failure::Refused { peer, error });
}

/// Accepting rests: one line a second.
pub(crate) fn accept_failed(core: &Core, local: &Addr, error: &io::Error) {
    if let Some(left_out) = core.accept_log.pass() {
        report(core, Level::Warn, &Failure::Accept { local, error });
        left_out_before(left_out);
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
pub(crate) fn ended(core: &Core, wire: &Wire, outcome: &Outcome) {
    let peer = wire.peer();
    let Counters { served, failed, panicked, timed_out, disconnected, drained, forced, .. } = &*core.counters;
    let one = |counter: &std::sync::atomic::AtomicU64| counter.fetch_add(1, Relaxed);
    if core.control.stopping() {
        one(if core.control.is_cut() { forced } else { drained });
    }
    match outcome {
        Outcome::Served => {
            one(served);
        }
        Outcome::Panicked(message, _) => {
            one(failed);
            one(panicked);
            report(core, Level::Error, &Failure::Panic { peer, message });
        }
        Outcome::Failed(error) => match Cause::of(&**error, wire.has_lost_peer()) {
            Cause::Peer => {
                one(disconnected);
                report(core, Level::Debug, &Failure::Disconnected { peer, error: &**error });
            }
            cause => {
                one(failed);
                if cause == Cause::Limit {
                    one(timed_out);
                }
                let level = if cause == Cause::Limit { Level::Info } else { Level::Error };
                report(core, level, &Failure::Error { peer, error: &**error });
            }
        },
    }
}

/// To the log and to the user's hook. Neither may end the thread that serves.
fn report(core: &Core, level: Level, failure: &Failure<'_>) {
    let tell = || {
        log::log!(target: target(failure), level, "{failure}");
        if let Some(hook) = &core.config.handle_error {
            hook(failure);
        }
    };
    if let Err(payload) = catch_unwind(AssertUnwindSafe(tell)) {
        crate::handler::forget(payload);
    }
}

fn target(failure: &Failure<'_>) -> &'static str {
    match failure {
        Failure::Accept { .. } | Failure::Refused { .. } => "socketserver::accept",
        Failure::Error { .. } | Failure::Panic { .. } | Failure::Disconnected { .. } => "socketserver::handler",
    }
}
