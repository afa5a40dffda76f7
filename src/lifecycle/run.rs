//! [`Run`]: whether the server is serving, and the number of threads that accept for it.

use std::time::Duration;

use crate::sync::atomic::AtomicUsize;
use crate::sync::{now, Condvar, Mutex};

/// The present run of a server, if there is one.
#[derive(Debug)]
pub(crate) struct Run {
    /// True if the server is serving.
    serving: Mutex<bool>,
    ended: Condvar,
    /// The number of threads that accept. After a stop, each leaves when the kernel's queue has been served.
    pub(crate) workers: AtomicUsize,
}

impl Default for Run {
    fn default() -> Self {
        Self { serving: Mutex::new(false), ended: Condvar::new(), workers: AtomicUsize::new(0) }
    }
}

impl Run {
    pub(super) fn begin(&self) {
        *self.serving.lock() = true;
    }

    pub(super) fn end(&self) {
        *self.serving.lock() = false;
        self.ended.notify_all();
    }

    /// True if the server is serving. An abandoned handler that ends later belongs to no run.
    pub(crate) fn is_serving(&self) -> bool {
        *self.serving.lock()
    }

    /// True if the server is not serving. It waits for that; false if `timeout` has passed before.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.and_then(|t| now().checked_add(t));
        let mut serving = self.serving.lock();
        while *serving {
            match until {
                None => self.ended.wait(&mut serving),
                Some(until) => {
                    // The run may have ended in the same moment: the flag decides, not the clock.
                    if self.ended.wait_until(&mut serving, until).timed_out() {
                        return !*serving;
                    }
                }
            }
        }
        true
    }
}
