//! [`DatagramSocket`], to which datagrams come, and [`Packet`], one datagram.
//!
//! `SO_REUSEADDR` is not set for UDP. On Linux it lets a second socket bind the same address, and that socket
//! then gets the datagrams. UDP has no `TIME_WAIT` that would ask for it.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use crossbeam::queue::SegQueue;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{self as sock, ControlMessage, MsgFlags, SockaddrStorage, UnixAddr};

use crate::error::PeerFault;
use crate::net::{Addr, Arrival, Birth, PeerCredentials};
use crate::sys::datagram;
use crate::sys::process::Private;

/// A bound datagram socket, non-blocking. Waiting threads receive from it, and handlers reply from it.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    fd: Private,
    local: Addr,
    /// Buffers that no thread uses. A receiving thread has one.
    buffers: SegQueue<Vec<u8>>,
}

/// A datagram without its data.
#[derive(Debug)]
pub(crate) struct Received {
    /// Its length. Bytes beyond the buffer are lost.
    pub(crate) len: usize,
    pub(crate) peer: Addr,
    /// The address that it was sent to, on a socket that is bound to all addresses.
    pub(crate) to: Option<SocketAddr>,
    /// The source address for a reply: the same, unless it is a group or broadcast address.
    pub(crate) from: Option<SocketAddr>,
}

impl DatagramSocket {
    pub(crate) fn new(fd: OwnedFd, local: Addr) -> Self {
        Self { fd: Private::new(fd), local, buffers: SegQueue::new() }
    }

    /// Takes a datagram from the kernel's queue. Bytes beyond `most` are lost.
    pub(crate) fn receive(self: &Arc<Self>, most: usize) -> io::Result<Packet> {
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(most, 0);
        let received = self.receive_into(&mut buffer);
        let packet = received.map(|received| {
            let data = buffer.get(..received.len).unwrap_or(&buffer).to_vec();
            let local = self.local_of(&received);
            let Received { len, peer, from, .. } = received;
            // Weak: a handler that the drain has left behind must not keep the address taken.
            Packet { socket: Arc::downgrade(self), data, len, peer, local, from, birth: Birth::default() }
        });
        self.buffers.push(buffer);
        packet
    }

    /// Takes a datagram into the caller's buffer.
    pub(crate) fn receive_into(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let is_for_all = self.local.ip().is_some_and(|ip| ip.is_unspecified());
        let message = datagram::receive(self.fd.as_fd(), buffer, is_for_all)?;
        let peer = message.peer.as_ref().map_or(Addr::Unnamed, addr_of);
        Ok(Received { len: message.len, peer, to: message.to, from: message.from })
    }

    /// Returns the address that a datagram was sent to.
    pub(crate) fn local_of(&self, received: &Received) -> Addr {
        match (received.to, self.local.port()) {
            (Some(mut to), Some(port)) => {
                to.set_port(port);
                Addr::Ip(to)
            }
            _ => self.local.clone(),
        }
    }

    /// Sends one datagram without a wait. If the kernel refuses the source, it chooses one itself.
    pub(crate) fn send(&self, bytes: &[u8], to: &Addr, from: Option<SocketAddr>) -> io::Result<()> {
        match send(self.fd.as_fd(), bytes, to, from) {
            // A network's broadcast address looks like any other, and cannot be a source. An IPv6 socket is
            // not told that it was one. A failure with another cause occurs again, and is returned.
            Err(e) if from.is_some() && is_no_source(&e) => send(self.fd.as_fd(), bytes, to, None),
            sent => sent,
        }
    }

    /// Connects: from now on only this peer's datagrams are received. Returns the peer's name, as its
    /// datagrams have it.
    pub(crate) fn connect(&self, to: &Addr) -> io::Result<Addr> {
        connect(self.fd.as_fd(), to)
    }

    /// Returns the most bytes that a datagram to this address can have.
    pub(crate) fn longest_to(&self, to: &Addr) -> usize {
        match to.ip() {
            Some(IpAddr::V4(_)) => LONGEST_V4,
            Some(IpAddr::V6(_)) => LONGEST_V6,
            None => datagram::send_buffer(self.fd.as_fd()),
        }
    }
}

