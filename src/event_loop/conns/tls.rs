//! TLS on a connection that has begun without it.

use std::io;

use crate::event_loop::io::secured::Secured;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;
use crate::tls::{injected, Session, TlsClientConfig, TlsConfig, TlsInfo};

impl Transport<'_> {
    /// Returns what TLS has agreed upon. `None` without TLS, and until its handshake is done.
    pub fn tls(&self) -> Option<TlsInfo> {
        let secured = self.conn()?.io.secured()?;
        Some(secured.session().info()).filter(|_| !secured.session().is_handshaking())
    }

    /// Begins TLS on a connection that has begun without (STARTTLS of SMTP, IMAP, POP3, XMPP). What is queued is sent
    /// as it is. What is written from now on is sent after the handshake, and input that comes from now on is that of
    /// TLS. [`handshake_timeout`](crate::ServerBuilder::handshake_timeout) bounds the handshake. A handshake that fails
    /// ends the connection.
    ///
    /// `unread` is the input that the protocol has got and not consumed. It is refused: a client must wait for the
    /// answer to its STARTTLS. So such input is an attack, commands that somebody has injected, and that would count as
    /// the client's own (CVE-2011-0411). A [`LineReceiver`](crate::LineReceiver) calls
    /// [`FramedTransport::start_tls`](crate::event_loop::FramedTransport::start_tls), which knows what is unread.
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) if input is unread, [`InvalidInput`](io::ErrorKind::InvalidInput) if
    /// TLS has begun already or a [reader](Self::send_reader) is queued, [`NotConnected`](io::ErrorKind::NotConnected)
    /// if the connection is ending. Nothing was begun then.
    pub fn start_tls(&mut self, config: &TlsConfig, unread: &[u8]) -> io::Result<()> {
        self.cx.state.start_tls(self.id, unread.len(), || Session::server(config))
    }

    /// The same at the client's end of a connection, when the server has agreed to begin. `server_name` is the name
    /// that the server's certificate must have.
    ///
    /// # Errors
    /// As [`start_tls`](Self::start_tls), and [`InvalidInput`](io::ErrorKind::InvalidInput) for a name that is none.
    pub fn start_tls_client(&mut self, config: &TlsClientConfig, server_name: &str, unread: &[u8]) -> io::Result<()> {
        self.cx.state.start_tls(self.id, unread.len(), || Session::client(config, server_name))
    }
}

impl State {
    /// Puts a session above the connection's stream.
    pub(crate) fn start_tls(
        &mut self,
        id: ConnId,
        unread: usize,
        session: impl FnOnce() -> io::Result<Session>,
    ) -> io::Result<()> {
        let within = self.core.settings.handshake_timeout;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.takes_output()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        if conn.io.secured().is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS has begun already"));
        }
        if unread > 0 || has_leftover(conn) {
            return Err(injected());
        }
        let session = session()?;
        let plain = conn.out.take_bytes(&mut self.buffers.spares).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a reader is queued: begin TLS when it is sent")
        })?;
        conn.note_written(plain.len());
        let below = std::mem::replace(&mut conn.io, Io::Moved);
        conn.io = Io::Tls(Box::new(Secured::new(below, session, plain, self.time.now, within)));
        self.mark(id);
        Ok(())
    }
}

/// True if a protocol that has taken over has still to get its predecessor's input.
fn has_leftover(conn: &Conn) -> bool {
    let Some(cold) = &conn.cold else { return false };
    !cold.leftover.is_empty() || cold.next.as_ref().is_some_and(|(_, leftover)| !leftover.is_empty())
}
