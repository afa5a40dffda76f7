//! What follows from a failed `accept`: nothing, a rest, or the end of that listener.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::error::Error;
use crate::finish::{observe, refuse};
use crate::lifecycle::Core;
use crate::listen::{AcceptError, Listener};

/// Rest for want of descriptors, threads or processes, unless one of our connections ends first: that frees some.
pub(super) const REST: Duration = Duration::from_millis(100);
/// The first rest where nothing of ours helps, and nobody tells when it is over; each one is twice as long as the
/// last, up to the longest.
const FIRST_REST: Duration = Duration::from_millis(5);
pub(super) const LONGEST_REST: Duration = Duration::from_secs(1);
/// So many connections may be gone in a row, before that is taken for a lasting state (a firewall that answers).
const GONE_IN_A_ROW: u32 = 10;

/// How long there has been trouble; over with the next connection.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    in_a_row: AtomicU32,
}

impl Trouble {
    /// A connection was accepted.
    pub(crate) fn is_over(&self) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// How long accepting rests after this; `None`: it goes on.
    fn rest_after(&self, error: AcceptError) -> Option<Duration> {
        let growing = |times: u32| LONGEST_REST.min(FIRST_REST * (1 << times.min(10)));
        match error {
            AcceptError::Nothing | AcceptError::Fatal => None,
            AcceptError::NoDescriptor => Some(REST),
            AcceptError::Gone => {
                let before = self.in_a_row.fetch_add(1, Relaxed);
                before.checked_sub(GONE_IN_A_ROW).map(growing)
            }
            AcceptError::System => Some(growing(self.in_a_row.fetch_add(1, Relaxed))),
        }
    }
}

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
        AcceptError::Fatal if core.post.is_some() && core.control.stopping() => After::GoOn, // an orphaned worker has shut its listeners
        AcceptError::Fatal => {
            if listener.lose() {
                observe::listener_lost(core, listener.local_addr(), &e);
            }
            After::Lost(Error::Accept { address: listener.local_addr().to_string(), source: e })
        }
        AcceptError::NoDescriptor if refused_with_the_spare(core, listener, &e) => After::GoOn,
        _ => {
            let rest = core.trouble.rest_after(kind);
            observe::accept_failed(core, listener.local_addr(), &e, rest.is_some());
            rest.map_or(After::GoOn, After::Rest)
        }
    }
}

/// Gives the spare descriptor to one connection, as long as its refusal takes. (For each there was one: this cannot
/// spin.)
fn refused_with_the_spare(core: &std::sync::Arc<Core>, listener: &Listener, why: &io::Error) -> bool {
    let Some(spare) = &core.spare else { return false };
    spare.lend(|| match listener.accept() {
        Ok(accepted) => {
            refuse(core, accepted, why);
            true
        }
        Err(_) => false, // another thread was faster, or took the descriptor
    })
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_second_and_begin_anew_after_a_connection() {
        let trouble = Trouble::default();
        let millis = |error| trouble.rest_after(error).map(|t| t.as_millis());
        let grown: Vec<_> = (0..10).filter_map(|_| millis(AcceptError::System)).collect();
        assert_eq!(grown, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.is_over();
        assert_eq!(millis(AcceptError::System), Some(5));
    }

    #[test]
    fn connections_that_are_gone_cost_no_rest_until_there_are_many_in_a_row() {
        let trouble = Trouble::default();
        let millis = || trouble.rest_after(AcceptError::Gone).map(|t| t.as_millis());
        assert!((0..10).all(|_| millis().is_none()));
        assert_eq!((millis(), millis()), (Some(5), Some(10)));
        trouble.is_over();
        assert_eq!(millis(), None);
    }

    #[test]
    fn a_lack_of_descriptors_does_not_grow() {
        let trouble = Trouble::default();
        assert!((0..20).all(|_| trouble.rest_after(AcceptError::NoDescriptor) == Some(REST)));
    }
}
