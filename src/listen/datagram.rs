//! A socket that datagrams come to, and a datagram as it has come.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crossbeam::queue::SegQueue;
use nix::errno::Errno;

use super::address::Addr;
use super::listener::Arrival;
use crate::connection::PeerCredentials;
use crate::sys::datagram::{self, Received};
use crate::sys::process;

/// A bound datagram socket, non-blocking: received from by whoever waits, and replied from by handlers.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    fd: OwnedFd,
    local: Addr,
    /// Between two receives: who receives has one.
    buffers: SegQueue<Vec<u8>>,
}

impl DatagramSocket {
    pub(crate) fn new(fd: OwnedFd, local: Addr) -> Self {
        process::own(&fd);
        Self { fd, local, buffers: SegQueue::new() }
    }

    /// Takes a datagram from the kernel's queue; what is longer than `most` bytes is cut.
    pub(super) fn receive(self: &Arc<Self>, most: usize) -> io::Result<Packet> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(most, 0);
        let received = self.receive_into(&mut buffer);
        let packet = received.map(|received| {
            let data = buffer.get(..received.len).unwrap_or(&buffer).to_vec();
            let local = self.local_of(&received);
            let Received { len, peer, from, .. } = received;
            Packet { socket: Arc::downgrade(self), data, len, peer, local, from }
        });
        self.buffers.push(buffer);
        packet
    }

    /// As [`receive`](Self::receive), into a buffer of the caller's.
    pub(crate) fn receive_into(&self, buffer: &mut [u8]) -> io::Result<Received> {
        datagram::receive(self.fd.as_fd(), buffer)
    }

    /// Where a datagram was sent to.
    pub(crate) fn local_of(&self, received: &Received) -> Addr {
        match (received.to, self.local.port()) {
            (Some(ip), Some(port)) => Addr::Ip(SocketAddr::new(ip, port)),
            _ => self.local.clone(),
        }
    }

    /// Sends one datagram, without a wait. Where the kernel has no such source, it chooses one: what was sent to the
    /// broadcast address of a network is answered all the same, and an IPv6 socket is not told that it was one.
    pub(crate) fn send(&self, bytes: &[u8], to: &Addr, from: Option<IpAddr>) -> io::Result<()> {
        match datagram::send(self.fd.as_fd(), bytes, to, from) {
            Err(e) if from.is_some() && is_no_source(&e) => datagram::send(self.fd.as_fd(), bytes, to, None),
            sent => sent,
        }
    }

    /// Receives from this peer only, from now on; its name, as datagrams from it have it.
    pub(crate) fn connect(&self, to: &Addr) -> io::Result<Addr> {
        datagram::connect(self.fd.as_fd(), to)
    }

    /// The most bytes that one datagram to there can have.
    pub(crate) fn longest_to(&self, to: &Addr) -> usize {
        match to.ip() {
            Some(IpAddr::V4(_)) => LONGEST_V4,
            Some(IpAddr::V6(_)) => LONGEST_V6,
            None => datagram::send_buffer(self.fd.as_fd()),
        }
    }
}

/// Perhaps for its source: not an address of this machine, or of no way from there (ip(7), ipv6(7); which of them depends
/// on the kernel and the family).
fn is_no_source(e: &io::Error) -> bool {
    let why = e.raw_os_error().map(Errno::from_raw);
    matches!(why, Some(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH))
}

/// 65535 bytes, less the headers of IP and UDP.
pub(crate) const LONGEST_V4: usize = 65_507;
/// The header of IPv6 does not count.
const LONGEST_V6: usize = 65_527;

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DatagramSocket {
    fn drop(&mut self) {
        process::disown(&self.fd);
    }
}

/// A datagram that was received, and the way back.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Not owned: a handler that is left running at the end must not keep the address.
    pub(crate) socket: Weak<DatagramSocket>,
    pub(crate) data: Vec<u8>,
    /// What the peer has sent; `data` may be less.
    pub(crate) len: usize,
    pub(crate) peer: Addr,
    pub(crate) local: Addr,
    /// The address that a reply comes from, where the socket is bound to all.
    pub(crate) from: Option<IpAddr>,
}

impl Arrival for Packet {
    fn peer(&self) -> &Addr {
        &self.peer
    }

    fn local_addr(&self) -> Addr {
        self.local.clone()
    }

    /// A datagram socket has no peer of its own.
    fn peer_credentials(&self) -> Option<PeerCredentials> {
        None
    }

    fn say(&self, message: &[u8]) {
        if let (Some(socket), false) = (self.socket.upgrade(), self.peer == Addr::Unnamed) {
            let _ = socket.send(message, &self.peer, self.from);
        }
    }
}
