//! What follows from a failed `accept`: nothing, a rest, or the end of that listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::finish::refuse;
use crate::lifecycle::Core;
use crate::listen::{AcceptError, Listener};
use crate::sys::worker::hear_of_the_masters_death;

/// What the caller does after a failed `accept`.
#[derive(Debug)]
pub(crate) enum NextStep {
    /// Try again.
    GoOn,
    /// Wait for this time, or until one of our connections ends.
    Rest(Duration),
    /// The listener has failed for good, and is marked so: stop watching it.
    Lost(Error),
}

/// Sorts the failure, counts it and reports it. A server that refuses at its limits also refuses here, if the
/// process has no descriptor left.
pub(crate) fn after_failure(core: &Arc<Core>, listener: &Listener, e: io::Error) -> NextStep {
    let kind = AcceptError::of(&e);
    match kind {
        AcceptError::Nothing => NextStep::GoOn,
        // An orphaned worker, or another one, has shut the listeners: the error is expected, and the worker drains.
        AcceptError::Fatal if core.is_worker() && (core.control.stopping() || hear_of_the_masters_death()) => {
            NextStep::GoOn
        }
        AcceptError::Fatal => {
            // Several threads may see the failure. The first of them reports it.
            if listener.lose() {
                core.monitor.report_lost_listener(listener.local_addr(), &e);
            }
            NextStep::Lost(Error::Accept { address: listener.local_addr().to_string(), source: e })
        }
        AcceptError::NoDescriptor if refused_with_the_reserve(core, listener, &e) => NextStep::GoOn,
        _ => {
            let rest = core.backoff.rest_after(kind);
            core.monitor.report_accept_error(listener.local_addr(), &e, rest.is_some());
            rest.map_or(NextStep::GoOn, NextStep::Rest)
        }
    }
}

/// True if a connection was refused with the reserve descriptor, which it is lent meanwhile. This cannot
/// spin: each refusal takes a connection from the queue.
fn refused_with_the_reserve(core: &Arc<Core>, listener: &Listener, why: &io::Error) -> bool {
    let Some(reserve) = &core.reserve else { return false };
    reserve.lend(|| match listener.accept() {
        Ok(accepted) => {
            refuse(core, accepted, why);
            true
        }
        // Another thread took the connection, or the descriptor.
        Err(_) => false,
    })
}
