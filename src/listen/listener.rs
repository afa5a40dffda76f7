//! [`Listener`]: one listening socket.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::AddressFamily;

use super::bind::BindOptions;
use super::file::SocketFile;
use super::handover::Handed;
use crate::error::USE;
use crate::net::{Accepted, Addr, Address, DatagramSocket, Packet, Socket};
use crate::sys::datagram;
use crate::sys::process::Private;
use crate::sys::queue;
use crate::sys::socket::{self, Act, SockType};

#[derive(Debug)]
enum Kind {
    Tcp(Private<TcpListener>),
    Unix(Private<UnixListener>),
    /// Shared: a thread that sends a reply may hold it for a moment longer than the listener.
    Datagrams(Arc<DatagramSocket>),
}

/// A socket that connections or datagrams come to. It is non-blocking: several threads or processes may be
/// woken for one connection, and the losers of the race must not hang in `accept`. Accepted sockets are
/// blocking, so a read is one system call. The listener stays open between two runs: clients wait in the
/// kernel's queue for the next run. No stop closes it: a close would not wake a thread that waits for it.
#[derive(Debug)]
pub(crate) struct Listener {
    kind: Kind,
    local: Addr,
    /// The file that this listener has made. It is dropped after the socket, so the lock is held until then.
    file: Option<SocketFile>,
    /// True if the program has made the socket, and may go on to use it.
    adopted: bool,
    /// What a successor knows it by. All listeners of one bind have the same.
    bound_as: Option<Arc<str>>,
    /// True if a former process has handed it over.
    handed_over: bool,
    /// True if accepting on it has failed for good.
    lost: AtomicBool,
    /// Failures that a test has set.
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

    /// Makes a listener of a datagram socket.
    pub(crate) fn datagrams(fd: OwnedFd, local: Addr, file: Option<SocketFile>) -> Self {
        let socket = DatagramSocket::new(fd, local.clone());
        Self::of(Kind::Datagrams(Arc::new(socket)), local, file)
    }

    fn of(kind: Kind, local: Addr, file: Option<SocketFile>) -> Self {
        Self {
            kind,
            local,
            file,
            adopted: false,
            bound_as: None,
            handed_over: false,
            lost: AtomicBool::new(false),
            #[cfg(feature = "testing")]
            script: None,
        }
    }

    /// Takes over a listener whose failures a test sets.
    #[cfg(feature = "testing")]
    pub(crate) fn adopt_failing(
        listener: super::failing::FailingListener,
    ) -> std::result::Result<Self, (Act, io::Error)> {
        let (listener, script) = listener.into_parts();
        let mut this = Self::adopt(listener.into(), SockType::Stream)?;
        this.script = Some(script);
        Ok(this)
    }

    /// Takes over a socket that listens already, or that datagrams come to, with its options and its backlog.
    /// Its file, if it has one, is not removed. Otherwise a wrong socket would show as `EINVAL` at the first
    /// accept, when the server serves already.
    pub(crate) fn adopt(fd: OwnedFd, kind: SockType) -> std::result::Result<Self, (Act, io::Error)> {
        let unknown = |e| ("ask for the address of", e);
        let family = check(fd.as_fd(), kind).map_err(|e| (USE, e))?;
        socket::set_nonblocking(fd.as_fd()).map_err(|e| ("make non-blocking", e))?;
        let mut this = match (kind, family) {
            (SockType::Datagram, AddressFamily::Unix) => {
                let socket = UnixDatagram::from(fd);
                let local = Addr::from_unix(&socket.local_addr().map_err(unknown)?);
                Self::datagrams(socket.into(), local, None)
            }
            (SockType::Datagram, _) => {
                let socket = UdpSocket::from(fd);
                let local = socket.local_addr().map_err(unknown)?;
                datagram::tell_destination(socket.as_fd(), local)?;
                Self::datagrams(socket.into(), Addr::Ip(local), None)
            }
            (_, AddressFamily::Unix) => {
                let listener = UnixListener::from(fd);
                let local = listener.local_addr().map_err(unknown)?;
                Self::unix(listener, &local, None)
            }
            _ => {
                let listener = TcpListener::from(fd);
                let local = listener.local_addr().map_err(unknown)?;
                Self::tcp(listener, local)
            }
        };
        this.adopted = true;
        Ok(this)
    }

