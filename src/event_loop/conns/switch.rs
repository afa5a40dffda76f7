//! Another protocol takes a connection over.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Paused, RequestMarks};
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::{State, READ};
use crate::panics::forget;

impl Transport<'_> {
    /// When this callback has returned, `next` has the connection (an upgrade, a negotiation that is done). The old
    /// protocol is dropped, without `connection_lost`. The new one is called first by
    /// [`connection_made`](Protocol::connection_made), then it is given `leftover`, which is what the old one was
    /// given and did not consume, and then what is read; if the peer's stream has ended already,
    /// [`eof_received`](Protocol::eof_received) follows, and the old one's answer to that does not count. What
    /// [`lines`](crate::lines) and [`strings`](crate::event_loop::strings) keep of the input follows `leftover` by itself.
    ///
    /// The connection stays what it is: its id, its groups, its limits, its queue, a pause of reading. Timers that
    /// the old protocol has set are cancelled, and a [request](Self::request_begins) that it has begun is none of the
    /// new one's. It replaces the whole protocol: from within a wrapper, the wrapper as well. If the callback fails, or
    /// the connection begins to end meanwhile, the old protocol keeps it. Of two calls in one callback the second
    /// counts.
    ///
    /// ```
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{lines, HandlerResult, LineReceiver, Protocol, Transport};
    /// use socketserver::event_loop::FramedTransport;
    ///
    /// struct Negotiation;
    /// impl LineReceiver for Negotiation {
    ///     fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
    ///         if line == b"UPGRADE" {
    ///             t.send_line("OK")?;
    ///             t.switch_protocol(Echo, b"");
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
    ///         Ok(transport.write(data)?)
    ///     }
    /// }
    ///
    /// let mut test = TestLoop::new()?;
    /// let client = test.connect(lines(Negotiation));
    /// test.feed(client, b"hello\nUPGRADE\nmore\nbytes");
    /// assert_eq!(test.output(client), b"OK\nmore\nbytes");
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn switch_protocol(&mut self, next: impl Protocol + 'static, leftover: &[u8]) {
        let id = self.id();
        if let Some(conn) = self.state.conns.get_mut(id).filter(|conn| conn.is_open()) {
            let next = conn.cold().next.replace((Box::new(next), leftover.to_vec()));
            next.into_iter().for_each(forget);
        }
    }

    /// Whether another protocol has been named, so that this one is to be given no more.
    pub(crate) fn is_switching(&self) -> bool {
        self.state.conns.get(self.id()).is_some_and(Conn::is_switching)
    }

    /// What an adapter has kept, for the protocol that takes over.
    pub(crate) fn add_leftover(&mut self, kept: &[u8]) {
        let id = self.id();
        let next = self.state.conns.get_mut(id).and_then(|conn| conn.cold.as_mut()?.next.as_mut());
        next.into_iter().for_each(|(_, leftover)| leftover.extend_from_slice(kept));
    }
}

impl Conn {
    pub(crate) fn is_switching(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.next.is_some())
    }
}

impl State {
    /// After a callback that has named another protocol: that has the connection, if the callback has `succeeded`.
    pub(crate) fn switch(&mut self, id: ConnId, succeeded: bool) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let Some((next, mut leftover)) = conn.cold.as_mut().and_then(|cold| cold.next.take()) else { return false };
        if !succeeded || !conn.is_open() {
            forget(next);
            return false;
        }
        let old = conn.protocol.replace(next);
        leftover.append(&mut conn.cold().leftover); // of a protocol that was given a part before it switched on
        conn.paused.by_switch = !leftover.is_empty() || conn.paused.at_eof;
        conn.cold().leftover = leftover;
        conn.request.marks = RequestMarks::None;
        (conn.limits.request_since, conn.request.ends_when_sent) = (None, false);
        (conn.paused.resumed, conn.told_to_shut_down) = (false, false);
        for timer in std::mem::take(&mut conn.timers) {
            self.time.timers.cancel(timer);
        }
        forget(old);
        self.mark(id);
        true
    }

    /// Gives the protocol that has taken over what the one before it has left: input, at most as much as one read
    /// brings, then the end of the stream.
    pub(crate) fn deliver_leftover(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        let Paused { by_protocol, by_output, by_link, .. } = conn.paused;
        if by_protocol || by_output || by_link {
            return;
        }
        let at_eof = conn.paused.at_eof;
        let cold = conn.cold();
        let mut leftover = std::mem::take(&mut cold.leftover);
        if leftover.len() > READ {
            cold.leftover = leftover.split_off(READ);
        }
        let goes_on = !cold.leftover.is_empty() || (at_eof && !leftover.is_empty());
        conn.paused.by_switch = goes_on;
        if goes_on {
            self.mark(id);
        }
        if !leftover.is_empty() {
            self.deliver_input(id, &leftover);
        } else if at_eof {
            self.deliver_end(id);
        }
    }
}
