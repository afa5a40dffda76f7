//! The threads that wait for a verdict of `verify_request`, to be woken when the drain is over.

use std::sync::Arc;

use parking_lot::Mutex;

/// A thread that waits, as the end of a drain knows it.
pub(crate) trait WakeAtCut: Send + Sync {
    /// Has the thread look at the stop again. The cut has been made before.
    fn wake(&self);
}

/// All of them.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Arc<dyn WakeAtCut>>>);

/// One of them, for as long as it waits.
pub(crate) struct WaitGuard<'a>(&'a Waiting, Arc<dyn WakeAtCut>);

impl Waiting {
    pub(crate) fn enter(&self, waiter: Arc<dyn WakeAtCut>) -> WaitGuard<'_> {
        self.0.lock().push(waiter.clone());
        WaitGuard(self, waiter)
    }

    /// To be called after the cut.
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
