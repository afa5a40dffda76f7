//! [`Permit`]: the right to serve one connection.

use std::sync::Arc;

use crate::lifecycle::Core;
use crate::sources::Stay;

/// The right to serve one connection. It is dropped when the handler has returned and the connection is
/// closed. The drop gives it back, after a panic too.
#[derive(Debug)]
pub(crate) struct Permit {
    core: Arc<Core>,
    /// True unless it is given back without a connection.
    used: bool,
    /// True if it counts as active.
    counts: bool,
    /// The connection's place among those of its source, if it is counted there.
    stay: Option<Stay>,
}

impl Permit {
    /// Takes a permit for a connection that is there. `None` at the limit.
    pub(crate) fn take(core: &Arc<Core>) -> Option<Self> {
        let mut permit = Self::reserve(core)?;
        permit.engage();
        Some(permit)
    }

    /// Takes a permit for the next connection. `None` at the limit. In a worker process it counts as active
    /// only from [`engage`](Self::engage) on, because a worker reserves its permit before it waits (see
    /// `accept::Seat::next`).
    pub(crate) fn reserve(core: &Arc<Core>) -> Option<Self> {
        let permits = &core.admission.permits;
        let is_worker = core.is_worker();
        if is_worker {
            permits.hold().then_some(())?;
        } else {
            permits.take().then_some(())?;
        }
        Some(Self { core: core.clone(), used: true, counts: !is_worker, stay: None })
    }

    /// Counts the permit as active, because the connection has come.
    pub(crate) fn engage(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.core.admission.permits.engage();
        }
    }

    /// Keeps the connection's stay at its source, and gives it back in the end.
    pub(super) fn keep_stay(&mut self, stay: Stay) {
        self.stay = Some(stay);
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Gives the permit back without a connection. A thread that rests until a connection ends is not woken.
    pub(crate) fn give_back_unused(mut self) {
        self.used = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let core = &self.core;
        // In a forked child the permit is the parent's: the parent gives it back when the child ends.
        if core.control.in_child() {
            return;
        }
        if let (Some(stay), Some(sources)) = (self.stay, &core.admission.sources) {
            sources.leave(stay);
        }
        if self.counts {
            core.admission.permits.give_back_active();
        }
        if core.is_worker() {
            core.admission.permits.give_back_held();
        }
        // The counters come before the look at the marks. A waiting thread sets its mark, then looks at the
        // counters. So one of the two sees the other.
        if core.admission.permits.is_awaited(self.used) || core.admission.a_loop_waits() {
            core.control.wake_gate();
        }
        // A drain ends when the last permit is back. It would only look in vain at any other.
        if core.control.stopping() && core.admission.permits.active() == 0 {
            core.control.wake_supervisor();
        }
    }
}