fn addr_of(name: &SockaddrStorage) -> Addr {
    if let Some(ip) = name.as_sockaddr_in() {
        return Addr::Ip(SocketAddr::from(*ip));
    }
    if let Some(ip) = name.as_sockaddr_in6() {
        return Addr::Ip(SocketAddr::from(*ip));
    }
    let unix = name.as_unix_addr();
    match (unix.and_then(UnixAddr::path), unix.and_then(UnixAddr::as_abstract)) {
        (Some(path), _) => Addr::Unix(path.to_owned()),
        (_, Some(name)) => Addr::Abstract(name.to_owned()),
        (None, None) => Addr::Unnamed,
    }
}

/// Sends one datagram, without a wait and without `SIGPIPE`. `from` is the source address, for a socket that
/// is bound to all addresses. [`Addr::Unnamed`] is the peer that the socket is connected to.
fn send(fd: BorrowedFd<'_>, bytes: &[u8], to: &Addr, from: Option<SocketAddr>) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let (fd, parts) = (fd.as_raw_fd(), [IoSlice::new(bytes)]);
    let unix = |addr: nix::Result<UnixAddr>| sock::sendmsg(fd, &parts, &[], flags, Some(&addr?));
    let sent = match to {
        Addr::Ip(to) => {
            let to = SockaddrStorage::from(*to);
            // A socket that is bound to 0.0.0.0 replies from the address that the routing table picks. On a
            // machine with several addresses that may be another one than the client has asked, and its
            // firewall drops the reply. So the source is set (`IP_PKTINFO`).
            match from {
                None => sock::sendmsg(fd, &parts, &[], flags, Some(&to)),
                Some(SocketAddr::V4(from)) => {
                    let ipi_spec_dst = libc::in_addr { s_addr: u32::from_ne_bytes(from.ip().octets()) };
                    let ipi_addr = libc::in_addr { s_addr: 0 };
                    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr };
                    sock::sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))
                }
                Some(SocketAddr::V6(from)) => {
                    let ipi6_addr = libc::in6_addr { s6_addr: from.ip().octets() };
                    // 0 for an address that is not link-local: the route decides about the interface.
                    let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: from.scope_id() };
                    sock::sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))
                }
            }
        }
        Addr::Unix(path) => unix(UnixAddr::new(path)),
        Addr::Abstract(name) => unix(UnixAddr::new_abstract(name)),
        Addr::Unnamed => sock::sendmsg::<()>(fd, &parts, &[], flags, None),
    };
    Ok(sent.map(drop)?)
}

/// Connects the socket to one peer: only its datagrams are received, and the network's errors about it.
/// Returns the name that its datagrams have. That may differ from `to`: 0.0.0.0 is this host, and a file has
/// many paths.
fn connect(fd: BorrowedFd<'_>, to: &Addr) -> io::Result<Addr> {
    let fd = fd.as_raw_fd();
    let connected = match to {
        Addr::Ip(to) => sock::connect(fd, &SockaddrStorage::from(*to)),
        Addr::Unix(path) => UnixAddr::new(path).and_then(|to| sock::connect(fd, &to)),
        Addr::Abstract(name) => UnixAddr::new_abstract(name).and_then(|to| sock::connect(fd, &to)),
        Addr::Unnamed => Err(Errno::EDESTADDRREQ),
    };
    connected?;
    let name = sock::getpeername::<SockaddrStorage>(fd).map(|name| addr_of(&name));
    // For port 0 the kernel keeps no name.
    Ok(name.unwrap_or_else(|_| to.clone()))
}

/// True if the source may be the cause: it is not an address of this machine, or there is no route from it
/// (ip(7), ipv6(7)). The error number depends on the kernel and the family.
fn is_no_source(e: &io::Error) -> bool {
    let why = e.raw_os_error().map(Errno::from_raw);
    matches!(why, Some(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH))
}

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The socket or the network allows less.
    TooLong,
    /// No process has the Unix socket any more.
    Gone,
    /// Nothing can be sent to this address. That is the sender's fault, if it has claimed this address.
    NoReply,
    /// Something else.
    Other,
}

