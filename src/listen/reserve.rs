//! [`ReserveFd`]: a descriptor in reserve, with which a server can still refuse when none is left.
//!
//! Only a server that refuses at its limits has one. For any other server, a client does better to wait in
//! the queue than to be accepted with the last descriptor and closed.

use parking_lot::Mutex;

use crate::sys::process::Private;
use crate::sys::EventFd;

/// The reserve. It is closed for the time of a refusal, so that `accept` gets its number.
#[derive(Debug)]
pub(crate) struct ReserveFd(Mutex<Option<Private<EventFd>>>);

impl ReserveFd {
    /// Opens the reserve. If the system has no descriptor left, [`lend`](Self::lend) tries again.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(reserve()))
    }

    /// Makes an empty reserve for a worker: the master must not hold a descriptor for each.
    pub(crate) fn later() -> Self {
        Self(Mutex::new(None))
    }

    /// Opens the reserve in the worker.
    pub(crate) fn fill(&self) {
        *self.0.lock() = reserve();
    }

    /// True if `act` has succeeded. It runs with one descriptor more. If there is no reserve, it does not
    /// run.
    pub(crate) fn lend(&self, act: impl FnOnce() -> bool) -> bool {
        let mut spare = self.0.lock();
        let Some(fd) = spare.take().or_else(reserve) else { return false };
        // Another thread may take the descriptor before `act` does. Then `act` fails, and nothing is lost.
        drop(fd);
        let done = act();
        *spare = reserve();
        done
    }
}

fn reserve() -> Option<Private<EventFd>> {
    EventFd::new().ok().map(Private::new)
}
