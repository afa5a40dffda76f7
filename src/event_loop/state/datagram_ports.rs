//! The loop's sockets of datagrams.

use std::io;
use std::sync::Arc;

use crate::event_loop::primitives::slab::Slab;
use crate::event_loop::state::datagram_protocol::DatagramProtocol;
use crate::listen::Listener;
use crate::net::{Addr, DatagramSocket};

/// The sockets of one address, which share a protocol.
pub(crate) struct Port {
    /// Empty once the port is closed, until the protocol has heard of it.
    pub(crate) sockets: Vec<Listener>,
    pub(crate) addr: Addr,
    /// Out while it is called, and gone at the end.
    pub(crate) protocol: Option<Box<dyn DatagramProtocol>>,
    /// Whether it has heard that it begins: before that nothing is delivered.
    pub(crate) started: bool,
    /// Which socket is connected, and to whom.
    pub(crate) connected: Option<(usize, Addr)>,
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

    /// The socket to send from: the one that has the datagram in delivery, or else the one that is connected, or else the
    /// first, but one of the address's family before any other.
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

/// The sockets of datagrams, and whether they are watched.
pub(crate) struct DatagramPorts {
    pub(crate) list: Slab<Port>,
    /// True if they are watched.
    pub(crate) receiving: bool,
    /// How many datagrams have come, which are counted as accepted.
    pub(crate) received: u64,
}

impl DatagramPorts {
    pub(crate) fn new(home: u32) -> Self {
        Self { list: Slab::new(home), receiving: false, received: 0 }
    }
}
