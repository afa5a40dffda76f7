//! What few connections have: kept apart, so that the others do not pay for it.

use super::conn::Conn;
use super::protocol::Protocol;
use super::slab::ConnId;
use super::throttle::Throttle;

#[derive(Default)]
pub(super) struct Rare {
    /// Whose queues its reading waits for.
    pub(super) links: Vec<ConnId>,
    /// Whose reading waits for its queue.
    pub(super) linked: Vec<ConnId>,
    /// Whether those have been told that the queue is long.
    pub(super) holds_linked: bool,
    pub(super) reading: Option<Throttle>,
    pub(super) writing: Option<Throttle>,
    /// The protocol that takes over when the callback has returned, and the input that is for it.
    pub(super) next: Option<(Box<dyn Protocol>, Vec<u8>)>,
    /// Input that is still to be given to a protocol that has taken over.
    pub(super) leftover: Vec<u8>,
    /// Readers that have been sent to their end, of which the protocol is still to be told.
    pub(super) transfers: usize,
    /// Bytes that were queued behind a reader that has failed.
    pub(super) given_up: usize,
}

impl Conn {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(Box::default)
    }
}
