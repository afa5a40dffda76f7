//! The half-close: ends the connection's own stream while the peer's goes on.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, WriteHalf};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Ends the writing half (Twisted's `loseWriteConnection`, asyncio's `write_eof`). What is queued is sent, then
    /// the peer reads end of stream. Reading goes on. Later writes fail with
    /// [`WriteError::Closed`](crate::event_loop::WriteError). A second call changes nothing.
    ///
    /// The connection closes when the peer ends its half too, or has done so before
    /// ([`Eof::KeepOpen`](crate::event_loop::Eof::KeepOpen)). Then the result of
    /// [`eof_received`](crate::Protocol::eof_received) does not count. The idle limit and
    /// [`set_total_timeout`](Self::set_total_timeout) bound a peer that never ends its half. For a drain, the
    /// connection is idle once all is sent.
    ///
    /// ```
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{HandlerResult, Protocol, Transport};
    ///
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
    ///         transport.write(b"hello")?;
    ///         transport.shutdown_write();
    ///         Ok(())
    ///     }
    ///     fn data_received(
    ///         &mut self,
    ///         _transport: &mut Transport<'_>,
    ///         _data: &[u8],
    ///     ) -> HandlerResult {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut test = TestLoop::new()?;
    /// let client = test.connect(Greeter);
    /// assert_eq!(test.output(client), b"hello");
    /// assert!(test.is_ended(client) && test.is_reading(client));
    /// test.eof(client);
    /// assert!(test.is_lost(client));
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn shutdown_write(&mut self) {
        let id = self.id();
        if let Some(conn) = self.state.conns.get_mut(id).filter(|conn| conn.takes_output()) {
            conn.flow.write_half = WriteHalf::Closing;
            self.state.mark(id);
        }
    }
}

impl State {
    /// Shuts the writing half once everything is sent. If the peer's half has ended, the connection ends.
    pub(crate) fn shut_write_when_sent(&mut self, id: ConnId) {
        let closes =
            |conn: &&mut Conn| conn.is_open() && conn.out.is_empty() && conn.flow.write_half == WriteHalf::Closing;
        if self.conns.get_mut(id).filter(closes).is_none() || !self.close_tls(id) {
            return;
        }
        if let Some(conn) = self.conns.get_mut(id).filter(closes) {
            conn.io.shut_write();
            conn.flow.write_half = WriteHalf::Shut;
            if conn.paused.at_eof && !conn.paused.by_switch {
                self.end(id, LostReason::PeerClosed);
            }
        }
    }
}
