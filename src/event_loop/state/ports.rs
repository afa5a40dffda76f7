//! The loop's listeners.

use std::rc::Rc;
use std::sync::Arc;

use crate::admit::Permit;
use crate::event_loop::primitives::slab::{Place, Slab};
use crate::event_loop::state::factory::{Factory, FactoryRefs};
use crate::lifecycle::AtGate;
use crate::listen::{Listener, QueuedAtStop};
use crate::net::Addr;
use crate::proxy::ProxyProtocol;

/// A listener of a reactor, to ask for its address and to close it. Once it is closed, the value stands for nothing. In
/// another loop it never stands for anything.
#[derive(Debug, Clone)]
pub struct ListeningPort {
    pub(crate) place: Place,
    pub(crate) addr: Addr,
}

impl ListeningPort {
    /// Returns the address, with the real port.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }
}

/// The listeners of one address, which share a factory.
pub(crate) struct Port {
    pub(crate) factory: Rc<dyn Factory>,
    /// In a server's loop, the server's listeners.
    pub(crate) listeners: Arc<Vec<Listener>>,
    /// The connections queued at a stop, shared by all loops that have the listeners.
    pub(crate) queued: Arc<QueuedAtStop>,
    /// The networks whose connections begin with a PROXY header.
    pub(crate) proxies: Option<Arc<ProxyProtocol>>,
}

impl Port {
    /// Returns the address of one of its listeners.
    pub(crate) fn local_addr(&self, number: usize) -> Addr {
        self.listeners.get(number).map_or(Addr::Unnamed, |listener| listener.local_addr().clone())
    }
}

/// Where a connection has come in. It keeps the factory, because the port may close before the connection begins.
pub(crate) struct AcceptedOn {
    pub(crate) place: Place,
    /// The number of the listener there.
    pub(crate) number: usize,
    pub(crate) factory: Rc<dyn Factory>,
}

/// The listeners, and if they are watched.
pub(crate) struct Ports {
    pub(crate) list: Slab<Port>,
    /// True if the listeners are watched.
    pub(crate) listening: bool,
    /// True if accepting rests, because the system lacks descriptors or memory.
    pub(crate) rests: bool,
    /// True if accepting ends with the next connection.
    pub(crate) accepts_one: bool,
    /// In a worker process: the permit for the connection that the loop waits for.
    pub(crate) reserved: Option<Permit>,
    /// `Some` while there is no permit, and another loop may give one back.
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
