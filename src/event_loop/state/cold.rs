//! What few connections have: kept apart in a box, so that the others do not pay for it.

use std::time::Instant;

use crate::connection::Home;
use crate::event_loop::primitives::rate::RateLimit;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::protocol::Protocol;

#[derive(Default)]
pub(crate) struct ColdState {
    /// The connections whose queues its reading waits for.
    pub(crate) links: Vec<ConnId>,
    /// The connections whose reading waits for its queue.
    pub(crate) linked: Vec<ConnId>,
    /// True if the linked connections are paused, because the queue is long.
    pub(crate) holds_linked: bool,
    pub(crate) reading: Option<RateWaiter>,
    pub(crate) writing: Option<RateWaiter>,
    /// The successor, which takes over when the callback has returned, and the input for it.
    pub(crate) next: Option<(Box<dyn Protocol>, Vec<u8>)>,
    /// Input that a protocol that has taken over has still to get.
    pub(crate) leftover: Vec<u8>,
    /// The number of readers that are sent, and for which `transfer_complete` is due.
    pub(crate) transfers: usize,
    /// The server that has accepted the connection, if that is another one.
    pub(crate) home: Option<Box<Home>>,
    /// The number of bytes that were dropped, because a reader or a send has failed.
    pub(crate) given_up: usize,
}

impl Conn {
    pub(crate) fn cold(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_with(Box::default)
    }

    /// Returns the server that has accepted the connection, if that is another one.
    pub(crate) fn home(&self) -> Option<&Home> {
        self.cold.as_ref()?.home.as_deref()
    }

    pub(crate) fn home_mut(&mut self) -> Option<&mut Home> {
        self.cold.as_mut()?.home.as_deref_mut()
    }
}

/// One direction of a connection under a rate limit, and its wait in line.
#[derive(Debug)]
pub(crate) struct RateWaiter {
    pub(crate) limit: RateLimit,
    /// The timer of the wait, and the bytes it waits for, which are taken already.
    pub(crate) wait: Option<(TimerId, usize)>,
    /// The bytes that it has waited for, and uses now.
    pub(crate) granted: usize,
}

impl RateWaiter {
    pub(crate) fn new(limit: &RateLimit) -> Self {
        Self { limit: limit.clone(), wait: None, granted: 0 }
    }

    /// Returns how many bytes may pass now.
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
