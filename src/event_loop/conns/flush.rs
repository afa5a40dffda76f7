//! Sends what is queued: as much as the kernel takes, a rate limit allows, and readers give in one turn.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::cold::Direction;
use crate::event_loop::state::conn::{Conn, Phase};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::State;

/// The most bytes that readers of one connection give at a time. So a fast peer holds no other connection up.
const READERS: usize = 256 << 10;

/// A piece of this size goes to the kernel at once. From here on a system call is cheaper than a copy.
const WORTH_A_CALL: usize = 16 << 10;

impl State {
    /// Offers a large piece to the kernel at once, and returns the rest. A queued piece is copied, because the buffer
    /// that a callback is lent is used for the next read. An echo of 64 KiB saves a tenth of its cost.
    pub(crate) fn send_at_once<'a>(&mut self, id: ConnId, bytes: &'a [u8]) -> &'a [u8] {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return bytes };
        // Only a piece that is first in the queue, or the order would be lost.
        let is_limited = conn.cold.as_ref().is_some_and(|cold| cold.writing.is_some());
        if bytes.len() < WORTH_A_CALL
            || !conn.out.is_empty()
            || conn.flow.blocked
            || is_limited
            || conn.io.is_handshaking()
        {
            return bytes;
        }
        match conn.io.send(bytes) {
            Ok(n) => {
                conn.note_written(n);
                (conn.limits.since, conn.limits.blocked_since) = (now, now);
                (conn.flow.sent, conn.flow.blocked) = (true, n < bytes.len());
                bytes.get(n..).unwrap_or_default()
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                (conn.flow.blocked, conn.limits.blocked_since) = (true, now);
                bytes
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => bytes,
            Err(e) => {
                conn.flow.broken = true;
                conn.cold().given_up += bytes.len();
                // The kernel reports an error once, so it must be noted here.
                self.end(id, self.reason_of_break(id, e));
                &[]
            }
        }
    }

    /// Sends what is queued, as far as the kernel takes it. Returns the number of bytes.
    pub(crate) fn flush(&mut self, id: ConnId) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        // A large piece has gone past the queue, and may have been the whole answer.
        if std::mem::take(&mut conn.flow.sent) {
            conn.end_request_when_sent();
        }
        if conn.io.wants_write() && !conn.flow.blocked {
            self.push_tls(id);
        }
        // Until the kernel takes no more, the rate limit allows none, or the readers have had their share.
        let (mut read, mut sent) = (0, 0);
        while let Some(at_most) = self.sendable(id, &mut read) {
            sent += self.send(id, at_most);
        }
        sent
    }

    /// Sends what TLS has to say beside the queue: handshakes, answers to key updates, the end of the stream. True if
    /// the kernel has taken all of it.
    pub(crate) fn push_tls(&mut self, id: ConnId) -> bool {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return true };
        match conn.io.push() {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if !std::mem::replace(&mut conn.flow.blocked, true) {
                    conn.limits.blocked_since = now;
                }
                false
            }
            Err(e) => {
                conn.flow.broken = true;
                self.end(id, self.reason_of_break(id, e));
                true
            }
        }
    }

    /// Ends the stream of TLS, after all output. True if the kernel has taken that, and always without TLS.
    pub(crate) fn close_tls(&mut self, id: ConnId) -> bool {
        let ends = |conn: &&mut Conn| conn.io.secured().is_some() && !conn.flow.broken;
        let Some(conn) = self.conns.get_mut(id).filter(ends) else { return true };
        // A peer that has ended its stream may be gone. If it has all output, it misses nothing.
        let misses_nothing = conn.paused.at_eof && !conn.io.secured().is_some_and(|tls| tls.wants_write());
        conn.io.queue_close_notify();
        let pushed = conn.io.push();
        if misses_nothing && pushed.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock) {
            return true;
        }
        self.push_tls(id)
    }

    /// Returns how much may be sent now; `None` if nothing can. Before that it reads the readers whose turn has come.
    fn sendable(&mut self, id: ConnId, read: &mut usize) -> Option<usize> {
        loop {
            // Nothing to send, or the kernel takes nothing.
            let conn = self.conns.get_mut(id)?;
            let sends = matches!(conn.end.phase, Phase::Open | Phase::Flushing) && !conn.io.is_handshaking();
            if conn.flow.blocked || conn.out.is_empty() || !sends {
                return None;
            }

            // Bytes are ready. Only a rate limit bounds them.
            let Some(cold) = &conn.cold else { return Some(usize::MAX) };
            if conn.out.hungry().is_none() {
                if cold.writing.is_none() {
                    return Some(usize::MAX);
                }
                let most = conn.out.first_len();
                return Some(self.allowed(id, Direction::Writing, most)).filter(|n| *n > 0);
            }

            // A reader is next. After its share it goes on in the next turn.
            if *read >= READERS {
                self.mark(id);
                return None;
            }
            *read += self.fill_source(id);
        }
    }

    /// Makes one system call, and returns how many bytes the kernel took.
    fn send(&mut self, id: ConnId, at_most: usize) -> usize {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        let sent = conn.out.send(&conn.io, &mut self.buffers.spares, at_most);
        conn.give_back(Direction::Writing, at_most, sent.as_ref().map_or(0, |(n, _)| *n));
        match sent {
            Ok((n, whole)) => {
                conn.note_written(n);
                conn.limits.since = now;
                conn.limits.blocked_since = now;
                conn.flow.blocked = !whole;
                conn.end_request_when_sent();
                return n;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                conn.flow.blocked = true;
                conn.limits.blocked_since = now;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                conn.flow.broken = true;
                self.end(id, self.reason_of_break(id, e));
            }
        }
        0
    }

    /// Reads the next piece of the first reader, and returns its length. At its end the reader is done; if it fails,
    /// the connection ends.
    fn fill_source(&mut self, id: ConnId) -> usize {
        self.time.now = self.time.clock.now();
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        let Some(source) = conn.out.hungry() else { return 0 };
        let filled = catch_unwind(AssertUnwindSafe(|| source.fill()));
        self.note_stall_of("a reader of send_reader", id);
        let why = match filled {
            Ok(Ok(0)) => {
                self.finish_source(id);
                return 0;
            }
            Ok(Ok(n)) => return n,
            Ok(Err(e)) => LostReason::Error(e.into()),
            Err(payload) => LostReason::Panic(take_message(payload)),
        };
        // What is queued behind a failed reader would arrive in its place.
        if let Some(conn) = self.conns.get_mut(id) {
            conn.cold().given_up = conn.out.len();
            conn.out.clear(&mut self.buffers.spares);
        }
        self.end(id, why);
        0
    }

    /// Removes a reader that has been sent. `report_transfers` tells the protocol later.
    fn finish_source(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.out.pop_source(&mut self.buffers.spares);
        conn.cold().transfers += 1;
        conn.end_request_when_sent();
    }

    /// Calls `transfer_complete` for each reader that has been sent.
    pub(crate) fn report_transfers(&mut self, id: ConnId) {
        while let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) {
            let Some(cold) = conn.cold.as_mut().filter(|cold| cold.transfers > 0) else { return };
            cold.transfers -= 1;
            self.call(id, "transfer_complete", |p, t| p.transfer_complete(t));
        }
    }
}
