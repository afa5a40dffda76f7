//! Where a connection's bytes come from and go to.
//!
//! `Io` is the other side of a connection: a socket, an `Input`, or a test's memory. `Outbox` is the
//! queue of output, `Source` a reader in it. Nothing here knows `State` or calls the user's code, except readers.
//!
//! The walk: `Io::recv` into the shared buffer; `Outbox::push` → `Outbox::send` → `Io::send` or `Io::send_parts`.

pub(crate) mod input;
#[cfg(feature = "testing")]
pub(crate) mod memory;
pub(crate) mod outbox;
pub(crate) mod secured;
pub(crate) mod source;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::event_loop::io::input::Input;
#[cfg(feature = "testing")]
use crate::event_loop::io::memory::Memory;
use crate::event_loop::io::secured::Secured;
use crate::net::{Addr, PeerCredentials, Socket};
use crate::sys::socket;
use crate::tls::Session;

/// A socket, or what is only read from; in tests, memory.
#[derive(Debug)]
pub(crate) enum Io {
    Socket(Socket),
    /// A socket, or memory, under TLS.
    Tls(Box<Secured>),
    /// Nothing, for the moment in which a session is put above the stream that was here.
    #[cfg(feature = "__tls")]
    Moved,
    /// A descriptor that is read only.
    Input(Input),
    #[cfg(feature = "testing")]
    Memory(Memory),
}

impl Io {
    /// Makes the stream of a socket whose handshake, if it has a session, is done.
    pub(crate) fn connected(socket: Socket, tls: Option<Session>, now: Instant) -> Self {
        match tls {
            None => Self::Socket(socket),
            Some(tls) => Self::Tls(Box::new(Secured::new(Self::Socket(socket), tls, Vec::new(), now, Duration::ZERO))),
        }
    }

    /// Calls `act` with the descriptor to register with epoll. `None` if there is none.
    pub(crate) fn with_fd<R>(&self, act: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        match self {
            Self::Socket(socket) => Some(act(socket.as_fd())),
            Self::Tls(tls) => tls.below().with_fd(act),
            #[cfg(feature = "__tls")]
            Self::Moved => None,
            Self::Input(input) => input.fd().map(act),
            #[cfg(feature = "testing")]
            Self::Memory(_) => None,
        }
    }

    /// True if epoll is to watch edge-triggered. Only with TCP a short read is known to be the last. A read of a Unix
    /// socket stops at each passed descriptor, and a read of a terminal at each line.
    pub(crate) fn is_told_once(&self) -> bool {
        match self {
            Self::Socket(socket) => matches!(socket, Socket::Tcp(_)),
            Self::Tls(tls) => tls.below().is_told_once(),
            _ => false,
        }
    }

    /// Returns the address that it is bound to.
    pub(crate) fn local_addr(&self) -> Addr {
        match self {
            Self::Socket(socket) => socket.local_addr().unwrap_or(Addr::Unnamed),
            Self::Tls(tls) => tls.below().local_addr(),
            #[cfg(feature = "__tls")]
            Self::Moved => Addr::Unnamed,
            Self::Input(_) => Addr::Unnamed,
            #[cfg(feature = "testing")]
            Self::Memory(_) => Addr::Unnamed,
        }
    }

