//! The right to serve one connection.

use std::sync::Arc;

use crate::lifecycle::Core;

/// The right to serve one connection. Dropped when its handler has returned and the connection is closed.
#[derive(Debug)]
pub(crate) struct Permit {
    core: Arc<Core>,
    used: bool,
    /// Whether it counts among the active.
    counts: bool,
}

impl Permit {
    /// A permit, unless as many as allowed are out.
    pub(crate) fn take(core: &Arc<Core>) -> Option<Self> {
        let mut permit = Self::reserve(core)?;
        permit.engage();
        Some(permit)
    }

    /// The same to wait with: in a worker process, who waits for a connection must be able to serve it, since the
    /// kernel tells no other process. It counts as active from the connection on.
    pub(crate) fn reserve(core: &Arc<Core>) -> Option<Self> {
        let permits = &core.admission.permits;
        let is_worker = core.is_worker();
        if is_worker {
            permits.hold().then_some(())?;
        } else {
            permits.take().then_some(())?;
        }
        Some(Self { core: core.clone(), used: true, counts: !is_worker })
    }

    /// The connection has come.
    pub(crate) fn engage(&mut self) {
        if !std::mem::replace(&mut self.counts, true) {
            self.core.admission.permits.engage();
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Gives it back where no connection came: this is no end of one, for who waits for that.
    pub(crate) fn give_back_unused(mut self) {
        self.used = false;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let core = &self.core;
        if core.control.in_child() {
            return; // it is the parent's to give back
        }
        if self.counts {
            core.admission.permits.give_back_active();
        }
        if core.is_worker() {
            core.admission.permits.give_back_held();
        }
        if core.admission.permits.is_awaited(self.used) || core.admission.a_loop_waits() {
            core.control.ring_gate();
        }
        if core.control.stopping() {
            core.control.ring();
        }
    }
}
