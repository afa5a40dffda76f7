//! Connections that a handler, or the program, hands to a loop.

use crate::connection::{Detached, HandedOver};
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;

impl Context<'_> {
    /// Goes on with a connection that a handler has [detached](crate::Connection::detach), or with another connected
    /// socket of the program. The loop treats it as one of its own. The protocol gets what was read ahead first.
    /// Under TLS the loop goes on with the session.
    ///
    /// A detached connection stays with the server that has accepted it: in its counts, under its limit and its time
    /// limits, and in its drain. When that server stops, [`shutting_down`](Protocol::shutting_down) is called, and
    /// the connection ends when it is idle, or is cut at that server's drain limit. This loop's own stop ends it,
    /// too.
    ///
    /// A socket of the program's own is in no counter and under no limit of connections.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use socketserver::connection::Detached;
    /// use socketserver::{HandlerResult, Protocol, Reactor, Transport};
    ///
    /// struct Once;
    /// impl Protocol for Once {
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
    ///         transport.write(data)?;
    ///         transport.stop();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let mut reactor = Reactor::new()?;
    /// let socket = Detached::from(ours).with_unread(b"read before");
    /// reactor.call_when_running(|cx| _ = cx.adopt(socket, Once));
    /// reactor.run()?;
    /// let mut got = [0; 11];
    /// theirs.read_exact(&mut got)?;
    /// assert_eq!(&got, b"read before");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt(&mut self, connection: impl Into<Detached>, protocol: impl Protocol + 'static) -> ConnId {
        let state = &mut *self.state;
        let (handed, peer, birth, home) = connection.into().into_parts();
        let HandedOver { socket, tls, unread, limits, proxy, moved, .. } = handed;
        let io = Io::connected(socket, tls, state.time.clock.now());
        let mut conn = Conn::new(io, peer, Origin::Adopted, None, state.time.clock.now());
        (conn.entry.proxy, conn.entry.birth, conn.entry.moved) = (proxy, birth, moved);
        if home.is_some() {
            conn.limits.own = Some(Box::new(limits));
            conn.cold().home = home;
        }
        if !unread.is_empty() {
            conn.cold().leftover = unread;
            conn.paused.by_switch = true;
        }
        let id = state.conns.insert(conn);
        state.hear_stop_of_home(id);
        state.queues.deferred.push_back(Deferred::Call(Box::new(move |cx| cx.state.begin(id, Box::new(protocol)))));
        id
    }
}

impl State {
    /// Has the connection drained when the server stops that has accepted it.
    fn hear_stop_of_home(&mut self, id: ConnId) {
        let inbox = self.loops.inbox.clone();
        let Some(home) = self.conns.get_mut(id).and_then(Conn::home_mut) else { return };
        home.is_stopping = home.at_stop(move || {
            // A loop that is gone has ended its connections.
            let _ = inbox.send(Box::new(move |cx| cx.state.drain_adopted(id)));
        });
    }

    /// Drains one connection, because its server stops.
    fn drain_adopted(&mut self, id: ConnId) {
        if let Some(home) = self.conns.get_mut(id).and_then(Conn::home_mut) {
            home.is_stopping = true;
            self.mark(id); // `settle` drains it
        }
    }
}
