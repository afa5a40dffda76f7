//! Locks, atomics, threads and the time for those parts whose schedules `src/model` tries: as everywhere, but for the
//! model's own under `--cfg shuttle`.

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

/// How much time is left until then; `None` for ever.
pub(crate) fn left(deadline: Option<std::time::Instant>) -> Option<std::time::Duration> {
    deadline.map(|at| at.saturating_duration_since(now()))
}
