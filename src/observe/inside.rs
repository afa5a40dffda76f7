//! [`InHandler`]: the mark of a thread that runs a server's handler. Such a thread must not wait for the
//! server's end.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sync::thread_local;

/// The identity of a server within this process. The workers of a master have the master's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerId(u64);

impl ServerId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Relaxed))
    }
}

thread_local! {
    static HANDLING: Cell<Option<ServerId>> = const { Cell::new(None) };
}

/// Marks this thread as running a handler or a hook of a server, while the value lives.
pub(crate) struct InHandler(Option<ServerId>);

impl InHandler {
    pub(crate) fn of(server: ServerId) -> Self {
        Self(HANDLING.with(|of| of.replace(Some(server))))
    }

    /// True if this thread runs a handler or a hook of `server`.
    pub(crate) fn is_here(server: ServerId) -> bool {
        HANDLING.with(Cell::get) == Some(server)
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        HANDLING.with(|of| of.set(self.0));
    }
}
