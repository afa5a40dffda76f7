//! What a protocol can ask about its connection, and set on its socket.

use std::io;
use std::time::{Duration, Instant};

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::transport::Transport;
use crate::net::{Addr, PeerCredentials};
use crate::proxy::ProxyHeader;

impl Transport<'_> {
    /// Returns the connection's id, by which other protocols write to it.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Returns the number of the connection, as [`Connection::id`](crate::Connection::id) does: an
    /// [`Observer`](crate::Observer) is told the same. 0 for a client's connection. ([`id`](Self::id) is the loop's own
    /// name of it.)
    pub fn connection_id(&self) -> u64 {
        self.conn().map_or(0, |conn| conn.entry.birth.id)
    }

    /// Returns when the connection was accepted, or connected; without an [`Observer`](crate::Observer), and with
    /// [`Blocking`](crate::Blocking), when the loop took it in. `None` once it is gone.
    pub fn started(&self) -> Option<Instant> {
        let conn = self.conn()?;
        Some(conn.entry.birth.record.as_ref().map_or(conn.limits.began, |record| record.at))
    }

    /// Returns how many bytes were read from the peer so far. Under TLS: the bytes that it protects.
    pub fn bytes_read(&self) -> u64 {
        self.conn().map_or(0, |conn| conn.entry.moved.read)
    }

    /// Returns how many bytes the kernel has taken for the peer so far; [`queued`](Self::queued) ones are not among them.
    /// Under TLS: the bytes that it protects.
    pub fn bytes_written(&self) -> u64 {
        self.conn().map_or(0, |conn| conn.entry.moved.written)
    }

    /// Returns the peer's address, as `accept` gave it, or as the client connected to it. Behind a
    /// [proxy](crate::ServerBuilder::proxy_protocol) it is the client's address, as the proxy gave it.
    pub fn peer_addr(&self) -> Addr {
        self.conn().map_or(Addr::Unnamed, |conn| conn.peer.clone())
    }

    /// Returns what the proxy has told of this connection. `None` without
    /// [`proxy_protocol`](crate::ServerBuilder::proxy_protocol), and for a connection that was served directly.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.conn()?.entry.proxy.as_deref()
    }

    /// Returns the process, user and group of the peer when it connected, on a Unix socket. `None` for TCP, in memory,
    /// and once the connection is gone.
    ///
    /// # Errors
    /// As getsockopt(2) fails.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.conn().map_or(Ok(None), |conn| conn.io.peer_credentials())
    }

    /// Returns the address of the listener that accepted the connection. It is the socket's own address if that
    /// listener is closed, for a client, and with [`Blocking`](crate::Blocking).
    pub fn local_addr(&self) -> Addr {
        let Some(conn) = self.conn() else { return Addr::Unnamed };
        let of_port = |(place, number)| Some(self.cx.state.ports.list.get(place)?.local_addr(number as usize));
        conn.entry.origin.port().and_then(of_port).unwrap_or_else(|| conn.io.local_addr())
    }

    /// Returns the client of this connection; `None` if it was accepted.
    pub fn connector(&self) -> Option<Connector> {
        self.conn()?.entry.origin.connector()
    }

    /// Sets if small pieces of output are sent at once (`TCP_NODELAY`). The default is the listener's, which has it on
    /// ([`ServerBuilder::no_delay`](crate::ServerBuilder::no_delay)). It has an effect for TCP only.
    ///
    /// # Errors
    /// As setsockopt(2) fails.
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_no_delay(on))
    }

    /// Sets after which time of silence a vanished peer breaks the connection, probes included. Output that is not
    /// acknowledged for that time breaks it too. From 6 to 32767 s, in whole seconds; `None` for no probes.
    ///
    /// The default is the listener's, see [`ServerBuilder::keep_alive_time`](crate::ServerBuilder::keep_alive_time). It
    /// has an effect for TCP only.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for another time, with nothing changed; else as setsockopt(2) fails.
    pub fn set_keep_alive(&mut self, time: Option<Duration>) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_keep_alive(time))
    }

    /// True if the protocol is to get input now.
    pub(crate) fn wants_input(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is_open() && !conn.paused.by_protocol && !conn.is_switching())
    }

    /// Notes that input was read and thrown away. The close then takes it as unread, and lingers.
    pub(crate) fn note_unread_input(&mut self) {
        if let Some(conn) = self.conn_mut() {
            conn.watch.left_unread = true;
        }
    }

    /// Returns the server's limit on lines.
    pub(crate) fn max_line_length(&self) -> usize {
        self.cx.state.core.settings.line_limit
    }
}
