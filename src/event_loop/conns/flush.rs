//! Sending what is queued: as much as the kernel takes, a rate limit allows, and readers give in a turn.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::cold::Direction;
use crate::event_loop::state::conn::Phase;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::State;

/// Most that readers of one connection are read at a time, so that a fast peer holds nobody up.
const READERS: usize = 256 << 10;

/// A piece that is offered to the kernel by itself, at once: from here on a system call is cheaper than a copy.
const WORTH_A_CALL: usize = 16 << 10;

impl State {
    /// Offers a large piece to the kernel before it is queued, which would copy it: all of it that comes first in the
    /// queue and under no rate limit. What is left.
    pub(crate) fn send_at_once<'a>(&mut self, id: ConnId, bytes: &'a [u8]) -> &'a [u8] {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return bytes };
        let is_limited = conn.cold.as_ref().is_some_and(|cold| cold.writing.is_some());
        if bytes.len() < WORTH_A_CALL || !conn.out.is_empty() || conn.flow.blocked || is_limited {
            return bytes;
        }
        match conn.io.send(bytes) {
            Ok(n) => {
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
                conn.cold().given_up += bytes.len();
                self.end(id, LostReason::of_broken(e)); // the kernel tells it once
                &[]
            }
        }
    }

    /// Sends what is queued, as far as the kernel takes it. How many bytes that were.
    pub(crate) fn flush(&mut self, id: ConnId) -> usize {
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        if std::mem::take(&mut conn.flow.sent) {
            conn.end_request_when_sent();
        }
        let (mut read, mut sent) = (0, 0);
        while let Some(at_most) = self.sendable(id, &mut read) {
            sent += self.send(id, at_most);
        }
        sent
    }

    /// How much may be sent now, if there is anything that the kernel may take. Readers whose turn has come are read.
    fn sendable(&mut self, id: ConnId, read: &mut usize) -> Option<usize> {
        loop {
            let conn = self.conns.get_mut(id)?;
            let sends = matches!(conn.end.phase, Phase::Open | Phase::Flushing);
            if conn.flow.blocked || conn.out.is_empty() || !sends {
                return None;
            }
            let Some(cold) = &conn.cold else { return Some(usize::MAX) };
            if conn.out.hungry().is_none() {
                if cold.writing.is_none() {
                    return Some(usize::MAX);
                }
                let most = conn.out.first_len();
                return Some(self.allowed(id, Direction::Writing, most)).filter(|n| *n > 0);
            }
            if *read >= READERS {
                self.mark(id); // goes on when the others have had their turn
                return None;
            }
            *read += self.fill_source(id);
        }
    }

    fn send(&mut self, id: ConnId, at_most: usize) -> usize {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return 0 };
        let sent = conn.out.send(&conn.io, &mut self.buffers.spares, at_most);
        conn.give_back(Direction::Writing, at_most, sent.as_ref().map_or(0, |(n, _)| *n));
        match sent {
            Ok((n, whole)) => {
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
            Err(e) => self.end(id, LostReason::of_broken(e)),
        }
        0
    }

    /// Has the reader whose turn it is give its next piece. How much that was; at its end, the next one's turn has
    /// come, and when it fails, that of the connection's end.
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
        if let Some(conn) = self.conns.get_mut(id) {
            conn.cold().given_up = conn.out.len();
            conn.out.clear(&mut self.buffers.spares);
        }
        self.end(id, why);
        0
    }

    fn finish_source(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.out.pop_source(&mut self.buffers.spares);
        conn.cold().transfers += 1;
        conn.end_request_when_sent();
    }

    /// Tells the protocol of readers that have been sent.
    pub(crate) fn report_transfers(&mut self, id: ConnId) {
        while let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) {
            let Some(cold) = conn.cold.as_mut().filter(|cold| cold.transfers > 0) else { return };
            cold.transfers -= 1;
            self.call(id, "transfer_complete", |p, t| p.transfer_complete(t));
        }
    }
}
