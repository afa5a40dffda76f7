//! Connections that are greeted: accepted, and not yet in conversation.

use crate::admit::Permit;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::ports::AcceptedOn;
use crate::greeting::HeaderStep;
use crate::net::Accepted;

/// An accepted connection whose greeting goes on. It has its permit, and no protocol yet.
pub(crate) struct PendingGreeting {
    pub(crate) accepted_on: AcceptedOn,
    pub(crate) accepted: Accepted,
    pub(crate) permit: Permit,
    pub(crate) step: HeaderStep,
    /// The timer of the time limit. `Some` once the connection waits, and the loop watches its socket.
    pub(crate) timer: Option<TimerId>,
}
