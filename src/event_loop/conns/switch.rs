//! The switch of protocols: another one takes the connection over.
//!
//! It does so when the callback that named it has returned without an error, and the connection is not ending. Until
//! then the old protocol answers for the connection.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Paused, RequestMarks};
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::{State, READ};
use crate::panics::forget;

impl Transport<'_> {
    /// Gives the connection to the protocol `next` when this callback has returned, as for an upgrade or after a
    /// negotiation. The old protocol is dropped without `connection_lost`.
    ///
    /// The new protocol first gets [`connection_made`](Protocol::connection_made). Then it gets `leftover`, the input
    /// that the old protocol did not consume, and then what is read. If the peer's stream has ended already,
    /// [`eof_received`](Protocol::eof_received) follows; the old protocol's answer to it does not count. Input that
    /// [`lines`](crate::lines) and [`strings`](crate::event_loop::strings) keep follows `leftover` by itself.
    ///
    /// The connection keeps its id, groups, limits, queue, and a pause of reading. Timers of the old protocol are
    /// cancelled, and a [request](Self::request_begins) that it began is forgotten. A wrapper is replaced together with
    /// the protocol inside it.
    ///
    /// If the callback fails, or the connection begins to end, the old protocol keeps it. If a callback calls this
    /// twice, the second call counts.
    ///
    /// ```
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{lines, HandlerResult, LineReceiver, Protocol, Transport};
    /// use socketserver::event_loop::FramedTransport;
    ///
    /// struct Negotiation;
    /// impl LineReceiver for Negotiation {
    ///     fn line_received(
    ///         &mut self,
    ///         t: &mut FramedTransport<'_>,
    ///         line: &[u8],
    ///     ) -> HandlerResult {
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
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
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

    /// True if a successor is named, so that this protocol gets no more input.
    pub(crate) fn is_switching(&self) -> bool {
        self.state.conns.get(self.id()).is_some_and(Conn::is_switching)
    }

    /// Adds input that a receiver has kept, for the successor.
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
    /// Puts the successor in place after the callback that named it, if that has `succeeded`. True if it did so.
    pub(crate) fn switch(&mut self, id: ConnId, succeeded: bool) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let Some((next, mut leftover)) = conn.cold.as_mut().and_then(|cold| cold.next.take()) else { return false };
        if !succeeded || !conn.is_open() {
            forget(next);
            return false;
        }
        let old = conn.protocol.replace(next);
        // The old protocol may itself have taken over, and not yet got all that was left for it.
        leftover.append(&mut conn.cold().leftover);
        conn.paused.by_switch = !leftover.is_empty() || conn.paused.at_eof;
        conn.cold().leftover = leftover;
        conn.request.marks = RequestMarks::None;
        (conn.limits.request_since, conn.request.ends_when_sent) = (None, false);
        (conn.paused.resumed, conn.told_to_shut_down) = (false, false);
        // A timer's id would mean nothing to a protocol that never saw it.
        for timer in std::mem::take(&mut conn.timers) {
            self.time.timers.cancel(timer);
        }
        forget(old);
        self.mark(id);
        true
    }

    /// Gives a successor what its predecessor has left: input, at most one read's worth a turn, then the end of the
    /// stream.
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
