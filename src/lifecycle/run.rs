//! Whether the server serves, and the threads that accept for it.

use std::time::Duration;

use crate::sync::atomic::AtomicUsize;
use crate::sync::{now, Condvar, Mutex};

/// The run of a server, if one is on.
#[derive(Debug)]
pub(crate) struct Run {
    serving: Mutex<bool>,
    ended: Condvar,
    /// Threads that accept for themselves: after the stop, each leaves when the kernel's queue is served.
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

    /// True if a run is on. What an abandoned handler does afterwards belongs to none.
    pub(crate) fn is_serving(&self) -> bool {
        *self.serving.lock()
    }

    /// Waits until no run is on; `false` if that takes longer than `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.and_then(|t| now().checked_add(t));
        let mut serving = self.serving.lock();
        while *serving {
            match until {
                None => self.ended.wait(&mut serving),
                Some(until) => {
                    if self.ended.wait_until(&mut serving, until).timed_out() {
                        return !*serving;
                    }
                }
            }
        }
        true
    }
}