    /// Returns the peer's process and user; `None` if it is no Unix socket.
    pub(crate) fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        match self {
            Self::Socket(socket) => socket.peer_credentials(),
            Self::Tls(tls) => tls.below().peer_credentials(),
            #[cfg(feature = "__tls")]
            Self::Moved => Ok(None),
            Self::Input(_) => Ok(None),
            #[cfg(feature = "testing")]
            Self::Memory(_) => Ok(None),
        }
    }

    /// Reads once, without a wait.
    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(s) => socket::recv(s.as_fd().as_raw_fd(), buf, false),
            Self::Tls(tls) => tls.recv(buf),
            #[cfg(feature = "__tls")]
            Self::Moved => Err(io::ErrorKind::NotConnected.into()),
            Self::Input(input) => input.read(buf),
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.recv(buf),
        }
    }

    /// Writes once, without a wait.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(s) => socket::send(s.as_fd().as_raw_fd(), bytes, &[], false),
            Self::Tls(tls) => tls.send(&[IoSlice::new(bytes)]),
            #[cfg(feature = "__tls")]
            Self::Moved => Err(io::ErrorKind::NotConnected.into()),
            Self::Input(_) => Err(read_only()),
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.send(&[IoSlice::new(bytes)]),
        }
    }

    /// Writes several pieces once, without a wait.
    pub(crate) fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Socket(s) => socket::send_parts(s.as_fd().as_raw_fd(), parts, false),
            Self::Tls(tls) => tls.send(parts),
            #[cfg(feature = "__tls")]
            Self::Moved => Err(io::ErrorKind::NotConnected.into()),
            Self::Input(_) => Err(read_only()),
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.send(parts),
        }
    }

    /// True if there is unread input.
    pub(crate) fn has_unread(&self) -> bool {
        match self {
            Self::Socket(s) => socket::unread(s.as_fd()).is_ok_and(|n| n > 0),
            Self::Tls(tls) => tls.session().has_plaintext() || tls.below().has_unread(),
            #[cfg(feature = "__tls")]
            Self::Moved => false,
            Self::Input(_) => false,
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.has_input(),
        }
    }

    /// True if the peer's kernel has all of the output. A Unix socket hands it over at once.
    pub(crate) fn is_acknowledged(&self) -> bool {
        match self {
            Self::Socket(Socket::Tcp(s)) => !socket::unacknowledged(s.as_fd()).is_ok_and(|n| n > 0),
            Self::Tls(tls) => tls.below().is_acknowledged(),
            #[cfg(feature = "__tls")]
            Self::Moved => true,
            Self::Socket(Socket::Unix(_)) | Self::Input(_) => true,
            #[cfg(feature = "testing")]
            Self::Memory(_) => true,
        }
    }

    /// Shuts the writing half: the peer reads end of stream after what was sent.
    pub(crate) fn shut_write(&self) {
        match self {
            Self::Socket(s) => drop(socket::shut_write(s.as_fd().as_raw_fd())),
            Self::Tls(tls) => tls.below().shut_write(),
            #[cfg(feature = "__tls")]
            Self::Moved => {}
            Self::Input(_) => {}
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.shut_write(),
        }
    }

    /// Has the close that follows reset the connection.
    pub(crate) fn reset_at_close(&self) {
        match self {
            Self::Socket(s) => drop(socket::reset_at_close(s.as_fd())),
            Self::Tls(tls) => tls.below().reset_at_close(),
            #[cfg(feature = "__tls")]
            Self::Moved => {}
            Self::Input(_) => {}
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.reset(),
        }
    }

    /// Returns why a connection that hung up is broken; `None` if the peer has closed it in order. Only a Unix socket
    /// reports an orderly close so, or a TCP socket whose own writing half was `shut`.
    pub(crate) fn hang_up(&self, shut: bool) -> Option<io::Error> {
        match self {
            Self::Socket(socket) => socket.hang_up(shut),
            Self::Tls(tls) => tls.below().hang_up(shut),
            #[cfg(feature = "__tls")]
            Self::Moved => None,
            Self::Input(_) => None,
            #[cfg(feature = "testing")]
            Self::Memory(memory) => memory.is_broken().then(|| io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Has an effect only with TCP.
    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.set_no_delay(on),
            Self::Tls(tls) => tls.below().set_no_delay(on),
            _ => Ok(()),
        }
    }

    /// Has an effect only with TCP.
    pub(crate) fn set_keep_alive(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.set_keep_alive(time),
            Self::Tls(tls) => tls.below().set_keep_alive(time),
            _ => Ok(()),
        }
    }

    /// Takes the socket out, and its session of TLS. `None` if there is no socket.
    pub(crate) fn into_socket(self) -> Option<(Socket, Option<Session>)> {
        match self {
            Self::Socket(socket) => Some((socket, None)),
            Self::Tls(tls) => tls.into_socket(),
            _ => None,
        }
    }

    /// Returns the TLS of the connection, if it has one.
    pub(crate) fn secured(&self) -> Option<&Secured> {
        match self {
            Self::Tls(tls) => Some(tls),
            _ => None,
        }
    }

    /// True if the handshake of TLS goes on: nothing else is read or sent before its end.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.secured().is_some_and(|tls| tls.session().is_handshaking())
    }

    /// True if a read may bring something that epoll does not report.
    pub(crate) fn holds_input(&self) -> bool {
        self.secured().is_some_and(|tls| tls.session().holds_input())
    }

    /// True if TLS has something to send that is in no queue of the loop.
    pub(crate) fn wants_write(&self) -> bool {
        self.secured().is_some_and(Secured::wants_write)
    }

    /// Sends what TLS itself has to say. `WouldBlock` while the kernel does not take all of it.
    pub(crate) fn push(&self) -> io::Result<()> {
        self.secured().map_or(Ok(()), Secured::push)
    }

    /// Queues close_notify, the end of a stream under TLS. [`push`](Self::push) sends it.
    pub(crate) fn queue_close_notify(&self) {
        self.secured().into_iter().for_each(|tls| tls.session().queue_close_notify());
    }

    /// Returns the memory of a test's connection.
    #[cfg(feature = "testing")]
    pub(crate) fn memory(&self) -> Option<&Memory> {
        match self {
            Self::Memory(memory) => Some(memory),
            Self::Tls(tls) => tls.below().memory(),
            _ => None,
        }
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this connection can only be read")
}
