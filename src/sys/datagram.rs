//! Datagram sockets: bound, and received from whole, with the real length and the address that was sent to.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt;
use nix::sys::socket::{self as sock, AddressFamily, SockaddrLike, SockaddrStorage};

use super::socket::{open, Act, SockType};

/// Opens and binds a UDP socket; on failure says at which act. Without `SO_REUSEADDR`, which on Linux lets
/// another socket have the same address and take its datagrams.
pub(crate) fn bind_udp(addr: SocketAddr, only_v6: Option<bool>) -> Result<OwnedFd, (Act, io::Error)> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = open(family, SockType::Datagram)?;
    let set = |act: Act, done: nix::Result<()>| done.map_err(|e| (act, io::Error::from(e)));
    if let (AddressFamily::Inet6, Some(only)) = (family, only_v6) {
        set("set IPV6_V6ONLY on", sock::setsockopt(&fd, sockopt::Ipv6V6Only, &only))?;
    }
    tell_destination(fd.as_fd(), addr)?;
    sock::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)).map_err(|e| ("bind", e.into()))?;
    Ok(fd)
}

/// Lets the kernel say of each datagram which address it was sent to. A socket that is bound to one address needs
/// no word of it.
pub(crate) fn tell_destination(fd: BorrowedFd<'_>, bound: SocketAddr) -> Result<(), (Act, io::Error)> {
    let set = |act: Act, done: nix::Result<()>| done.map_err(|e| (act, io::Error::from(e)));
    match bound {
        _ if !bound.ip().is_unspecified() => Ok(()),
        SocketAddr::V4(_) => set("set IP_PKTINFO on", sock::setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)),
        SocketAddr::V6(_) => set("set IPV6_RECVPKTINFO on", sock::setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)),
    }
}

/// What a datagram came with, as the kernel says it.
#[derive(Debug)]
pub(crate) struct Message {
    /// How long it is; more than the buffer holds is lost.
    pub(crate) len: usize,
    /// `None` for a sender that the kernel has no name of.
    pub(crate) peer: Option<SockaddrStorage>,
    /// Where it was sent to, on a socket that is bound to all addresses.
    pub(crate) to: Option<SocketAddr>,
    /// Where an answer comes from: the same, unless many hear that address.
    pub(crate) from: Option<SocketAddr>,
}

/// Room for one control message, `in6_pktinfo`'s at the most, aligned as its header wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Takes one datagram from the kernel's queue, without a wait. `asks_destination`: a UDP socket that is bound to all
/// addresses.
///
/// Other sockets get no control buffer. A peer may pass descriptors over a Unix socket (`SCM_RIGHTS`): without such a
/// buffer the kernel closes them at once (unix(7)). With one, each would stay open here. UDP passes none.
///
/// The name begins as zeroes: the kernel writes none for a Unix client without a name. (nix 0.31 leaves the address
/// uninitialised there.)
pub(crate) fn receive(fd: BorrowedFd<'_>, buf: &mut [u8], asks_destination: bool) -> io::Result<Message> {
    // SAFETY: sockaddr_storage is plain integers, for which all zeroes is a value.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: msghdr is plain integers and pointers, for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = std::ptr::addr_of_mut!(name).cast();
    message.msg_namelen = std::mem::size_of_val(&name) as libc::socklen_t;
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if asks_destination {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every pointer of `message` is to memory of ours that lives through the call, with its own length.
    let received = Errno::result(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) })?;
    // SAFETY: the kernel has written `msg_namelen` bytes of an address into `name`; the rest is zero.
    let peer = unsafe { SockaddrStorage::from_raw(std::ptr::addr_of!(name).cast(), Some(message.msg_namelen)) };
    let (to, from) = sent_to(&message);
    let len = usize::try_from(received).unwrap_or(0); // MSG_TRUNC: the real one
    Ok(Message { len, peer, to, from })
}

/// The addresses in the control messages of a received one: where it was sent to, and where an answer comes
/// from. They have no port.
fn sent_to(message: &libc::msghdr) -> (Option<SocketAddr>, Option<SocketAddr>) {
    // SAFETY: the kernel has filled the control buffer, and set its length to what it has written.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: a header that CMSG_FIRSTHDR or CMSG_NXTHDR gives is within that buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel has put an in_pktinfo behind a header of this type.
                let info: libc::in_pktinfo =
                    unsafe { libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().read_unaligned() };
                let ip = |addr: libc::in_addr| Some(SocketAddr::new(addr.s_addr.to_ne_bytes().into(), 0));
                return (ip(info.ipi_addr), ip(info.ipi_spec_dst));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel has put an in6_pktinfo behind a header of this type.
                let info: libc::in6_pktinfo =
                    unsafe { libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().read_unaligned() };
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let many = ip.to_canonical();
                let one = !many.is_multicast() && !matches!(many, IpAddr::V4(ip) if ip.is_broadcast());
                // Only such an address means a different one on each interface.
                let scope = if is_link_local(ip) { info.ipi6_ifindex } else { 0 };
                let to = SocketAddr::V6(SocketAddrV6::new(ip, 0, 0, scope));
                return (Some(to), Some(to).filter(|_| one));
            }
            _ => {}
        }
        // SAFETY: `header` is of this very message.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (None, None)
}

/// True for fe80::/10, and for a group of the network of one interface (RFC 4007).
fn is_link_local(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    (first == 0xfe && second & 0xc0 == 0x80) || (first == 0xff && matches!(second & 0xf, 1 | 2))
}

/// The most bytes of one datagram of a Unix socket: its send buffer, less what the kernel keeps of it.
pub(crate) fn send_buffer(fd: BorrowedFd<'_>) -> usize {
    sock::getsockopt(&fd, sockopt::SndBuf).unwrap_or(usize::MAX).saturating_sub(32)
}
