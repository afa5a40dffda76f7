//! One listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

use nix::errno::Errno;

use super::file::SocketFile;
use crate::error::{Error, Result};
use crate::net::{Accepted, Addr, DatagramSocket, Packet, Socket};
use crate::sys::process::Private;
use crate::sys::socket;

#[derive(Debug)]
enum Kind {
    Tcp(Private<TcpListener>),
    Unix(Private<UnixListener>),
    /// A thread that sends a reply just now may hold it for a moment longer.
    Datagrams(Arc<DatagramSocket>),
}

/// A socket that requests come to: non-blocking, since several workers, or processes, may race for a connection or a
/// datagram.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    local: Addr,
    /// The file that we made. It goes after the socket, so that its lock is held until then.
    _file: Option<SocketFile>,
    /// Whether somebody else has made it, who may go on with it.
    adopted: bool,
    /// Whether accepting on it has failed for good.
    lost: AtomicBool,
    /// Failures that a test has ordered.
    #[cfg(feature = "testing")]
    script: Option<super::failing::Failures>,
}

impl Listener {
    pub(crate) fn tcp(listener: TcpListener, local: SocketAddr) -> Self {
        Self::of(Kind::Tcp(Private::new(listener)), Addr::Ip(local), None)
    }

    pub(crate) fn unix(listener: UnixListener, local: &UnixSocketAddr, file: Option<SocketFile>) -> Self {
        Self::of(Kind::Unix(Private::new(listener)), Addr::from_unix(local), file)
    }

    /// Nothing is listened for: a datagram needs no connection.
    pub(crate) fn datagrams(fd: OwnedFd, local: Addr, file: Option<SocketFile>) -> Self {
        let socket = DatagramSocket::new(fd, local.clone());
        Self::of(Kind::Datagrams(Arc::new(socket)), local, file)
    }

    fn of(kind: Kind, local: Addr, file: Option<SocketFile>) -> Self {
        Self {
            kind,
            local,
            _file: file,
            adopted: false,
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
        Ok(Self::tcp(listener, local).adopted())
    }

    /// As [`adopt_tcp`](Self::adopt_tcp).
    pub(crate) fn adopt_unix(listener: UnixListener) -> Result<Self> {
        let local = adopt(&listener, listener.local_addr(), listener.set_nonblocking(true))?;
        Ok(Self::unix(listener, &local, None).adopted())
    }

    fn adopted(mut self) -> Self {
        self.adopted = true;
        self
    }

    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted
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
            Kind::Datagrams(_) => Err(Errno::EOPNOTSUPP.into()), // as accept(2) answers
        }
    }

    /// Takes the next datagram; what is longer than `most` bytes is cut.
    pub(crate) fn receive(&self, most: usize) -> io::Result<Packet> {
        match &self.kind {
            Kind::Datagrams(socket) => socket.receive(most),
            Kind::Tcp(_) | Kind::Unix(_) => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// The socket, where it is one of datagrams.
    pub(crate) fn datagram_socket(&self) -> Option<&Arc<DatagramSocket>> {
        match &self.kind {
            Kind::Datagrams(socket) => Some(socket),
            Kind::Tcp(_) | Kind::Unix(_) => None,
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

    /// How many connections or datagrams wait to be taken, where the kernel tells.
    pub(crate) fn queued(&self) -> Option<usize> {
        match &self.kind {
            Kind::Tcp(l) => socket::accept_queue(l.as_fd()),
            Kind::Unix(_) | Kind::Datagrams(_) => None,
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
            Kind::Datagrams(socket) => socket.as_fd(),
        }
    }
}
