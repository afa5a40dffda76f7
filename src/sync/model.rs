//! The model's stand-ins: parking_lot's locks over shuttle's, threads that fail to start on request, and a
//! clock.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use shuttle::rand::{thread_rng, Rng};

pub(crate) use shuttle::sync::atomic;
pub(crate) use shuttle::thread_local;

shuttle::lazy_static! {
    /// Made anew for each schedule.
    static ref WORLD: World = World::default();
}

#[derive(Debug, Default)]
struct World {
    /// The time, in nanoseconds.
    clock: AtomicU64,
    failing_spawns: AtomicUsize,
}

/// Makes the next `count` threads fail to start.
pub(crate) fn fail_spawns(count: usize) {
    WORLD.failing_spawns.store(count, SeqCst);
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Empty only while it waits for a condition variable.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, held: Some(self.held()) }
    }

    fn held(&self) -> shuttle::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(held)) => held.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: self, held: Some(held) })
    }

    pub(crate) fn try_lock_for(&self, time: Duration) -> Option<MutexGuard<'_, T>> {
        self.try_lock_until(now() + time)
    }

    pub(crate) fn try_lock_until(&self, until: Instant) -> Option<MutexGuard<'_, T>> {
        loop {
            let locked = self.try_lock();
            if locked.is_some() || time_is_over(until) {
                return locked;
            }
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().unwrap()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.held.take() {
            guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Waits. It may return early and without a notification, as any wait may. It need not wait at all, so
    /// that no schedule is missed.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> TimedOut {
        guard.held = None;
        let over = time_is_over(until);
        guard.held = Some(guard.mutex.held());
        TimedOut(over)
    }
}

/// crossbeam's queue. Other threads may run before each step.
#[derive(Debug)]
pub(crate) struct SegQueue<T>(Mutex<VecDeque<T>>);

impl<T> SegQueue<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    pub(crate) fn push(&self, value: T) {
        self.0.lock().push_back(value);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.lock().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// Returns the time of the model. It moves only when a timed wait is over.
pub(crate) fn now() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now) + Duration::from_nanos(WORLD.clock.load(SeqCst))
}

/// The shortest time that never passes in the model.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// True if `until` has come. Sooner or later it does, and then it has come for all threads.
fn time_is_over(until: Instant) -> bool {
    let left = until.saturating_duration_since(now());
    if left < FOR_EVER && (left.is_zero() || thread_rng().gen_ratio(1, 8)) {
        let passed = u64::try_from(left.as_nanos()).unwrap_or(u64::MAX);
        WORLD.clock.fetch_add(passed, SeqCst);
        return true;
    }
    shuttle::thread::yield_now();
    false
}

pub(crate) fn is_for_ever(time: Duration) -> bool {
    time >= FOR_EVER
}

/// Threads that may fail to start.
pub(crate) mod thread {
    pub(crate) use shuttle::thread::{spawn, yield_now, JoinHandle};

    use super::{SeqCst, WORLD};

    pub(crate) struct Builder(shuttle::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(shuttle::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// Does nothing: the scenario sets the size of the model's stacks.
        pub(crate) fn stack_size(self, _: usize) -> Self {
            self
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            if WORLD.failing_spawns.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
                return Err(std::io::Error::from_raw_os_error(nix::libc::EAGAIN));
            }
            self.0.spawn(work)
        }
    }
}
