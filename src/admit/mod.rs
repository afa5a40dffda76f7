//! Admission: a connection is accepted only with a permit in hand, and the permit gives itself back.

use std::sync::Arc;

use crate::lifecycle::Core;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

/// How many may be served at once, and how many are; children see it too.
#[derive(Debug, Default)]
pub(crate) struct Count {
    limit: AtomicUsize,
    active: AtomicUsize,
    /// What the one at the gate waits for, as a number.
    awaited: AtomicU8,
}

/// What somebody waits for at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Awaited {
    Nothing = 0,
    /// A permit.
    Permit = 1,
    /// The end of a connection, which may free what the system lacks.
    End = 2,
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

    /// Whether accepting rests for want of something.
    pub(crate) fn someone_rests(&self) -> bool {
        self.awaited.load(SeqCst) == Awaited::End as u8
    }

    /// Tells those who give permits back that someone waits for one. To be followed by another try to take one.
    pub(crate) fn await_return(&self, awaited: Awaited) {
        self.awaited.store(awaited as u8, SeqCst);
    }
}

/// The right to serve one connection. Dropped when its handler has returned and the connection is closed.
#[derive(Debug)]
pub(crate) struct Permit {
    core: Arc<Core>,
    used: bool,
}

impl Permit {
    /// A permit, unless as many as allowed are out.
    pub(crate) fn take(core: &Arc<Core>) -> Option<Self> {
        let permits = core.permits();
        let limit = permits.limit();
        let more = |active: usize| (active < limit).then_some(active + 1);
        permits.active.fetch_update(SeqCst, SeqCst, more).ok()?;
        Some(Self { core: core.clone(), used: true })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Gives it back where no connection came: this is no end of one, for who waits for that.
    pub(crate) fn give_back_unused(mut self) {
        self.used = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let core = &self.core;
        if core.control.in_child() {
            return; // it is the parent's to give back
        }
        core.permits().active.fetch_sub(1, SeqCst);
        let awaited = core.permits().awaited.load(SeqCst);
        if awaited == Awaited::Permit as u8 || (awaited == Awaited::End as u8 && self.used) {
            core.control.ring_gate();
        }
        if core.control.stopping() {
            core.control.ring();
        }
    }
}

#[cfg(test)]
mod tests;
