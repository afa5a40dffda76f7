//! The program's hooks into the server: inside the error boundary, and never where they would hold others up.

mod service;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod verify;

use crate::lifecycle::Core;
use crate::observe::InHandler;
use crate::panics::caught;

pub(crate) use service::{every, perform, Pace};
pub(crate) use verify::{ask, late, server_stops, verify, Verdict};

/// Calls a hook; its panic is logged, told, and ends nothing.
pub(crate) fn call(core: &Core, name: &'static str, hook: impl FnOnce()) {
    if let Err(message) = contain(core, hook) {
        core.monitor.report_hook_panic(name, &message);
    }
}

/// Runs the program's code; a panic becomes its text. It is inside of the server: waiting for its end there is an
/// error.
fn contain<R>(core: &Core, code: impl FnOnce() -> R) -> Result<R, String> {
    let _inside = InHandler::of(core.monitor.server);
    caught(code)
}
