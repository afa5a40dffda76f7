//! The program's hooks into the server: `verify_request` and `service_actions`.
//!
//! A hook's panic is contained and logged; it ends nothing. But a panic in `verify_request` refuses its
//! connection, because the hook has not accepted it. No hook runs where it would hold up other connections:
//! `verify` asks on a thread of its own. `Pace::act` calls `service_actions` on the serving thread, between
//! two turns.

mod service;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod verify;

use crate::lifecycle::Core;
use crate::observe::InHandler;
use crate::panics::caught;

pub(crate) use service::{every, perform, Duty, Pace, DUTIES};
pub(crate) use verify::{ask, late, server_stops, verify, Verdict};

/// Calls a hook. Its panic is logged and reported, and ends nothing.
pub(crate) fn call(core: &Core, name: &'static str, hook: impl FnOnce()) {
    if let Err(message) = contain(core, hook) {
        core.monitor.report_hook_panic(name, &message);
    }
}

/// Runs the program's code. A panic becomes its text. The thread counts as inside the server, so
/// `ServerHandle::wait` is an error there.
fn contain<R>(core: &Core, code: impl FnOnce() -> R) -> Result<R, String> {
    let _inside = InHandler::of(core.monitor.server);
    caught(code)
}
