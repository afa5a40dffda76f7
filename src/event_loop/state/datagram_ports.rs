//! The loop's datagram sockets.

use std::io;
use std::sync::Arc;

use crate::event_loop::primitives::slab::Slab;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::datagram_protocol::DatagramProtocol;
use crate::listen::Listener;
use crate::net::{Addr, DatagramSocket};

/// The sockets of one address, which share a protocol.
pub(crate) struct Port {
    /// Empty once the port is closed, until `stop_protocol` is called.
    pub(crate) sockets: Vec<Listener>,
    pub(crate) addr: Addr,
    /// `None` while a callback of it runs, and at the end.
    pub(crate) protocol: Option<Box<dyn DatagramProtocol>>,
    /// True if `start_protocol` was called. Before that, nothing is delivered.
    pub(crate) started: bool,
    /// The number of the connected socket, and the kernel's name of its peer.
    pub(crate) connected: Option<(usize, Addr)>,
    pub(crate) timers: Vec<TimerId>,
}

impl Port {
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    pub(crate) fn socket(&self, number: usize) -> Option<&Arc<DatagramSocket>> {
        self.sockets.get(number)?.datagram_socket()
    }

    pub(crate) fn peer(&self) -> Option<&Addr> {
        self.connected.as_ref().map(|(_, peer)| peer)
    }

    /// Returns the number of the socket to send from. A port of a name with both families has a socket of each, so the
    /// address's family decides first. Within it, the socket of the datagram in delivery is preferred, then the
    /// connected one, then the first.
    pub(crate) fn number_for(&self, to: &Addr, delivering: Option<usize>) -> usize {
        let connected = self.connected.as_ref().map(|(number, _)| *number);
        let is_v4 = match to {
            Addr::Ip(to) => to.is_ipv4(),
            Addr::Unnamed => return connected.or(delivering).unwrap_or(0),
            Addr::Unix(_) | Addr::Abstract(_) => return 0,
        };
        let is_of_the_family = |number: &usize| {
            let addr = self.sockets.get(*number).and_then(|socket| socket.local_addr().socket_addr());
            addr.is_some_and(|addr| addr.is_ipv4() == is_v4)
        };
        let mut by_rank = delivering.into_iter().chain(connected).chain(0..self.sockets.len());
        by_rank.find(is_of_the_family).or(delivering).or(connected).unwrap_or(0)
    }
}

pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is closed")
}

/// The datagram sockets, and if they are watched.
pub(crate) struct DatagramPorts {
    pub(crate) list: Slab<Port>,
    /// True if they are watched.
    pub(crate) receiving: bool,
    /// The number of datagrams received. The server's counters count them as accepted.
    pub(crate) received: u64,
}

impl DatagramPorts {
    pub(crate) fn new(home: u32) -> Self {
        Self { list: Slab::new(home), receiving: false, received: 0 }
    }
}
