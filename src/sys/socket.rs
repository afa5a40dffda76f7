//! Sockets: made with our own backlog, read and written without `SIGPIPE`, asked about what is still queued.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::libc;
use nix::sys::socket::sockopt;
use nix::sys::socket::{
    self as sock, AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockaddrLike, SockaddrStorage,
};
use nix::sys::stat::{fchmod, Mode};
use nix::sys::time::{TimeVal, TimeValLike};

use super::number::{clamped, LONGEST_WAIT};
use super::raw;

pub(crate) use nix::sys::socket::SockType;

/// A step of opening a listener, as its error names it.
pub(crate) type Act = &'static str;

/// Options of a listening TCP socket. Accepted sockets inherit no-delay, keep-alive and its times, at
/// no call each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TcpOptions {
    pub(crate) backlog: i32,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: Option<bool>,
    pub(crate) no_delay: bool,
    pub(crate) keep_alive: bool,
    pub(crate) keep_alive_time: Option<Duration>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            reuse_port: false,
            only_v6: None,
            no_delay: true,
            keep_alive: true,
            keep_alive_time: None,
        }
    }
}

/// Opens, binds and listens; on failure says at which act.
pub(crate) fn listen_tcp(addr: SocketAddr, options: TcpOptions) -> Result<OwnedFd, (Act, io::Error)> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = open(family, SockType::Stream)?;
    let set = |act: Act, done: nix::Result<()>| done.map_err(|e| (act, io::Error::from(e)));
    set("set SO_REUSEADDR on", sock::setsockopt(&fd, sockopt::ReuseAddr, &true))?;
    if options.reuse_port {
        set("set SO_REUSEPORT on", sock::setsockopt(&fd, sockopt::ReusePort, &true))?;
    }
    if let (AddressFamily::Inet6, Some(only)) = (family, options.only_v6) {
        set("set IPV6_V6ONLY on", sock::setsockopt(&fd, sockopt::Ipv6V6Only, &only))?;
    }
    set_inherited_options(&fd, options)?;
    sock::bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)).map_err(|e| ("bind", e.into()))?;
    listen(&fd, options.backlog)?;
    Ok(fd)
}

/// Sets the options that accepted sockets inherit. They may be set at any time.
pub(crate) fn set_inherited_options(fd: &impl AsFd, options: TcpOptions) -> Result<(), (Act, io::Error)> {
    let set = |act: Act, done: nix::Result<()>| done.map_err(|e| (act, io::Error::from(e)));
    set("set TCP_NODELAY on", sock::setsockopt(fd, sockopt::TcpNoDelay, &options.no_delay))?;
    set("set SO_KEEPALIVE on", sock::setsockopt(fd, sockopt::KeepAlive, &options.keep_alive))?;
    match (options.keep_alive, options.keep_alive_time) {
        (true, Some(time)) => set("set TCP_KEEPIDLE on", bound_silence(fd, time)),
        _ => Ok(()),
    }
}

/// Probes that a peer may leave unanswered.
const PROBES: u32 = 5;

/// The times that [`bound_silence`] can keep, in seconds: a second between two probes, and the kernel's
/// `TCP_KEEPIDLE`.
pub(crate) const SILENCE: RangeInclusive<u64> = 6..=32_767;

/// A vanished peer is given up after this time. Probes take half of it. Bytes that nobody acknowledges wait no longer
/// either (`TCP_USER_TIMEOUT`, which then counts instead of the number of probes).
fn bound_silence(fd: &impl AsFd, time: Duration) -> nix::Result<()> {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let between = (seconds / (2 * PROBES)).max(1);
    sock::setsockopt(fd, sockopt::TcpKeepIdle, &seconds.saturating_sub(PROBES * between).max(1))?;
    sock::setsockopt(fd, sockopt::TcpKeepInterval, &between)?;
    sock::setsockopt(fd, sockopt::TcpKeepCount, &PROBES)?;
    sock::setsockopt(fd, sockopt::TcpUserTimeout, &seconds.saturating_mul(1000))
}

/// Of a connected TCP socket: probes, and the time after which a silent peer is given up; `None`: no probes.
pub(crate) fn set_keep_alive(fd: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<()> {
    if let Some(time) = time.filter(|time| !SILENCE.contains(&time.as_secs())) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{time:?} is not from 6 to 32767 s")));
    }
    sock::setsockopt(&fd, sockopt::KeepAlive, &time.is_some())?;
    match time {
        Some(time) => Ok(bound_silence(&fd, time)?),
        None => Ok(sock::setsockopt(&fd, sockopt::TcpUserTimeout, &0)?),
    }
}

