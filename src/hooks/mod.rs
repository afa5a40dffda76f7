//! The program's hooks into the server: inside the error boundary, and never where they would hold others up.

mod service;
#[cfg(test)]
#[cfg(not(shuttle))]
mod tests;
mod verify;

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::finish::{observe, panic_message};
use crate::handler::forget;
use crate::lifecycle::{Core, InHandler};

pub(crate) use service::{Actions, Pace};
pub use verify::Incoming;
pub(crate) use verify::{ask, late, server_stops, verify, Job, Verdict, Verify, Waiting};

/// Calls a hook; its panic is logged, told, and ends nothing.
pub(crate) fn call(core: &Core, name: &'static str, hook: impl FnOnce()) {
    if let Err(message) = contain(core, hook) {
        observe::hook_panicked(core, name, &message);
    }
}

/// Runs the program's code; a panic becomes its text. It is inside of the server: waiting for its end there is an
/// error.
fn contain<R>(core: &Core, code: impl FnOnce() -> R) -> Result<R, String> {
    let _inside = InHandler::of(core);
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = panic_message(payload.as_ref());
        forget(payload);
        message
    })
}
