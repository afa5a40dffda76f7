//! What a protocol may know of its connection, and set on its socket.

use std::io;
use std::time::Duration;

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::transport::Transport;
use crate::net::{Addr, PeerCredentials};

impl Transport<'_> {
    /// The connection's id, for others to write to.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The peer's address, as `accept` told it, or as it was connected to.
    pub fn peer_addr(&self) -> Addr {
        self.conn().map_or(Addr::Unnamed, |conn| conn.peer.clone())
    }

    /// Who the peer is, on a Unix socket: its process, user and group when it connected. `None` for TCP, in memory, and
    /// once the connection is gone.
    ///
    /// # Errors
    /// As getsockopt(2) fails.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.conn().map_or(Ok(None), |conn| conn.io.peer_credentials())
    }

    /// The address of the listener that accepted it; where that is closed, or this side has connected, and with
    /// [`Blocking`](crate::Blocking), that of this end.
    pub fn local_addr(&self) -> Addr {
        let Some(conn) = self.conn() else { return Addr::Unnamed };
        let of_port = |(place, number)| Some(self.cx.state.ports.list.get(place)?.local_addr(number as usize));
        conn.entry.origin.port().and_then(of_port).unwrap_or_else(|| conn.io.local_addr())
    }

    /// Whose connection it is, where this side has made it.
    pub fn connector(&self) -> Option<Connector> {
        self.conn()?.entry.origin.connector()
    }

    /// Whether small pieces of output are sent at once (`TCP_NODELAY`). As the listener, which has it on by default
    /// ([`ServerBuilder::no_delay`](crate::ServerBuilder::no_delay)). Of no effect but for TCP.
    ///
    /// # Errors
    /// As setsockopt(2) fails.
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_no_delay(on))
    }

    /// Finds out about a peer that has vanished: after this time of silence, probes included, the connection is
    /// broken; also when what was sent is not acknowledged for so long. From 6 to 32767 s, and whole seconds count;
    /// `None`: no probes. As the listener, see
    /// [`ServerBuilder::keep_alive_time`](crate::ServerBuilder::keep_alive_time). Of no effect but for TCP.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for another time, with nothing changed; else as setsockopt(2) fails.
    pub fn set_keep_alive(&mut self, time: Option<Duration>) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_keep_alive(time))
    }

    /// Whether what has arrived is to be given to the protocol now.
    pub(crate) fn wants_input(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is_open() && !conn.paused.by_protocol && !conn.is_switching())
    }

    /// Input that was read is thrown away: the connection is closed as if it were still in the kernel.
    pub(crate) fn note_unread_input(&mut self) {
        if let Some(conn) = self.conn_mut() {
            conn.watch.left_unread = true;
        }
    }

    /// The server's limit on lines.
    pub(crate) fn max_line_length(&self) -> usize {
        self.cx.state.core.settings.line_limit
    }
}
