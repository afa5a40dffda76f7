//! What the kernel's queues held when the stop came: that is still served, newcomers are not.

use std::sync::OnceLock;

use super::listener::Listener;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sys::shared::SharedRef;

/// Most listeners whose queues the workers of one master serve to the end.
pub(crate) const LISTENERS: usize = 64;

/// How many connections or datagrams of each listener's queue are still to be served.
///
/// Where the kernel does not tell a queue's length (Unix sockets, datagrams), the count is the backlog: what comes before
/// the queue is first found empty is served.
#[derive(Debug)]
pub(crate) enum QueuedAtStop {
    /// Counted once in a run, by the first thread or loop that asks.
    Counted(OnceLock<Vec<AtomicUsize>>),
    /// In a worker process: its master counts, for all workers.
    ByMaster(SharedRef<QueueCounts>),
}

impl QueuedAtStop {
    pub(crate) fn new(by_master: Option<SharedRef<QueueCounts>>) -> Self {
        by_master.map_or_else(|| Self::Counted(OnceLock::new()), Self::ByMaster)
    }

    /// At the stop, before the first [`take`](Self::take).
    pub(crate) fn count(&self, listeners: &[Listener], backlog: usize) {
        if let Self::Counted(counts) = self {
            counts.get_or_init(|| queued(listeners, backlog).map(AtomicUsize::new).collect());
        }
    }

    fn counts(&self) -> &[AtomicUsize] {
        match self {
            Self::Counted(counts) => counts.get().map_or(&[], Vec::as_slice),
            Self::ByMaster(counts) => &counts.0,
        }
    }

    /// A listener with something left, by its index.
    pub(crate) fn next(&self) -> Option<usize> {
        self.counts().iter().position(|left| left.load(SeqCst) > 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next().is_none()
    }

    /// Takes one of this listener's; `false` if none is left, as others may have been faster.
    pub(crate) fn take(&self, index: usize) -> bool {
        let left = self.counts().get(index);
        left.is_some_and(|left| left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok())
    }

    /// The queue was found empty, or accepting has failed.
    pub(crate) fn clear(&self, index: usize) {
        self.counts().get(index).into_iter().for_each(|left| left.store(0, SeqCst));
    }
}

fn queued(listeners: &[Listener], backlog: usize) -> impl Iterator<Item = usize> + '_ {
    listeners.iter().map(move |listener| listener.queued().unwrap_or(backlog))
}

/// The same counts in memory that a master shares with its workers.
#[derive(Debug)]
pub(crate) struct QueueCounts([AtomicUsize; LISTENERS]);

impl QueueCounts {
    /// In the master, at the stop.
    pub(crate) fn count(&self, listeners: &[Listener], backlog: usize) {
        self.0.iter().zip(queued(listeners, backlog)).for_each(|(left, queued)| left.store(queued, SeqCst));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|left| left.load(SeqCst) == 0)
    }

    /// At the end of the run.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|left| left.store(0, SeqCst));
    }
}
