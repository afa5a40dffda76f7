//! One attempt as data: from an address to a connected socket.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, UnixAddr};

use crate::event_loop::primitives::timers::TimerId;
use crate::net::{numeric, Addr, Address, Socket};
use crate::offload::Ticket;
use crate::sys::socket;
use crate::tls::Session;

pub(crate) struct Attempt {
    pub(crate) number: u64,
    pub(crate) since: Instant,
    pub(crate) deadline: Instant,
    /// Fires at the end of the attempt's time, of an address's share of it, or of a pause.
    pub(crate) timer: TimerId,
    /// The addresses that are still to be tried.
    pub(crate) rest: VecDeque<Addr>,
    pub(crate) tried: Vec<(Addr, io::Error)>,
    /// The address that is being tried; `None` while the name is being resolved.
    pub(crate) current: Option<Addr>,
    pub(crate) socket: Option<Socket>,
    /// The session of TLS, once the socket is connected.
    pub(crate) session: Option<Session>,
    /// The last pause, while the server's queue is full.
    pub(crate) pause: Option<Duration>,
    /// The name on its way through the resolver.
    pub(crate) lookup: Option<Ticket>,
}

/// The act that failed, and the system's answer.
pub(crate) type Failed = (&'static str, io::Error);

pub(crate) enum Known {
    Address(Addr),
    /// To be resolved.
    Name(String),
}

/// Returns the address, or the name that must be looked up first.
pub(crate) fn known(address: &Address) -> io::Result<Known> {
    address.check()?;
    Ok(match address {
        Address::Tcp(text) => match numeric(text) {
            Some(addr) => Known::Address(Addr::Ip(addr?)),
            None => Known::Name(text.clone()),
        },
        Address::Unix(path) => Known::Address(Addr::Unix(path.clone())),
        Address::Abstract(name) => Known::Address(Addr::Abstract(name.clone())),
        Address::Descriptor(_) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a descriptor is no address to connect to"))
        }
    })
}

/// Opens a socket of the address's family.
pub(crate) fn open(to: &Addr, from: Option<SocketAddr>) -> Result<Socket, Failed> {
    match to.socket_addr() {
        Some(addr) => socket::open_tcp(addr, from).map(|fd| Socket::Tcp(fd.into())),
        None => socket::open_unix().map(|fd| Socket::Unix(fd.into())),
    }
}

/// Begins to connect. True if the socket is connected already.
pub(crate) fn connect(socket: &Socket, to: &Addr) -> io::Result<bool> {
    let fd = socket.as_fd();
    match to {
        Addr::Ip(addr) => socket::connect(fd, &SockaddrStorage::from(*addr)),
        Addr::Unix(path) => socket::connect(fd, &UnixAddr::new(path)?),
        Addr::Abstract(name) => socket::connect(fd, &UnixAddr::new_abstract(name)?),
        Addr::Unnamed => Err(io::ErrorKind::InvalidInput.into()),
    }
}
