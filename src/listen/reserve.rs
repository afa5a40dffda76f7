//! A descriptor in reserve, so that a server without any left can still say so.

use parking_lot::Mutex;

use crate::sys::process::Private;
use crate::sys::EventFd;

/// Held by servers that refuse at their limits, given up for as long as a refusal takes.
#[derive(Debug)]
pub(crate) struct ReserveFd(Mutex<Option<Private<EventFd>>>);

impl ReserveFd {
    /// Empty where the system has no descriptor left: it is tried again.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(reserve()))
    }

    /// Empty at first; a worker's, which its master must not hold.
    pub(crate) fn later() -> Self {
        Self(Mutex::new(None))
    }

    /// In the worker.
    pub(crate) fn fill(&self) {
        *self.0.lock() = reserve();
    }

    /// Does this with one descriptor more; `false`, undone, where there is none in reserve.
    pub(crate) fn lend(&self, act: impl FnOnce() -> bool) -> bool {
        let mut spare = self.0.lock();
        let Some(fd) = spare.take().or_else(reserve) else { return false };
        drop(fd);
        let done = act();
        *spare = reserve();
        done
    }
}

fn reserve() -> Option<Private<EventFd>> {
    EventFd::new().ok().map(Private::new)
}
