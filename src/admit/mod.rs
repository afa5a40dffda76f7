//! Admission: a connection is accepted only with a permit in hand, and the permit gives itself back.

use std::sync::Arc;

use crate::lifecycle::Core;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// How many may be served at once, and how many are; children see it too.
#[derive(Debug, Default)]
pub(crate) struct Count {
    limit: AtomicUsize,
    active: AtomicUsize,
    /// Whether someone waits at the gate for a permit to come back.
    awaited: AtomicBool,
}

impl Count {
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(SeqCst)
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, SeqCst);
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(SeqCst)
    }

    /// Whether another permit would be one too many.
    pub(crate) fn full(&self) -> bool {
        self.active() >= self.limit()
    }

    /// Tells those who give permits back that someone waits for one. To be followed by another try to take one.
    pub(crate) fn await_return(&self, awaited: bool) {
        self.awaited.store(awaited, SeqCst);
    }
}

/// The right to serve one connection. Dropped when its handler has returned and the connection is closed.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Core>);

impl Permit {
    /// A permit, unless as many as allowed are out.
    pub(crate) fn take(core: &Arc<Core>) -> Option<Self> {
        let permits = core.permits();
        let limit = permits.limit();
        let more = |active: usize| (active < limit).then_some(active + 1);
        permits.active.fetch_update(SeqCst, SeqCst, more).ok()?;
        Some(Self(core.clone()))
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let core = &self.0;
        if core.control.in_child() {
            return; // it is the parent's to give back
        }
        core.permits().active.fetch_sub(1, SeqCst);
        if core.permits().awaited.load(SeqCst) {
            core.control.ring_gate();
        }
        if core.control.stopping() {
            core.control.ring();
        }
    }
}

#[cfg(test)]
mod tests;
