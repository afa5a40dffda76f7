//! Locks, atomics, threads and the clock, for the parts that `src/model` tests under a scheduler.
//!
//! They are parking_lot's and the standard library's. Under `--cfg shuttle` they are the model's.
//! parking_lot's locks are not poisoned, because a server goes on after a handler's panic, and its waits take
//! deadlines.

#[cfg(all(test, shuttle))]
pub(crate) mod model;
#[cfg(all(test, shuttle))]
pub(crate) use model::{atomic, now, thread, thread_local, Condvar, Mutex, MutexGuard, SegQueue};

#[cfg(not(all(test, shuttle)))]
mod system {
    pub(crate) use crossbeam::queue::SegQueue;
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::{sync::atomic, thread, thread_local};

    /// This moment.
    pub(crate) fn now() -> std::time::Instant {
        std::time::Instant::now()
    }
}

#[cfg(not(all(test, shuttle)))]
pub(crate) use system::{atomic, now, thread, thread_local, Condvar, Mutex, MutexGuard, SegQueue};

/// Returns the time left until the deadline. `None` without a deadline.
pub(crate) fn left(deadline: Option<std::time::Instant>) -> Option<std::time::Duration> {
    deadline.map(|at| at.saturating_duration_since(now()))
}
