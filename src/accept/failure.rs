//! What follows from a failed `accept`: nothing, a rest, or the end of that listener.

use std::io;
use std::time::Duration;

use crate::error::Error;
use crate::finish::refuse;
use crate::lifecycle::Core;
use crate::listen::{AcceptError, Listener};

/// What is to be done after a failed `accept`.
#[derive(Debug)]
pub(crate) enum After {
    /// Try again.
    GoOn,
    /// Wait as long, or until one of our connections ends.
    Rest(Duration),
    /// The listener is of no use any more, and has been told so: watch it no longer.
    Lost(Error),
}

/// Sorts the failure, counts and reports it. A server that refuses at its limits does so here too, for want of a
/// descriptor.
pub(crate) fn after_failure(core: &std::sync::Arc<Core>, listener: &Listener, e: io::Error) -> After {
    let kind = AcceptError::of(&e);
    match kind {
        AcceptError::Nothing => After::GoOn,
        AcceptError::Fatal if core.is_worker() && core.control.stopping() => After::GoOn, // an orphaned worker has shut its listeners
        AcceptError::Fatal => {
            if listener.lose() {
                core.monitor.report_lost_listener(listener.local_addr(), &e);
            }
            After::Lost(Error::Accept { address: listener.local_addr().to_string(), source: e })
        }
        AcceptError::NoDescriptor if refused_with_the_spare(core, listener, &e) => After::GoOn,
        _ => {
            let rest = core.backoff.rest_after(kind);
            core.monitor.report_accept_error(listener.local_addr(), &e, rest.is_some());
            rest.map_or(After::GoOn, After::Rest)
        }
    }
}

/// Gives the spare descriptor to one connection, as long as its refusal takes. (For each there was one: this cannot
/// spin.)
fn refused_with_the_spare(core: &std::sync::Arc<Core>, listener: &Listener, why: &io::Error) -> bool {
    let Some(spare) = &core.reserve else { return false };
    spare.lend(|| match listener.accept() {
        Ok(accepted) => {
            refuse(core, accepted, why);
            true
        }
        Err(_) => false, // another thread was faster, or took the descriptor
    })
}
