//! [`Waiting`]: the threads that wait for a verdict of `verify_request`. The end of a drain wakes them.

use std::sync::Arc;

use parking_lot::Mutex;

/// A waiting thread, as the end of a drain sees it.
pub(crate) trait WakeAtCut: Send + Sync {
    /// Makes the thread look at the stop again. It is called after the cut.
    fn wake(&self);
}

/// All threads that wait for a verdict.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Arc<dyn WakeAtCut>>>);

/// Keeps one thread in the list while it waits.
pub(crate) struct WaitGuard<'a>(&'a Waiting, Arc<dyn WakeAtCut>);

impl Waiting {
    pub(crate) fn enter(&self, waiter: Arc<dyn WakeAtCut>) -> WaitGuard<'_> {
        self.0.lock().push(waiter.clone());
        WaitGuard(self, waiter)
    }

    /// Wakes all of them. Call it after the cut.
    pub(crate) fn wake_all(&self) {
        self.0.lock().iter().for_each(|waiter| waiter.wake());
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0 .0.lock().retain(|other| !Arc::ptr_eq(other, &self.1));
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.lock().len()).finish()
    }
}
