//! The kinds of socket a connection can have.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::net::Addr;
use crate::sys::socket;

/// A connected socket: an enum, so that the plain path has no virtual call.
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

/// Who was at the other end of a Unix socket when it connected, by the kernel's word (`SO_PEERCRED`, unix(7)): from
/// [`Connection::peer_credentials`](crate::Connection::peer_credentials) and
/// [`Transport::peer_credentials`](crate::Transport::peer_credentials). What the process has become since, other user
/// or other program, does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerCredentials {
    /// The process. It may have ended, and its number be another's by now; 0 if it is in a pid namespace that is not
    /// seen from here.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Socket {
    /// `None` for TCP.
    pub(crate) fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        let Self::Unix(unix) = self else { return Ok(None) };
        let (pid, uid, gid) = socket::peer_credentials(unix.as_fd())?;
        Ok(Some(PeerCredentials { pid: u32::try_from(pid).unwrap_or(0), uid, gid }))
    }

    /// What a hang-up means: why the connection is broken, or that the peer has closed it in order, which only a Unix
    /// socket tells in this way, or a TCP socket whose own writing half was `shut`.
    pub(crate) fn hang_up(&self, shut: bool) -> Option<io::Error> {
        match self {
            Self::Unix(s) => s.take_error().unwrap_or_else(Some),
            Self::Tcp(s) if shut => s.take_error().unwrap_or_else(Some),
            Self::Tcp(s) => Some(socket::pending_error(s.as_fd())),
        }
    }

    /// Of no effect but for TCP.
    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_nodelay(on),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Of no effect but for TCP.
    pub(crate) fn set_keep_alive(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(s) => socket::set_keep_alive(s.as_fd(), time),
            Self::Unix(_) => Ok(()),
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
