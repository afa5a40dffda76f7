//! [`Arrival`]: a connection or a datagram that has come to a listener, before it is admitted.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::address::Addr;
use super::socket::{PeerCredentials, Socket};
use crate::proxy::ProxyHeader;
use crate::sys::socket;
use crate::tls::Session;

/// A connection as the kernel hands it over. The peer's address comes from `accept`, because `getpeername`
/// fails after a reset. Behind a proxy it becomes the client's address, once the proxy's header has come.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) peer: Addr,
    pub(crate) proxy: Option<Arc<ProxyHeader>>,
    /// The session of TLS, once hands are shaken.
    pub(crate) tls: Option<Session>,
    pub(crate) birth: Birth,
}

/// How many bytes a connection has moved, without what TLS adds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

/// The beginning of a connection or a datagram, as observers are told of it.
#[derive(Debug, Default)]
pub(crate) struct Birth {
    /// Its number. 0: nobody has counted it.
    pub(crate) id: u64,
    /// `None` without an observer: then nobody asks for the time.
    pub(crate) record: Option<Box<BirthRecord>>,
}

/// When and where it has come.
#[derive(Debug)]
pub(crate) struct BirthRecord {
    pub(crate) local: Addr,
    pub(crate) at: Instant,
    /// The same moment, by the system's time.
    pub(crate) since: SystemTime,
    /// True once the observers were told that it is open.
    pub(crate) is_told: bool,
}

impl Accepted {
    pub(crate) fn new(socket: Socket, peer: Addr) -> Self {
        Self { socket, peer, proxy: None, tls: None, birth: Birth::default() }
    }

    /// Returns how much of the time for its greeting is used up: the wait for the proxy's header.
    pub(crate) fn waited(&self) -> Duration {
        self.proxy.as_ref().map_or(Duration::ZERO, |header| header.waited())
    }
}

/// The most bytes of a client's input that are thrown away, before it is refused with a message.
const MOST_UNREAD: usize = 64 << 10;

/// A connection or a datagram that may be admitted.
pub(crate) trait Arrival {
    fn peer(&self) -> &Addr;

    /// Returns the server's address that it has come to.
    fn local_addr(&self) -> Addr;

    /// Returns the credentials of a Unix socket's peer, if the system tells them.
    fn peer_credentials(&self) -> Option<PeerCredentials>;

    /// Returns the proxy's header, if a proxy has sent one.
    fn proxy_header(&self) -> Option<&Arc<ProxyHeader>> {
        None
    }

    fn birth(&mut self) -> &mut Birth;

    /// Sends as much of the message as the kernel takes without a wait. Nothing can be sent after it.
    fn say(&self, message: &[u8]);
}

impl Arrival for Accepted {
    fn peer(&self) -> &Addr {
        &self.peer
    }

    fn local_addr(&self) -> Addr {
        self.socket.local_addr().unwrap_or(Addr::Unnamed)
    }

    fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.socket.peer_credentials().ok().flatten()
    }

    fn proxy_header(&self) -> Option<&Arc<ProxyHeader>> {
        self.proxy.as_ref()
    }

    fn birth(&mut self) -> &mut Birth {
        &mut self.birth
    }

    fn say(&self, message: &[u8]) {
        let fd = self.socket.as_fd().as_raw_fd();
        let _ = socket::send(fd, message, &[], false);
        // The close follows. With unread input it would be a reset, which may destroy the message. So the
        // stream is ended first, and what the client has sent so far is read and thrown away.
        let _ = socket::shut_write(fd);
        let mut scratch = [0; 4 << 10];
        for _ in 0..MOST_UNREAD / scratch.len() {
            if socket::recv(fd, &mut scratch, false).unwrap_or(0) == 0 {
                break;
            }
        }
    }
}
