//! What a readiness event leads to: the connection is read, a long input a few times, or found to have hung up.
//!
//! All connections are read into one buffer of 64 KiB, which is lent to `data_received`. Nothing is copied, and an
//! idle connection has no buffer.

use std::io;

use crate::config::LINGER_IDLE;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Phase, WriteHalf};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::protocol::Eof;
use crate::event_loop::state::State;
use crate::sys::Readiness;

/// How often a connection with a long input is read in a turn. So a fast peer holds no other connection up.
const READS: usize = 4;

impl State {
    /// Handles a readiness event: reads once, and settles the connection.
    pub(crate) fn handle_readiness(&mut self, id: ConnId, ready: Readiness) {
        // The event carries the whole id. If the connection was closed in this turn, the event finds nothing.
        let Some(conn) = self.conns.get_mut(id) else { return };
        let is_listed = std::mem::replace(&mut conn.dirty, true);

        // Noted, because edge-triggered epoll reports it once: there is room, input, or something behind the input.
        if ready.write || ready.hangup {
            conn.flow.blocked = false;
        }
        conn.watch.more |= ready.more || ready.hangup;
        conn.watch.unread |= ready.read || ready.hangup;

        let reads = conn.wanted().read;
        if conn.watch.listed && reads {
            // `read_left_unread` reads it in this turn, once.
        } else if reads && (ready.read || ready.hangup) {
            self.read(id);
        } else if ready.hangup {
            self.end_hung_up(id);
        }

        // Its own output is sent now, while the socket is warm in the caches: that saves a tenth of an echo's cost. If
        // other connections have written to it, it waits for the end of the turn, because more may come.
        if !is_listed {
            let has_more = self.settle_one(id) && self.read_on(id);
            if has_more {
                self.list_unread(id);
            }
        }
    }

    /// Reads a long input on, as long as the peer takes the answers. True if there may be more of it, for the next turn.
    ///
    /// The connection is warm in the caches, and its peer has room to send again: an echo of 64 KiB costs a quarter
    /// less. What it writes to others goes out at the end of the turn. They are to get one read's worth until then: their
    /// queues are bounded, and may be to pause it.
    fn read_on(&mut self, id: ConnId) -> bool {
        for _ in 1..READS {
            match self.conns.get_mut(id) {
                // Not one that `read_left_unread` reads in this turn.
                Some(conn) if !conn.flow.blocked && !conn.watch.listed && self.queues.dirty.is_empty() => {
                    conn.dirty = true;
                }
                _ => break,
            }
            self.read(id);
            if !self.settle_one(id) {
                return false;
            }
        }
        true
    }

    /// Handles a hang-up of a connection that is not read now. It is broken, or the peer has closed it in order.
    fn end_hung_up(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let broken = conn.io.hang_up(conn.flow.write_half == WriteHalf::Shut);
        conn.watch.failed |= broken.is_some();
        let is_input = matches!(conn.io, Io::Input(_));
        let reason = match broken {
            None if is_input || (conn.paused.holds_input() && !conn.paused.at_eof) => {
                // It is read when reading goes on. Until then epoll would report the hang-up in every turn.
                conn.io.with_fd(|fd| self.poller.remove(fd));
                (conn.watch.hung_up, conn.watch.interest) = (true, None);
                return;
            }
            None if conn.paused.at_eof && conn.out.is_empty() => LostReason::PeerClosed,
            error => self.reason_of_break(id, error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())),
        };
        self.end(id, reason);
    }

    /// Reads once. True if something has come.
    pub(crate) fn read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let is_open = conn.is_open();

        // The shared buffer, out of the state while the callback borrows it.
        let mut buffer = std::mem::take(&mut self.buffers.read);
        let read = match conn.cold {
            None => conn.recv(&mut buffer),
            Some(_) => self.recv_limited(id, &mut buffer),
        };

        // Input is delivered while the connection is open, and thrown away while it ends.
        let came = match read {
            Ok(0) if self.is_cut_outside(id) => {
                self.end(id, self.reason_of_break(id, io::ErrorKind::UnexpectedEof.into()));
                false
            }
            Ok(n) if is_open => {
                self.deliver_input(id, buffer.get(..n).unwrap_or_default());
                true
            }
            Ok(n) => self.discard_input(id, n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            Err(e) => {
                self.conns.get_mut(id).into_iter().for_each(|conn| conn.watch.failed = true);
                self.end(id, self.reason_of_break(id, e));
                false
            }
        };
        self.buffers.read = buffer;
        came
    }

    /// Calls `data_received`; with no data, the peer's stream has ended.
    pub(crate) fn deliver_input(&mut self, id: ConnId, data: &[u8]) {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        if data.is_empty() {
            conn.paused.at_eof = true;
            return self.deliver_end(id);
        }

        // Without marks of the protocol, a request begins with its first byte.
        conn.limits.since = now;
        conn.request.heard = true;
        if conn.request.marks == crate::event_loop::state::conn::RequestMarks::None
            && conn.limits.request_since.is_none()
        {
            conn.limits.request_since = Some(now);
        }
        let since = conn.limits.request_since.or(Some(now));
        self.share_request(since); // before the callback, which might hang
        self.call(id, "data_received", |p, t| p.data_received(t, data));

        // The time that the callback took does not count as idle.
        let now = self.time.now;
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.limits.since = now);
    }

    /// Throws away input of a connection that lingers. True if there was any.
    pub(crate) fn discard_input(&mut self, id: ConnId, n: usize) -> bool {
        let now = self.time.now;
        if let Some(conn) = self.conns.get_mut(id) {
            match &mut conn.end.phase {
                Phase::Lingering { idle, .. } if n > 0 => *idle = now + LINGER_IDLE,
                phase => *phase = Phase::Over,
            }
        }
        self.mark(id);
        n > 0
    }

    /// Calls `eof_received`, whose result says what follows.
    pub(crate) fn deliver_end(&mut self, id: ConnId) {
        let eof = self.call(id, "eof_received", |p, t| p.eof_received(t));
        let Some(conn) = self.conns.get(id) else { return };
        // A protocol that has taken over meanwhile is asked later. Without a result the callback failed, and `call` has
        // ended the connection; but not if the only failure was a refused write.
        if !conn.paused.by_switch && (eof == Some(Eof::Close) || conn.flow.write_half == WriteHalf::Shut) {
            self.end(id, LostReason::PeerClosed);
        }
    }
}
