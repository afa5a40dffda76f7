//! One listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::errno::Errno;

use super::address::Addr;
use super::file::SocketFile;
use crate::connection::Socket;
use crate::error::{Error, Result};
use crate::sys::{process, socket};

/// A connection as the kernel hands it over. The peer's address comes from `accept`: `getpeername` fails for a peer
/// that has already reset.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) peer: Addr,
}

/// What a failed `accept` means for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// Nothing has failed: another thread was faster, or a signal came.
    Nothing,
    /// Only this one connection is gone: go on.
    Gone,
    /// This process has no descriptor left (EMFILE): wait until one of its connections ends.
    NoDescriptor,
    /// The system lacks something (ENFILE, ENOBUFS, ENOMEM), or says what nobody expects: wait, then go on.
    System,
    /// The listener is of no use any more.
    Fatal,
}

impl AcceptError {
    /// As accept(2) sorts them: pending network errors of the new connection are like `EAGAIN`.
    pub(crate) fn of(e: &io::Error) -> Self {
        match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
            Errno::EAGAIN | Errno::EINTR => Self::Nothing,
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENONET
            | Errno::EOPNOTSUPP
            | Errno::ETIMEDOUT
            | Errno::EPERM => Self::Gone,
            Errno::EMFILE => Self::NoDescriptor,
            Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EFAULT => Self::Fatal,
            _ => Self::System,
        }
    }
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listening socket: non-blocking, since several workers, or processes, may race for a connection.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    local: Addr,
    /// The file that we made. It goes after the socket, so that its lock is held until then.
    _file: Option<SocketFile>,
    /// Whether accepting on it has failed for good.
    lost: AtomicBool,
    /// Failures that a test has ordered.
    #[cfg(feature = "testing")]
    script: Option<super::failing::Failures>,
}

impl Listener {
    pub(crate) fn tcp(listener: TcpListener, local: SocketAddr) -> Self {
        process::own(&listener);
        Self::of(Kind::Tcp(listener), Addr::Ip(local), None)
    }

    pub(crate) fn unix(listener: UnixListener, local: &UnixSocketAddr, file: Option<SocketFile>) -> Self {
        process::own(&listener);
        Self::of(Kind::Unix(listener), Addr::from_unix(local), file)
    }

    fn of(kind: Kind, local: Addr, file: Option<SocketFile>) -> Self {
        Self {
            kind,
            local,
            _file: file,
            lost: AtomicBool::new(false),
            #[cfg(feature = "testing")]
            script: None,
        }
    }

    /// Takes over a listener that fails as a test says.
    #[cfg(feature = "testing")]
    pub(crate) fn adopt_failing(listener: super::failing::FailingListener) -> Result<Self> {
        let (listener, script) = listener.into_parts();
        let mut this = Self::adopt_tcp(listener)?;
        this.script = Some(script);
        Ok(this)
    }

    /// Takes over a socket that listens already; its file, if any, stays its maker's.
    pub(crate) fn adopt_tcp(listener: TcpListener) -> Result<Self> {
        let local = adopt(&listener, listener.local_addr(), listener.set_nonblocking(true))?;
        Ok(Self::tcp(listener, local))
    }

    /// As [`adopt_tcp`](Self::adopt_tcp).
    pub(crate) fn adopt_unix(listener: UnixListener) -> Result<Self> {
        let local = adopt(&listener, listener.local_addr(), listener.set_nonblocking(true))?;
        Ok(Self::unix(listener, &local, None))
    }

    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        #[cfg(feature = "testing")]
        if let Some(errno) = self.script.as_ref().and_then(super::failing::Failures::next) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match &self.kind {
            Kind::Tcp(l) => l.accept().map(|(s, peer)| Accepted { socket: Socket::Tcp(s), peer: Addr::Ip(peer) }),
            Kind::Unix(l) => {
                l.accept().map(|(s, peer)| Accepted { socket: Socket::Unix(s), peer: Addr::from_unix(&peer) })
            }
        }
    }

    /// It has failed for good; whether this is news.
    pub(crate) fn lose(&self) -> bool {
        !self.lost.swap(true, SeqCst)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(SeqCst)
    }

    pub(crate) fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// How many connections wait to be accepted, where the kernel tells.
    pub(crate) fn queued(&self) -> Option<usize> {
        match &self.kind {
            Kind::Tcp(l) => socket::accept_queue(l.as_fd()),
            Kind::Unix(_) => None,
        }
    }
}

fn adopt<A>(fd: &impl AsFd, local: io::Result<A>, unblocked: io::Result<()>) -> Result<A> {
    let failed = |act, source| Error::Listen { act, address: "the given socket".to_owned(), source };
    let local = local.map_err(|e| failed("ask for the address of", e))?;
    unblocked.map_err(|e| failed("make non-blocking", e))?;
    match socket::is_listening_stream(fd.as_fd()) {
        Ok(true) => Ok(local),
        Ok(false) => Err(failed("use", io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"))),
        Err(e) => Err(failed("use", e)),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(l) => l.as_fd(),
            Kind::Unix(l) => l.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        process::disown(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_s_failures_are_sorted_as_accept_2_says() {
        use Errno as E;
        let gone = [
            E::ECONNABORTED,
            E::EPROTO,
            E::ENOPROTOOPT,
            E::ENETDOWN,
            E::ENETUNREACH,
            E::EHOSTDOWN,
            E::EHOSTUNREACH,
            E::ENONET,
            E::EOPNOTSUPP,
            E::ETIMEDOUT,
            E::EPERM,
        ];
        let system = [E::ENFILE, E::ENOBUFS, E::ENOMEM, E::EIO];
        let fatal = [E::EBADF, E::EINVAL, E::ENOTSOCK, E::EFAULT];
        let of = |errno: &Errno| AcceptError::of(&io::Error::from_raw_os_error(*errno as i32));
        [E::EAGAIN, E::EINTR].iter().for_each(|e| assert_eq!(of(e), AcceptError::Nothing, "{e}"));
        gone.iter().for_each(|e| assert_eq!(of(e), AcceptError::Gone, "{e}"));
        assert_eq!(of(&E::EMFILE), AcceptError::NoDescriptor);
        system.iter().for_each(|e| assert_eq!(of(e), AcceptError::System, "{e}"));
        fatal.iter().for_each(|e| assert_eq!(of(e), AcceptError::Fatal, "{e}"));
    }
}
