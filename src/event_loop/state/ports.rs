//! The loop's listeners.

use std::rc::Rc;
use std::sync::Arc;

use crate::admit::Permit;
use crate::event_loop::primitives::slab::{Place, Slab};
use crate::event_loop::state::factory::{Factory, FactoryRefs};
use crate::lifecycle::AtGate;
use crate::listen::{Listener, QueuedAtStop};
use crate::net::Addr;

/// A listener of a reactor, to ask for its address, and to close. Once that is closed, and in another loop, it stands for
/// nothing.
#[derive(Debug, Clone)]
pub struct ListeningPort {
    pub(crate) place: Place,
    pub(crate) addr: Addr,
}

impl ListeningPort {
    /// The address, with the real port.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }
}

/// The listeners of one address, which share a factory.
pub(crate) struct Port {
    pub(crate) factory: Rc<dyn Factory>,
    /// The server's, in a server's loop.
    pub(crate) listeners: Arc<Vec<Listener>>,
    /// Shared by all loops that have the listeners.
    pub(crate) queued: Arc<QueuedAtStop>,
}

impl Port {
    /// Of one of its listeners.
    pub(crate) fn local_addr(&self, number: usize) -> Addr {
        self.listeners.get(number).map_or(Addr::Unnamed, |listener| listener.local_addr().clone())
    }
}

/// Where a connection has come in. The port may be closed before it is served.
pub(crate) struct AcceptedOn {
    pub(crate) place: Place,
    /// Of the listener there.
    pub(crate) number: usize,
    pub(crate) factory: Rc<dyn Factory>,
}

/// The listeners, and whether they are watched.
pub(crate) struct Ports {
    pub(crate) list: Slab<Port>,
    /// True if the listeners are watched.
    pub(crate) listening: bool,
    /// True if accepting rests, for want of descriptors or memory.
    pub(crate) rests: bool,
    /// True if accepting ends with the next connection.
    pub(crate) accepts_one: bool,
    /// In a worker process: the permit for the connection that the loop waits for.
    pub(crate) reserved: Option<Permit>,
    /// While there is no permit, and another loop may give one back.
    pub(crate) at_gate: Option<AtGate>,
    /// How many ports and clients use each factory.
    pub(crate) factory_refs: FactoryRefs,
}

impl Ports {
    pub(crate) fn new(home: u32) -> Self {
        Self {
            list: Slab::new(home),
            listening: false,
            rests: false,
            accepts_one: false,
            reserved: None,
            at_gate: None,
            factory_refs: FactoryRefs::default(),
        }
    }
}
