//! [`Lock`]: a lock that processes share, and that a dead one does not keep.

use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};
use std::thread;
use std::time::Duration;

/// The number of its holder, or zero. It is held for less than a microsecond, so a thread that waits spins first.
#[derive(Debug, Default)]
pub(super) struct Lock(AtomicU32);

/// The lock in hand.
pub(super) struct Locked<'a>(&'a Lock);

/// How often a thread spins, yields and sleeps for a millisecond, before it gives the lock up. It counts rounds, and
/// not time: a machine that was frozen has lost no round.
const SPINS: u32 = 64;
const YIELDS: u32 = 64;
const SLEEPS: u32 = 1000;

impl Lock {
    /// Takes the lock. `None` after a second: its holder was stopped, or has written nonsense.
    pub(super) fn take(&self, owner: u32) -> Option<Locked<'_>> {
        self.take_from(owner, 0)
    }

    /// Takes the lock, also from this owner, which has died.
    pub(super) fn take_over(&self, dead: u32) -> Option<Locked<'_>> {
        self.take_from(dead, dead)
    }

    fn take_from(&self, owner: u32, dead: u32) -> Option<Locked<'_>> {
        for round in 0..SPINS + YIELDS + SLEEPS {
            let holder = self.0.load(Relaxed);
            let is_free = holder == 0 || holder == dead;
            if is_free && self.0.compare_exchange(holder, owner, Acquire, Relaxed).is_ok() {
                return Some(Locked(self));
            }
            if round < SPINS {
                std::hint::spin_loop();
            } else if round < SPINS + YIELDS {
                thread::yield_now();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        None
    }

    /// Frees the lock if this owner, which has died, has it.
    pub(super) fn free(&self, dead: u32) {
        let _ = self.0.compare_exchange(dead, 0, Release, Relaxed);
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.0 .0.store(0, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_holder_s_lock_is_taken_over_and_a_living_one_s_is_not() {
        let lock = Lock::default();
        std::mem::forget(lock.take(7));
        assert!(lock.take(8).is_none(), "it gives up in the end");
        drop(lock.take_over(7).unwrap());
        std::mem::forget(lock.take(7));
        lock.free(8);
        assert!(lock.take_over(8).is_none());
        lock.free(7);
        assert!(lock.take(8).is_some());
    }
}
