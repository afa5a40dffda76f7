//! Connections that are greeted: accepted, and not yet in conversation.

use std::time::Instant;

use crate::admit::Permit;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::ports::AcceptedOn;
use crate::greeting::{HeaderStep, TlsStep};
use crate::net::Accepted;

/// What a greeting waits for.
pub(crate) enum GreetingStep {
    Header(HeaderStep),
    Tls(TlsStep),
}

/// An accepted connection whose greeting goes on. It has its permit, and no protocol yet.
pub(crate) struct PendingGreeting {
    pub(crate) accepted_on: AcceptedOn,
    pub(crate) accepted: Accepted,
    pub(crate) permit: Permit,
    pub(crate) step: GreetingStep,
    /// When the step has begun.
    pub(crate) since: Instant,
    /// True if the loop watches for room in the socket, and not for input.
    pub(crate) writes: bool,
    /// The timer of the time limit. `Some` once the connection waits, and the loop watches its socket.
    pub(crate) timer: Option<TimerId>,
}
