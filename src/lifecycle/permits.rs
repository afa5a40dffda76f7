//! The count of permits: the connection limit, and how many connections are served.

use crate::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};

/// The connection limit and the permits that are out, in memory that forked children see too.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    limit: AtomicUsize,
    /// Connections that are served now.
    active: AtomicUsize,
    /// In a worker process: the active permits, and those that waiting threads have reserved.
    held: AtomicUsize,
    /// Of the active connections, those that wait for a request without a thread.
    parked: AtomicUsize,
    /// What the thread at the gate waits for: an [`Awaited`] as a number.
    awaited: AtomicU8,
}

/// What the thread at the gate waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Awaited {
    Nothing = 0,
    /// A permit.
    Permit = 1,
    /// The end of a connection. It may free what the system lacks, a thread for example.
    End = 2,
    /// As `End`, for a descriptor. A thread that waits may give one too.
    Descriptor = 3,
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

    pub(crate) fn parked(&self) -> usize {
        self.parked.load(SeqCst)
    }

    /// Counts a connection that is parked.
    pub(crate) fn park(&self) {
        self.parked.fetch_add(1, SeqCst);
    }

    /// Counts a connection that is parked no more. True if it was the last one.
    pub(crate) fn unpark(&self) -> bool {
        self.parked.fetch_sub(1, SeqCst) == 1
    }

    /// True if no other permit is free.
    pub(crate) fn full(&self) -> bool {
        self.active() >= self.limit()
    }

    /// True if more permits are held than the limit allows, because the limit was lowered.
    pub(crate) fn exceeded(&self) -> bool {
        self.held.load(SeqCst) > self.limit()
    }

    /// Returns the permits that a worker holds. Until the worker sees a new limit, it may serve this many.
    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// True if a permit was free. A worker holds it from now on.
    pub(crate) fn hold(&self) -> bool {
        let limit = self.limit();
        let more = |held: usize| (held < limit).then_some(held + 1);
        let taken = self.held.fetch_update(SeqCst, SeqCst, more).is_ok();
        // The master may have lowered the limit in between, and may already count on it. So look again:
        // either this thread sees the new limit, or the master sees this permit.
        if taken && self.exceeded() {
            self.held.fetch_sub(1, SeqCst);
            return false;
        }
        taken
    }

    /// True if a permit was free. It is taken from now on.
    pub(crate) fn take(&self) -> bool {
        let limit = self.limit();
        let more = |active: usize| (active < limit).then_some(active + 1);
        self.active.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Counts a held permit as active, because its connection has come.
    pub(crate) fn engage(&self) {
        self.active.fetch_add(1, SeqCst);
    }

    /// A process that was forked since counts anew, and may hold a permit of its parent's count.
    pub(crate) fn give_back_active(&self) {
        let _ = self.active.fetch_update(SeqCst, SeqCst, |active| active.checked_sub(1));
    }

    pub(crate) fn give_back_held(&self) {
        self.held.fetch_sub(1, SeqCst);
    }

    /// True if the thread at the gate waits for this permit. If it waits for the end of a connection, only a
    /// `used` permit counts.
    pub(crate) fn is_awaited(&self, used: bool) -> bool {
        let awaited = self.awaited.load(SeqCst);
        awaited == Awaited::Permit as u8 || (awaited > Awaited::Permit as u8 && used)
    }

    /// Resets all numbers for a new worker. The former worker has ended.
    pub(crate) fn clear(&self) {
        [&self.limit, &self.active, &self.held, &self.parked].into_iter().for_each(|n| n.store(0, SeqCst));
        self.awaited.store(0, SeqCst);
    }

    /// True if a thread rests at the gate because the system lacks something.
    pub(crate) fn someone_rests(&self) -> bool {
        self.awaited.load(SeqCst) > Awaited::Permit as u8
    }

    /// True if a thread rests at the gate because the process has no descriptor left.
    pub(crate) fn someone_lacks_a_descriptor(&self) -> bool {
        self.awaited.load(SeqCst) == Awaited::Descriptor as u8
    }

    /// Marks that a thread waits at the gate. The caller must then try to take a permit once more: a permit
    /// that came back before the mark rang no bell.
    pub(crate) fn await_return(&self, awaited: Awaited) {
        self.awaited.store(awaited as u8, SeqCst);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_limit_is_exceeded_until_enough_is_given_back() {
        let permits = Permits::default();
        permits.set_limit(2);
        assert!(permits.hold() && permits.hold() && !permits.hold());
        assert!(!permits.exceeded(), "the limit itself is none too many");
        permits.set_limit(1);
        assert!(permits.exceeded());
        permits.give_back_held();
        assert!(!permits.exceeded());
    }

    #[test]
    fn a_permit_of_another_process_is_no_permit_more() {
        let permits = Permits::default();
        permits.set_limit(1);
        permits.give_back_active();
        assert!(permits.take() && !permits.take());
    }

    #[test]
    fn only_a_thread_that_waits_for_an_end_rests() {
        let permits = Permits::default();
        assert!(!permits.someone_rests());
        permits.await_return(Awaited::Permit);
        assert!(!permits.someone_rests() && permits.is_awaited(false));
        permits.await_return(Awaited::End);
        assert!(permits.someone_rests() && permits.is_awaited(true) && !permits.is_awaited(false));
        assert!(!permits.someone_lacks_a_descriptor(), "a thread, perhaps");
        permits.await_return(Awaited::Descriptor);
        assert!(permits.someone_rests() && permits.is_awaited(true) && !permits.is_awaited(false));
        assert!(permits.someone_lacks_a_descriptor());
        permits.await_return(Awaited::Nothing);
        assert!(!permits.someone_rests() && !permits.is_awaited(true));
    }
}
