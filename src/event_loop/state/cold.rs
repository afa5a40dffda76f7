//! What few connections have: kept apart, so that the others do not pay for it.

use std::time::Instant;

use crate::event_loop::primitives::rate::RateLimit;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::protocol::Protocol;

#[derive(Default)]
pub(crate) struct ColdState {
    /// Whose queues its reading waits for.
    pub(crate) links: Vec<ConnId>,
    /// Whose reading waits for its queue.
    pub(crate) linked: Vec<ConnId>,
    /// Whether those have been told that the queue is long.
    pub(crate) holds_linked: bool,
    pub(crate) reading: Option<RateWaiter>,
    pub(crate) writing: Option<RateWaiter>,
    /// The protocol that takes over when the callback has returned, and the input that is for it.
    pub(crate) next: Option<(Box<dyn Protocol>, Vec<u8>)>,
    /// Input that is still to be given to a protocol that has taken over.
    pub(crate) leftover: Vec<u8>,
    /// Readers that have been sent to their end, of which the protocol is still to be told.
    pub(crate) transfers: usize,
    /// Bytes that were queued behind a reader that has failed.
    pub(crate) given_up: usize,
}

impl Conn {
    pub(crate) fn cold(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_with(Box::default)
    }
}

/// One direction of a connection, and its place at the bucket.
#[derive(Debug)]
pub(crate) struct RateWaiter {
    pub(crate) limit: RateLimit,
    /// Until when it waits, and for how much, which is taken already.
    pub(crate) wait: Option<(TimerId, usize)>,
    /// What it has waited for and is to use now.
    pub(crate) granted: usize,
}

impl RateWaiter {
    pub(crate) fn new(limit: &RateLimit) -> Self {
        Self { limit: limit.clone(), wait: None, granted: 0 }
    }

    /// What may pass now.
    pub(crate) fn take(&mut self, now: Instant, most: usize) -> usize {
        match std::mem::take(&mut self.granted) {
            0 => self.limit.take(now, most),
            granted => granted,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Reading,
    Writing,
}
