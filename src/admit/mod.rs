//! Admission: a connection is accepted only with a permit in hand, and the permit gives itself back.

use std::sync::Arc;

use crate::lifecycle::Core;
use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

/// How many may be served at once, and how many are; children see it too.
#[derive(Debug, Default)]
pub(crate) struct Count {
    limit: AtomicUsize,
    active: AtomicUsize,
    /// In a worker process: those, and the threads that wait with a place kept for them.
    held: AtomicUsize,
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

    /// Whether more places are taken than there are now: the limit has been lowered.
    pub(crate) fn exceeded(&self) -> bool {
        self.held.load(SeqCst) > self.limit()
    }

    /// What a worker may be serving, at the most, until it has seen its limit.
    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// A place, in a worker. The limit is looked at once more, as the master may have lowered it in between: either
    /// we see that, or it sees us.
    fn hold(&self) -> bool {
        let limit = self.limit();
        let more = |held: usize| (held < limit).then_some(held + 1);
        let taken = self.held.fetch_update(SeqCst, SeqCst, more).is_ok();
        if taken && self.exceeded() {
            self.held.fetch_sub(1, SeqCst);
            return false;
        }
        taken
    }

    /// For a new worker; the former one is gone.
    pub(crate) fn clear(&self) {
        [&self.limit, &self.active, &self.held].into_iter().for_each(|n| n.store(0, SeqCst));
        self.awaited.store(0, SeqCst);
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
    /// Whether it counts among the active.
    counts: bool,
}

impl Permit {
    /// A permit, unless as many as allowed are out.
    pub(crate) fn take(core: &Arc<Core>) -> Option<Self> {
        let mut permit = Self::reserve(core)?;
        permit.engage();
        Some(permit)
    }

    /// The same to wait with: in a worker process, who waits for a connection must be able to serve it, since the
    /// kernel tells no other process. It counts as active from the connection on.
    pub(crate) fn reserve(core: &Arc<Core>) -> Option<Self> {
        let permits = core.permits();
        let is_worker = core.post.is_some();
        if is_worker {
            permits.hold().then_some(())?;
        } else {
            let limit = permits.limit();
            let more = |active: usize| (active < limit).then_some(active + 1);
            permits.active.fetch_update(SeqCst, SeqCst, more).ok()?;
        }
        Some(Self { core: core.clone(), used: true, counts: !is_worker })
    }

    /// The connection has come.
    pub(crate) fn engage(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.core.permits().active.fetch_add(1, SeqCst);
        }
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
        if self.counts {
            core.permits().active.fetch_sub(1, SeqCst);
        }
        if core.post.is_some() {
            core.permits().held.fetch_sub(1, SeqCst);
        }
        let awaited = core.permits().awaited.load(SeqCst);
        let is_awaited = awaited == Awaited::Permit as u8 || (awaited == Awaited::End as u8 && self.used);
        if is_awaited || core.a_loop_waits() {
            core.control.ring_gate();
        }
        if core.control.stopping() {
            core.control.ring();
        }
    }
}

#[cfg(test)]
mod tests;