/// A Unix socket, bound to an address that the caller has made sure is free. On Linux the file's mode is that
/// of the socket, less the umask, from the moment it is there.
pub(crate) fn bind_unix(addr: &sock::UnixAddr, kind: SockType, mode: Option<u32>) -> Result<OwnedFd, (Act, io::Error)> {
    let fd = open(AddressFamily::Unix, kind)?;
    if let Some(mode) = mode {
        fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(|e| ("set the mode of", e.into()))?;
    }
    sock::bind(fd.as_raw_fd(), addr).map_err(|e| ("bind", e.into()))?;
    Ok(fd)
}

/// True if any process has a socket that is bound to this file. A datagram socket asks, because that disturbs nobody.
/// For a stream socket the kernel answers that it is of another type (EPROTOTYPE), even if it does not listen yet.
pub(crate) fn is_bound(path: &Path) -> io::Result<bool> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = sock::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    match sock::connect(probe.as_raw_fd(), &sock::UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(false),
        // EPERM: another datagram socket's, connected to its own peer.
        Ok(()) | Err(Errno::EPROTOTYPE | Errno::EPERM) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Returns the process, the user and the group that were at the other end of a Unix socket when it connected
/// (`SO_PEERCRED`).
pub(crate) fn peer_credentials(fd: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    let peer = sock::getsockopt(&fd, sockopt::PeerCredentials)?;
    Ok((peer.pid(), peer.uid(), peer.gid()))
}

/// A socket that is neither blocking nor inherited by programs that are started.
pub(super) fn open(family: AddressFamily, kind: SockType) -> Result<OwnedFd, (Act, io::Error)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    sock::socket(family, kind, flags, None).map_err(|e| ("open a socket for", e.into()))
}

/// A socket to connect from, with the options that accepted ones have.
pub(crate) fn open_tcp(to: SocketAddr, from: Option<SocketAddr>) -> Result<OwnedFd, (Act, io::Error)> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = open(family, SockType::Stream)?;
    let set = |act: Act, done: nix::Result<()>| done.map_err(|e| (act, io::Error::from(e)));
    set("set TCP_NODELAY to connect to", sock::setsockopt(&fd, sockopt::TcpNoDelay, &true))?;
    set("set SO_KEEPALIVE to connect to", sock::setsockopt(&fd, sockopt::KeepAlive, &true))?;
    if let Some(from) = from {
        // A port that is chosen when the peer is known may serve other peers as well; a port that was given,
        // again at once.
        match from.port() {
            0 => sock::setsockopt(&fd, sockopt::IpBindAddressNoPort, &true),
            _ => sock::setsockopt(&fd, sockopt::ReuseAddr, &true),
        }
        .map_err(|e| ("set the local address to connect to", e.into()))?;
        sock::bind(fd.as_raw_fd(), &SockaddrStorage::from(from))
            .map_err(|e| ("bind the local address to connect to", e.into()))?;
    }
    Ok(fd)
}

/// The same for a Unix socket.
pub(crate) fn open_unix() -> Result<OwnedFd, (Act, io::Error)> {
    open(AddressFamily::Unix, SockType::Stream)
}

