//! Connections that wait for the verdict of `verify_request`.

use std::collections::HashMap;

use crate::admit::Permit;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::ports::Entrance;
use crate::net::Accepted;
use crate::offload::Ticket;

/// A connection nobody knows of yet; it has its place.
pub(crate) struct Aside {
    pub(crate) entrance: Entrance,
    pub(crate) accepted: Accepted,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
    pub(crate) timer: TimerId,
}

/// All of them, by numbers that are never given again.
#[derive(Default)]
pub(crate) struct Asides {
    pub(crate) all: HashMap<u64, Aside>,
    pub(crate) next: u64,
}

impl Asides {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
