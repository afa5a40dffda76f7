//! Connections that wait for the verdict of `verify_request`.

use std::collections::HashMap;

use crate::admit::Permit;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::ports::AcceptedOn;
use crate::net::Accepted;
use crate::offload::Ticket;

/// A connection nobody knows of yet; it has its place.
pub(crate) struct PendingVerdict {
    pub(crate) accepted_on: AcceptedOn,
    pub(crate) accepted: Accepted,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
    pub(crate) timer: TimerId,
}

/// All of them, by numbers that are never given again.
#[derive(Default)]
pub(crate) struct PendingVerdicts {
    pub(crate) all: HashMap<u64, PendingVerdict>,
    pub(crate) next: u64,
}

impl PendingVerdicts {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }
}
