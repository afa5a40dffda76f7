//! Connections that wait for the verdict of `verify_request`.

use std::collections::HashMap;

use crate::admit::Permit;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::ports::AcceptedOn;
use crate::net::Accepted;
use crate::offload::Ticket;

/// An accepted connection that waits for its verdict. It has its permit, and no protocol yet.
pub(crate) struct PendingVerdict {
    pub(crate) accepted_on: AcceptedOn,
    pub(crate) accepted: Accepted,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
    pub(crate) timer: TimerId,
}

/// All connections that wait for a verdict, by numbers that are never used twice. A late verdict finds nothing.
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
