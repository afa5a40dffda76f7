//! What a server and its forked children see alike.

use crossbeam::utils::CachePadded;

use super::control::StopState;
use super::permits::Permits;
use crate::observe::Counters;
use crate::sys::shared::Shareable;

/// The part of a server that lies in memory shared with its children: atomics only.
#[derive(Debug, Default)]
pub(crate) struct SharedState {
    pub(crate) stop: StopState,
    pub(crate) permits: CachePadded<Permits>,
    pub(crate) counters: CachePadded<Counters>,
}

// SAFETY: plain atomics, all of them.
#[allow(unsafe_code)]
unsafe impl Shareable for SharedState {
    #[cfg(all(test, shuttle))]
    fn first() -> Option<Self> {
        Some(Self::default())
    }
}