/// Begins to connect. True if that is done already. The socket is writable once it is, or has failed.
pub(crate) fn connect(fd: BorrowedFd<'_>, to: &dyn sock::SockaddrLike) -> io::Result<bool> {
    match sock::connect(fd.as_raw_fd(), to) {
        Ok(()) => Ok(true),
        Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// True if a socket that was to be connected is so now; or the error with which it has failed.
pub(crate) fn is_connected(fd: BorrowedFd<'_>) -> io::Result<bool> {
    match sock::getsockopt(&fd, sockopt::SocketError)? {
        0 => Ok(sock::getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Lets clients connect.
pub(crate) fn listen(fd: &impl AsFd, backlog: i32) -> Result<(), (Act, io::Error)> {
    let backlog = Backlog::new(backlog).unwrap_or(Backlog::MAXCONN);
    sock::listen(fd, backlog).map_err(|e| ("listen on", e.into()))
}

/// What a socket of unknown origin is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketFacts {
    pub(crate) family: AddressFamily,
    pub(crate) kind: SockType,
    pub(crate) listens: bool,
    pub(crate) is_connected: bool,
}

/// Asks what a socket is. It fails with `ENOTSOCK` for another kind of descriptor.
pub(crate) fn facts(fd: BorrowedFd<'_>) -> io::Result<SocketFacts> {
    let kind = sock::getsockopt(&fd, sockopt::SockType)?;
    let listens = sock::getsockopt(&fd, sockopt::AcceptConn)?;
    let family = sock::getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family();
    let is_connected = sock::getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok();
    Ok(SocketFacts { family: family.unwrap_or(AddressFamily::Unspec), kind, listens, is_connected })
}

/// Makes reads, writes and accepts fail with `EAGAIN` where they would wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Reads once: waits as long as the socket's receive timeout says, or not at all.
pub(crate) fn recv(fd: RawFd, buf: &mut [u8], wait: bool) -> io::Result<usize> {
    #[cfg(all(test, shuttle))]
    if wait {
        super::model::wait_readable(fd)?;
    }
    let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    Ok(sock::recv(fd, buf, flags)?)
}

/// Looks at what a read would bring, without a wait, and leaves it there.
pub(crate) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(sock::recv(fd.as_raw_fd(), buf, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?)
}

/// Writes once, never with `SIGPIPE`, both parts in one call.
pub(crate) fn send(fd: RawFd, first: &[u8], second: &[u8], wait: bool) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    if second.is_empty() {
        return raw::send(fd, first, flags.bits());
    }
    if first.is_empty() {
        return raw::send(fd, second, flags.bits());
    }
    let parts = [IoSlice::new(first), IoSlice::new(second)];
    Ok(sock::sendmsg::<()>(fd, &parts, &[], flags, None)?)
}

/// Writes many parts in one call, never with `SIGPIPE`.
pub(crate) fn send_parts(fd: RawFd, parts: &[IoSlice<'_>], wait: bool) -> io::Result<usize> {
    let flags = MsgFlags::MSG_NOSIGNAL | if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    Ok(sock::sendmsg::<()>(fd, parts, &[], flags, None)?)
}

/// Makes the close that follows a reset: what is queued on either side is given up.
pub(crate) fn reset_at_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sock::setsockopt(&fd, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?)
}

/// The error that a broken connection has pending, which is cleared.
pub(crate) fn pending_error(fd: BorrowedFd<'_>) -> io::Error {
    match sock::getsockopt(&fd, sockopt::SocketError) {
        Ok(0) => io::ErrorKind::ConnectionReset.into(),
        Ok(errno) => io::Error::from_raw_os_error(errno),
        Err(e) => e.into(),
    }
}

/// How long a blocking read may wait; `None` for ever.
pub(crate) fn set_read_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    Ok(sock::setsockopt(&fd, sockopt::ReceiveTimeout, &timeval(timeout))?)
}

/// How long a blocking write may wait; `None` for ever.
pub(crate) fn set_write_timeout(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<()> {
    Ok(sock::setsockopt(&fd, sockopt::SendTimeout, &timeval(timeout))?)
}

/// Zero means "for ever" to the kernel, so the shortest wait is a microsecond.
fn timeval(timeout: Option<Duration>) -> TimeVal {
    let micros = timeout.map_or(0, |t| t.min(LONGEST_WAIT).as_micros().max(1));
    TimeVal::microseconds(clamped(micros, i64::MAX))
}

/// `shutdown(2)` of the writing side: the peer reads the end of the stream.
pub(crate) fn shut_write(fd: RawFd) -> io::Result<()> {
    Ok(sock::shutdown(fd, Shutdown::Write)?)
}

/// Locks the whole file (flock(2)), without a wait. The lock belongs to the open file, which forked processes share:
/// closing it in one of them does not unlock it.
pub(crate) fn lock_file(file: &File) -> io::Result<()> {
    // SAFETY: flock takes two integers.
    Errno::result(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
    Ok(())
}

/// Wakes a reader that is blocked in another thread, with an end of the stream.
pub(crate) fn shut_read(fd: RawFd) -> io::Result<()> {
    let shut = sock::shutdown(fd, Shutdown::Read);
    #[cfg(all(test, shuttle))]
    super::model::changed(fd);
    Ok(shut?)
}

/// Ends both directions, for all threads and processes that use them.
pub(crate) fn shut_both(fd: RawFd) -> io::Result<()> {
    let shut = sock::shutdown(fd, Shutdown::Both);
    #[cfg(all(test, shuttle))]
    super::model::changed(fd);
    Ok(shut?)
}

/// Bytes that the peer has sent and nobody has read yet.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> io::Result<usize> {
    raw::ask(fd.as_raw_fd(), libc::FIONREAD)
}

/// Bytes that we have sent and the peer has not acknowledged (SIOCOUTQ). Zero once the connection is gone: the kernel
/// keeps its number after a reset, and nobody will acknowledge those bytes.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let n = raw::ask(fd.as_raw_fd(), libc::TIOCOUTQ)?;
    let is_gone = || sock::getpeername::<SockaddrStorage>(fd.as_raw_fd()) == Err(Errno::ENOTCONN);
    Ok(if n > 0 && is_gone() { 0 } else { n })
}
