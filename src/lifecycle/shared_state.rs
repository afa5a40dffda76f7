//! [`SharedState`]: the part of a server in memory that forked children share.
//!
//! So `conn.server()` works in a child: it reads the live counters. It cannot write them, and asks its parent
//! for a stop (`sys::wishes`).

use crossbeam::utils::CachePadded;

use super::control::StopState;
use super::permits::Permits;
use crate::observe::Counters;
use crate::sync::atomic::AtomicBool;
use crate::sys::shared::Shareable;

/// The shared part of a server: atomics only. The padding keeps counters that all threads write out of each
/// other's cache line.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    pub(crate) stop: StopState,
    pub(crate) permits: CachePadded<Permits>,
    pub(crate) counters: CachePadded<Counters>,
    /// True once an error of this run has been printed, because the program has no logger.
    pub(crate) error_said: AtomicBool,
}

impl SharedState {
    /// Takes over the limit, the pause, and a stop that no run has obeyed yet. This process was forked from the one
    /// with the `old` memory. It has no connections, and counts its own.
    pub(super) fn carry_on(&self, old: &Self) {
        self.stop.carry_on(&old.stop);
        self.permits.set_limit(old.permits.limit());
    }
}

// SAFETY: all fields are plain atomics.
#[allow(unsafe_code)]
unsafe impl Shareable for SharedState {
    #[cfg(all(test, shuttle))]
    fn first() -> Option<Self> {
        Some(Self::default())
    }
}
