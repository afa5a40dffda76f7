//! What follows from a failed `accept`: nothing, a rest, or the end of that listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::finish::refuse;
use crate::lifecycle::Core;
use crate::listen::{AcceptError, Listener};

/// What is to be done after a failed `accept`.
#[derive(Debug)]
pub(crate) enum NextStep {
    /// Try again.
    GoOn,
    /// Wait as long, or until one of our connections ends.
    Rest(Duration),
    /// The listener is of no use any more, and has been told so: watch it no longer.
    Lost(Error),
}

/// Sorts the failure, counts and reports it. A server that refuses at its limits does so here too, for want of a
/// descriptor.
pub(crate) fn after_failure(core: &Arc<Core>, listener: &Listener, e: io::Error) -> NextStep {
    let kind = AcceptError::of(&e);
    match kind {
        AcceptError::Nothing => NextStep::GoOn,
        // An orphaned worker has shut its listeners itself.
        AcceptError::Fatal if core.is_worker() && core.control.stopping() => NextStep::GoOn,
        AcceptError::Fatal => {
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

/// Gives the reserve descriptor to one connection, for as long as its refusal takes. This cannot spin: each refusal takes
/// a connection from the queue.
fn refused_with_the_reserve(core: &Arc<Core>, listener: &Listener, why: &io::Error) -> bool {
    let Some(reserve) = &core.reserve else { return false };
    reserve.lend(|| match listener.accept() {
        Ok(accepted) => {
            refuse(core, accepted, why);
            true
        }
        Err(_) => false, // another thread was faster, or took the descriptor
    })
}
