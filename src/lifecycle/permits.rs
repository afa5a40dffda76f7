//! How many may be served at once, and how many are.

use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

/// How many may be served at once, and how many are; children see it too.
#[derive(Debug, Default)]
pub(crate) struct Permits {
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

impl Permits {
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
    pub(crate) fn hold(&self) -> bool {
        let limit = self.limit();
        let more = |held: usize| (held < limit).then_some(held + 1);
        let taken = self.held.fetch_update(SeqCst, SeqCst, more).is_ok();
        if taken && self.exceeded() {
            self.held.fetch_sub(1, SeqCst);
            return false;
        }
        taken
    }

    /// A permit, unless as many as allowed are out.
    pub(crate) fn take(&self) -> bool {
        let limit = self.limit();
        let more = |active: usize| (active < limit).then_some(active + 1);
        self.active.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// The connection has come for a permit that was held.
    pub(crate) fn engage(&self) {
        self.active.fetch_add(1, SeqCst);
    }

    pub(crate) fn give_back_active(&self) {
        self.active.fetch_sub(1, SeqCst);
    }

    pub(crate) fn give_back_held(&self) {
        self.held.fetch_sub(1, SeqCst);
    }

    /// Whether the one at the gate waits for this: a permit, or, where it was `used`, the end of a connection.
    pub(crate) fn is_awaited(&self, used: bool) -> bool {
        let awaited = self.awaited.load(SeqCst);
        awaited == Awaited::Permit as u8 || (awaited == Awaited::End as u8 && used)
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
