//! [`StopCalls`]: what is called when the server stops, for connections that have left its handlers.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Makes another thread look at the stop. It must not wait.
pub(crate) type StopCall = dyn Fn() + Send + Sync;

/// The calls of one server. The connections hold them: a call ends with its connection.
#[derive(Default)]
pub(crate) struct StopCalls(Mutex<Vec<Weak<StopCall>>>);

impl StopCalls {
    pub(crate) fn add(&self, call: &Arc<StopCall>) {
        let mut calls = self.0.lock();
        // Before the list grows: so it follows the number of connections, and each costs a bounded time on average.
        if calls.len() == calls.capacity() {
            calls.retain(|call| call.strong_count() > 0);
            let room = calls.len().max(4);
            calls.reserve(room);
        }
        calls.push(Arc::downgrade(call));
    }

    /// Calls all, after the stop was requested.
    pub(crate) fn call(&self) {
        let calls: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        calls.iter().for_each(|call| call());
    }
}

impl fmt::Debug for StopCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopCalls").field(&self.0.lock().len()).finish()
    }
}