    /// Takes over a socket of a former process, with its file. Its options are set anew.
    pub(super) fn take_over(
        address: &Address,
        handed: Handed,
        options: BindOptions,
    ) -> std::result::Result<Self, (Act, io::Error)> {
        let mut this = Self::adopt(handed.socket, options.kind)?;
        this.handed_over = true;
        match (address, &this.kind) {
            // As when it was first given.
            (Address::Descriptor(_), _) => return Ok(this),
            (_, Kind::Tcp(listener)) => {
                socket::set_inherited_options(&**listener, options.tcp)?;
                socket::listen(&**listener, options.tcp.backlog)?;
            }
            (_, Kind::Unix(listener)) => socket::listen(&**listener, options.tcp.backlog)?,
            (_, Kind::Datagrams(_)) => {}
        }
        this.adopted = false;
        if let Address::Unix(path) = address {
            this.file = SocketFile::taken_over(path, handed.file)?;
        }
        Ok(this)
    }

    /// Notes what a successor knows this listener by.
    pub(super) fn is_bound_as(&mut self, name: &Arc<str>) {
        self.bound_as = Some(name.clone());
    }

    pub(super) fn bound_as(&self) -> Option<&Arc<str>> {
        self.bound_as.as_ref()
    }

    pub(super) fn file(&self) -> Option<&SocketFile> {
        self.file.as_ref()
    }

    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over
    }

    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted
    }

    pub(crate) fn accept(&self) -> io::Result<Accepted> {
        // A failure that a test has set comes before the connection, which stays in the queue.
        #[cfg(feature = "testing")]
        if let Some(failures) = &self.script {
            return failures.or(|| self.accept_next());
        }
        self.accept_next()
    }

    fn accept_next(&self) -> io::Result<Accepted> {
        // Linux hands the listener's `TCP_NODELAY` and `SO_KEEPALIVE` on to the accepted socket, but not its
        // `O_NONBLOCK`. So a connection costs no call for any of them.
        match &self.kind {
            Kind::Tcp(l) => l.accept().map(|(s, peer)| Accepted::new(Socket::Tcp(s), Addr::Ip(peer))),
            Kind::Unix(l) => l.accept().map(|(s, peer)| Accepted::new(Socket::Unix(s), Addr::from_unix(&peer))),
            // The error of accept(2) for such a socket.
            Kind::Datagrams(_) => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// Takes the next datagram. Bytes beyond `most` are lost.
    pub(crate) fn receive(&self, most: usize) -> io::Result<Packet> {
        match &self.kind {
            Kind::Datagrams(socket) => socket.receive(most),
            Kind::Tcp(_) | Kind::Unix(_) => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// Returns the socket if it is for datagrams.
    pub(crate) fn datagram_socket(&self) -> Option<&Arc<DatagramSocket>> {
        match &self.kind {
            Kind::Datagrams(socket) => Some(socket),
            Kind::Tcp(_) | Kind::Unix(_) => None,
        }
    }

    /// Makes the socket's file this process's, which serves from now on.
    pub(crate) fn serve_here(&self) {
        self.file.iter().for_each(SocketFile::serve_here);
    }

    /// True if this call is the first to mark the listener as failed for good.
    pub(crate) fn lose(&self) -> bool {
        !self.lost.swap(true, SeqCst)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(SeqCst)
    }

    pub(crate) fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// Returns the length of the kernel's queue, of datagrams the most that it may be. `None` if the kernel does not
    /// tell it.
    pub(crate) fn queued(&self) -> Option<usize> {
        match &self.kind {
            Kind::Tcp(l) => queue::of_tcp_listener(l.as_fd()),
            Kind::Unix(l) => queue::of_unix_listener(l.as_fd()),
            Kind::Datagrams(socket) if self.local.ip().is_some() => queue::of_udp(socket.as_fd()),
            Kind::Datagrams(_) => queue::of_unix_datagrams(),
        }
    }
}

/// Returns the family of a socket that a server of this kind can use.
fn check(fd: BorrowedFd<'_>, kind: SockType) -> io::Result<AddressFamily> {
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let facts = socket::facts(fd)?;
    match (kind, facts.kind) {
        (SockType::Stream, SockType::Stream) if facts.is_connected => {
            wrong("it is a connection, which `serve_one` serves")
        }
        (SockType::Stream, SockType::Stream) if !facts.listens => wrong("it does not listen"),
        (SockType::Stream, SockType::Datagram) => wrong("it is for datagrams, which `bind_udp` receives"),
        (SockType::Datagram, SockType::Stream) => wrong("it is for connections, which `bind` accepts"),
        (wanted, got) if wanted != got => wrong("it is neither for connections nor for datagrams"),
        _ => match facts.family {
            AddressFamily::Inet | AddressFamily::Inet6 | AddressFamily::Unix => Ok(facts.family),
            _ => wrong("it is neither an IP socket nor a Unix socket"),
        },
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