impl Unsent {
    pub(crate) fn of(e: &io::Error, to: &Addr) -> Self {
        use Errno::{EACCES, EINVAL, ELOOP, ENOTCONN, ENOTDIR, EPERM, EPROTOTYPE};
        match (e.raw_os_error().map(Errno::from_raw), to) {
            (Some(Errno::EMSGSIZE), _) => Self::TooLong,
            (Some(Errno::ENOENT | Errno::ECONNREFUSED), _) => Self::Gone,
            // Port 0, and an address of a network without an interface. A broadcast address.
            (Some(EINVAL | EACCES), Addr::Ip(_)) => Self::NoReply,
            // A firewall refuses it, and much else that the sender has not chosen.
            (_, Addr::Ip(_)) => Self::Other,
            // A path that leads elsewhere by now, a file of other rights, a socket that is connected to another.
            (Some(EACCES | EINVAL | ELOOP | ENOTDIR | EPERM | EPROTOTYPE), _) => Self::NoReply,
            (Some(ENOTCONN), Addr::Unnamed) => Self::NoReply,
            _ => Self::Other,
        }
    }
}

/// Returns the error of a datagram to a Unix socket that no process has.
pub(crate) fn gone(to: &Addr) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("no process has the socket {to}"))
}

/// Returns the error of a reply that cannot be sent to the address that the peer has claimed.
pub(crate) fn no_reply_to(peer: &Addr, e: &io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, PeerFault::new(format!("no reply can reach {peer}: {e}")))
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
    pub(crate) from: Option<SocketAddr>,
    pub(crate) birth: Birth,
}

impl Arrival for Packet {
    fn peer(&self) -> &Addr {
        &self.peer
    }

    fn local_addr(&self) -> Addr {
        self.local.clone()
    }

    /// Returns `None`: a datagram socket has no peer of its own.
    fn peer_credentials(&self) -> Option<PeerCredentials> {
        None
    }

    fn birth(&mut self) -> &mut Birth {
        &mut self.birth
    }

    fn say(&self, message: &[u8]) {
        if let (Some(socket), false) = (self.socket.upgrade(), self.peer == Addr::Unnamed) {
            let _ = socket.send(message, &self.peer, self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    fn bound_to_all(address: &str) -> Option<DatagramSocket> {
        let fd = datagram::bind_udp(address.parse().unwrap(), None).ok()?;
        let socket = UdpSocket::from(fd);
        let local = Addr::Ip(socket.local_addr().unwrap());
        Some(DatagramSocket::new(socket.into(), local))
    }

    /// The broadcast address of a network is not an address of the machine.
    #[test]
    fn the_kernel_chooses_if_the_source_is_refused() {
        let cases = [
            ("0.0.0.0:0", "127.0.0.1:0", "", "192.0.2.1"),
            ("0.0.0.0:0", "127.0.0.1:0", "", "127.255.255.255"),
            ("0.0.0.0:0", "127.0.0.1:0", "", "255.255.255.255"),
            ("[::]:0", "127.0.0.1:0", "::ffff:127.0.0.1", "::ffff:127.255.255.255"),
            ("[::]:0", "[::1]:0", "", "2001:db8::1"),
        ];
        for (address, client, mapped, source) in cases {
            let (Some(socket), Ok(client)) = (bound_to_all(address), UdpSocket::bind(client)) else { continue };
            client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut to = client.local_addr().unwrap();
            if let Ok(ip) = mapped.parse() {
                to.set_ip(ip);
            }
            let from = Some(SocketAddr::new(source.parse().unwrap(), 0));
            socket.send(b"reply", &to.into(), from).unwrap_or_else(|e| panic!("{address} from {source}: {e}"));
            assert_eq!(client.recv(&mut [0; 10]).unwrap(), 5, "once");
        }
    }

    /// A failure with another cause than the source is returned.
    #[test]
    fn other_failures_are_returned() {
        let socket = bound_to_all("0.0.0.0:0").unwrap();
        let (to, from) = (Addr::Ip("127.0.0.1:9".parse().unwrap()), Some("127.0.0.1:0".parse().unwrap()));
        let e = socket.send(&[0; LONGEST_V4 + 1], &to, from).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(Errno::EMSGSIZE as i32));
        let nowhere = Addr::Ip("127.0.0.1:0".parse().unwrap());
        assert_eq!(socket.send(b"", &nowhere, from).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
