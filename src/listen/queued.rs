//! [`QueuedAtStop`]: the connections that the kernel's queues held at the stop.
//!
//! They are connected already, and a close would reset them, so they are still served within the drain limit.
//! Newcomers are not, or a busy server would never stop.

use std::io;
use std::sync::OnceLock;

use super::accept_error::AcceptError;
use super::listener::Listener;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sys::shared::{Shareable, SharedRef};

/// The most listeners whose queues the workers of one master serve to the end.
pub(crate) const LISTENERS: usize = 64;

/// The number of connections or datagrams that are still to be served, for each listener.
///
/// The kernel tells the length of a queue of connections, and bounds the length of a queue of datagrams
/// (`sys::queue`). If it does not, the count is the backlog. [`clear`](Self::clear) ends a count when the queue is
/// first found empty. So a server under a flood stops as well.
#[derive(Debug)]
pub(crate) enum QueuedAtStop {
    /// Counted once in a run, by the first thread or loop that asks.
    Counted(OnceLock<Vec<AtomicUsize>>),
    /// In a worker process. The master counts for all workers.
    ByMaster(SharedRef<QueueCounts>),
}

impl QueuedAtStop {
    pub(crate) fn new(by_master: Option<SharedRef<QueueCounts>>) -> Self {
        by_master.map_or_else(|| Self::Counted(OnceLock::new()), Self::ByMaster)
    }

    /// Counts the queues at the stop. Call it before the first [`take`](Self::take).
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

    /// Returns the index of a listener with a connection left.
    pub(crate) fn next(&self) -> Option<usize> {
        self.counts().iter().position(|left| left.load(SeqCst) > 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next().is_none()
    }

    /// True if the caller may accept one connection of this listener's queue. False if other threads have
    /// taken the last.
    pub(crate) fn take(&self, index: usize) -> bool {
        let left = self.counts().get(index);
        left.is_some_and(|left| left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok())
    }

    /// Notes the failure of an accept after [`take`](Self::take).
    pub(crate) fn note_failure(&self, index: usize, e: &io::Error) {
        match AcceptError::of(e) {
            AcceptError::Gone => {}
            // The clients have left, or another thread or process has served them: the count was too high.
            AcceptError::Nothing if e.kind() == io::ErrorKind::WouldBlock => self.clear(index),
            AcceptError::Fatal => self.clear(index),
            // The connection is still in the queue. What the system lacks may come free as others end.
            AcceptError::Nothing | AcceptError::NoDescriptor | AcceptError::System => self.put_back(index),
        }
    }

    /// Adds a connection of this listener.
    pub(crate) fn put_back(&self, index: usize) {
        if let Some(left) = self.counts().get(index) {
            left.fetch_add(1, SeqCst);
        }
    }

    /// Ends the count of this listener: its queue was found empty, or accepting has failed.
    fn clear(&self, index: usize) {
        self.counts().get(index).into_iter().for_each(|left| left.store(0, SeqCst));
    }
}

fn queued(listeners: &[Listener], backlog: usize) -> impl Iterator<Item = usize> + '_ {
    listeners.iter().map(move |listener| listener.queued().unwrap_or(backlog))
}

/// The same counts in memory that a master shares with its workers.
#[derive(Debug)]
pub(crate) struct QueueCounts([AtomicUsize; LISTENERS]);

// SAFETY: plain atomics. (The model has no processes, and so never makes one.)
#[allow(unsafe_code)]
unsafe impl Shareable for QueueCounts {}

impl QueueCounts {
    /// Counts the queues in the master, at the stop.
    pub(crate) fn count(&self, listeners: &[Listener], backlog: usize) {
        self.0.iter().zip(queued(listeners, backlog)).for_each(|(left, queued)| left.store(queued, SeqCst));
    }

    /// Returns the number of connections that are left, of all listeners. (A worker that was taken over may have
    /// written any number.)
    pub(crate) fn left(&self) -> usize {
        self.0.iter().map(|left| left.load(SeqCst)).fold(0, usize::saturating_add)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// Resets the counts at the end of the run.
    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|left| left.store(0, SeqCst));
    }
}
