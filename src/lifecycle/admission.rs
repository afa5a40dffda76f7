//! [`Admission`]: the part of a server that decides whether another connection may be served.

use std::sync::Arc;

use super::core::Core;
use super::permits::Permits;
use crate::sources::Sources;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::Mutex;
use crate::sys::shared::SharedRef;

/// The permits of a server, and the marks of the threads and loops that wait for one.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) permits: SharedRef<Permits>,
    /// Held by the thread that waits for a permit; the others queue behind it.
    pub(crate) gate: Mutex<()>,
    /// The number of event loops that wait for a permit. Another loop may give it back.
    loops_at_gate: AtomicUsize,
    /// The most connections that the strategy can serve at once, whatever the limit is.
    pub(crate) capacity: usize,
    /// `Some` if the server limits its sources.
    pub(crate) sources: Option<Sources>,
}

impl Admission {
    pub(super) fn new(permits: SharedRef<Permits>, capacity: usize) -> Self {
        Self { permits, gate: Mutex::new(()), loops_at_gate: AtomicUsize::new(0), capacity, sources: None }
    }

    /// True if an event loop waits for a permit.
    pub(crate) fn a_loop_waits(&self) -> bool {
        self.loops_at_gate.load(SeqCst) > 0
    }
}

/// Marks an event loop as waiting for a permit. While the mark lives, each permit that comes back sets the
/// gate's eventfd.
#[derive(Debug)]
pub(crate) struct AtGate(Arc<Core>);

impl AtGate {
    /// Sets the mark. The loop must then look for a permit once more: the mark and the return of a permit may
    /// cross.
    pub(crate) fn enter(core: &Arc<Core>) -> Self {
        core.admission.loops_at_gate.fetch_add(1, SeqCst);
        Self(core.clone())
    }
}

impl Drop for AtGate {
    fn drop(&mut self) {
        self.0.admission.loops_at_gate.fetch_sub(1, SeqCst);
    }
}
