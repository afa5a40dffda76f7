//! The lengths of the kernel's queues: how many connections or datagrams wait at a socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{recv, sendmsg, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::stat::fstat;

/// Returns the number of connections that wait at a TCP listener. `None` if the kernel does not tell it.
pub(crate) fn of_tcp_listener(fd: BorrowedFd<'_>) -> Option<usize> {
    // SAFETY: tcp_info is plain integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let len = std::mem::size_of::<libc::tcp_info>();
    option(fd, (libc::IPPROTO_TCP, libc::TCP_INFO), std::ptr::addr_of_mut!(info).cast(), len)?;
    Some(info.tcpi_unacked as usize)
}

/// The least memory that the kernel takes for a datagram, on every architecture.
const LEAST: u32 = 512;

/// Returns the most datagrams that may wait at a UDP socket. The kernel tells their memory (`SO_MEMINFO`), not their
/// number.
pub(crate) fn of_udp(fd: BorrowedFd<'_>) -> Option<usize> {
    const OF_THE_QUEUE: usize = 0;
    let mut info = [0_u32; 9];
    let len = std::mem::size_of_val(&info);
    option(fd, (libc::SOL_SOCKET, libc::SO_MEMINFO), info.as_mut_ptr().cast(), len)?;
    Some(info[OF_THE_QUEUE].div_ceil(LEAST) as usize)
}

/// Returns the most datagrams that may wait at a Unix socket (unix(7)).
pub(crate) fn of_unix_datagrams() -> Option<usize> {
    let most = std::fs::read_to_string("/proc/sys/net/unix/max_dgram_qlen").ok()?;
    // The kernel lets one more in.
    most.trim().parse::<usize>().ok().map(|most| most + 1)
}

/// Returns the number of connections that wait at a Unix listener, which sock_diag(7) knows. `None` if the kernel does
/// not tell it: it was built without `unix_diag`, or the listener is of another network namespace.
pub(crate) fn of_unix_listener(fd: BorrowedFd<'_>) -> Option<usize> {
    let inode = u32::try_from(fstat(fd).ok()?.st_ino).ok()?;
    let asked = ask(&request(inode)).ok()?;
    length(&asked)
}

fn option(fd: BorrowedFd<'_>, (level, name): (i32, i32), value: *mut libc::c_void, len: usize) -> Option<()> {
    let mut len = libc::socklen_t::try_from(len).ok()?;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and the caller has so much room there.
    let done = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value, &mut len) };
    (done == 0).then_some(())
}

/// The length of `nlmsghdr`, and of `unix_diag_msg` behind it.
const HEADER: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Asks for the lengths of the queues, and is the number of the attribute that has them.
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;

/// Makes a `nlmsghdr` and a `unix_diag_req`, about the socket with this inode.
fn request(inode: u32) -> Vec<u8> {
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]); // number and sender: one request, one answer
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [u32::MAX, inode, UDIAG_SHOW_RQLEN, u32::MAX, u32::MAX] {
        request.extend(word.to_ne_bytes());
    }
    request
}

/// Sends a request to the kernel, which answers at once.
fn ask(request: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    sendmsg::<()>(kernel.as_raw_fd(), &[IoSlice::new(request)], &[], MsgFlags::MSG_DONTWAIT, None)?;
    let mut answer = vec![0; 1024];
    let len = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    answer.truncate(len);
    Ok(answer)
}

/// Reads the length of the queue of incoming connections from an answer. `None` for an error message.
fn length(answer: &[u8]) -> Option<usize> {
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if short(4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    // Attributes: a length, which counts these four bytes too, a kind, and the value.
    let mut at = 2 * HEADER;
    loop {
        let (len, kind) = (usize::from(short(at)?), short(at + 2)?);
        if kind == UNIX_DIAG_RQLEN {
            return Some(u32::from_ne_bytes(answer.get(at + 4..at + 8)?.try_into().ok()?) as usize);
        }
        at += len.next_multiple_of(4).max(4);
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn name(what: &str) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("socketserver-queue-{what}-{}", std::process::id()))
    }

    #[test]
    fn the_kernel_tells_how_many_wait() {
        let name = name("listener").unwrap();
        let listener = UnixListener::bind_addr(&name).unwrap();
        for waiting in 0..3 {
            // A kernel without unix_diag tells nothing, and never a wrong number.
            assert!([None, Some(waiting)].contains(&of_unix_listener(listener.as_fd())));
            std::mem::forget(UnixStream::connect_addr(&name).unwrap());
        }
    }

    #[test]
    fn no_datagram_is_missed() {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(of_udp(to.as_fd()), Some(0));
        for sent in 1..20 {
            from.send_to(b"", to.local_addr().unwrap()).unwrap();
            assert!(of_udp(to.as_fd()).unwrap() >= sent);
        }
        let (to, from) =
            (UnixDatagram::bind_addr(&name("datagrams").unwrap()).unwrap(), UnixDatagram::unbound().unwrap());
        from.set_nonblocking(true).unwrap();
        let fits = (0..).take_while(|_| from.send_to_addr(b"", &to.local_addr().unwrap()).is_ok()).count();
        assert!(of_unix_datagrams().unwrap() >= fits, "{fits}");
    }

    #[test]
    fn an_answer_is_read_with_care() {
        assert_eq!(length(&[]), None);
        assert_eq!(length(&[0; 64]), None, "another kind of message");
        let mut answer = vec![0; 2 * HEADER];
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        assert_eq!(length(&answer), None, "no attribute");
        for attribute in [[6_u16, 9, 1, 0], [12, UNIX_DIAG_RQLEN, 7, 0]] {
            answer.extend(attribute.iter().flat_map(|half| half.to_ne_bytes()));
        }
        assert_eq!(length(&answer), Some(if cfg!(target_endian = "little") { 7 } else { 7 << 16 }));
    }
}
