//! [`Socket`]: the socket of a connection.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::net::Addr;
use crate::sys::socket;

/// A connected socket. It is an enum, so that reads and writes need no virtual call.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(crate) fn local_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Tcp(s) => s.local_addr().map(Addr::Ip),
            Self::Unix(s) => s.local_addr().map(|a| Addr::from_unix(&a)),
        }
    }
}

/// The process at the other end of a Unix socket, as the kernel tells it (`SO_PEERCRED`, unix(7)). It comes
/// from [`Connection::peer_credentials`](crate::Connection::peer_credentials) and
/// [`Transport::peer_credentials`](crate::Transport::peer_credentials). The values are those of the moment of
/// the connect: a later change of the user or the program does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process. It may have ended, and another may have its number now. 0 if it is in a pid namespace
    /// that this process cannot see.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Socket {
    /// Returns the peer's credentials. `None` for TCP.
    pub(crate) fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        let Self::Unix(unix) = self else { return Ok(None) };
        let (pid, uid, gid) = socket::peer_credentials(unix.as_fd())?;
        Ok(Some(PeerCredentials { pid: u32::try_from(pid).unwrap_or(0), uid, gid }))
    }

    /// Returns why the connection is broken after a hang-up. `None` if the peer has closed it in order. A
    /// hang-up means that only for a Unix socket, or for a TCP socket whose own writing half was `shut`.
    pub(crate) fn hang_up(&self, shut: bool) -> Option<io::Error> {
        match self {
            Self::Unix(s) => s.take_error().unwrap_or_else(Some),
            Self::Tcp(s) if shut => s.take_error().unwrap_or_else(Some),
            Self::Tcp(s) => Some(socket::pending_error(s.as_fd())),
        }
    }

    /// Sets `TCP_NODELAY`. It does nothing for a Unix socket.
    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_nodelay(on),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Sets `SO_KEEPALIVE`. It does nothing for a Unix socket.
    pub(crate) fn set_keep_alive(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => socket::set_keep_alive(s.as_fd(), time),
            Self::Unix(_) => Ok(()),
        }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        match socket {
            Socket::Tcp(s) => s.into(),
            Socket::Unix(s) => s.into(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}
