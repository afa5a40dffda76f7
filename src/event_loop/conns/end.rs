//! The end of a turn for each connection that it has touched, and the end of a connection.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::config::{FIRST_LOOK, LINGER_IDLE};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Entry, Phase};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{Lost, LostReason};
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;
use crate::finish::plan::{plan, Close, Facts};
use crate::observe::Outcome;
use crate::panics::forget;

impl State {
    /// Begins the end of a connection. The first cause holds, but for an orderly end that then fails.
    pub(crate) fn end(&mut self, id: ConnId, reason: LostReason) {
        let Some(conn) = self.conns.get_mut(id) else { return forget(reason) };
        let holds = conn.end.reason.as_ref().is_some_and(|first| !first.is_orderly() || reason.is_orderly());
        match conn.end.phase {
            Phase::Open | Phase::Flushing if !holds => {
                conn.end.phase = if reason.flushes() { Phase::Flushing } else { Phase::Over };
                if reason.resets() {
                    conn.io.reset_at_close();
                }
                conn.end.reason.replace(reason).into_iter().for_each(forget);
            }
            // The first cause holds, but what is left cannot be sent.
            Phase::Flushing if !reason.flushes() => {
                conn.end.phase = Phase::Over;
                if reason.resets() {
                    conn.io.reset_at_close();
                }
                forget(reason);
            }
            // An abort is no failure; that of the callback which has asked for it is one.
            Phase::Over if matches!(conn.end.reason, Some(LostReason::Aborted)) && reason.is_from_callback() => {
                conn.end.reason.replace(reason).into_iter().for_each(forget);
            }
            // All has been sent: nothing that happens now is a reason, but the end.
            Phase::Acknowledging { .. } | Phase::Lingering { .. } if !reason.is_orderly() => {
                conn.end.phase = Phase::Over;
                forget(reason);
            }
            _ => forget(reason),
        }
        self.mark(id);
    }

    /// A connection that is being closed, one step on.
    pub(crate) fn advance(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let phase = match conn.end.phase {
            Phase::Flushing if conn.out.is_empty() => self.phase_after_sending(conn),
            phase => phase,
        };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.end.phase = phase;
        }
        if phase == Phase::Over {
            self.finish(id);
        }
    }

    /// All is sent: closed at once, unless the peer might lose some of it by that.
    fn phase_after_sending(&self, conn: &Conn) -> Phase {
        if conn.io.is_lent() {
            return Phase::Over; // its lender closes it
        }
        let facts = Facts {
            is_lost: false, // a connection whose sending has failed is over already
            is_cut: self.is_cut(),
            has_ended: conn.paused.at_eof,
            is_stopped: matches!(conn.end.reason, Some(LostReason::Shutdown)),
            leaves_unread: conn.watch.left_unread,
            is_limit: matches!(conn.end.reason, Some(LostReason::TimedOut(_))),
        };
        match plan(self.core.settings.lingering_close, facts, || conn.io.has_unread()) {
            Close::WhenAcknowledged { within } if !conn.io.is_acknowledged() => {
                Phase::Acknowledging { pause: FIRST_LOOK, until: self.time.now + within }
            }
            Close::AtOnce | Close::WhenAcknowledged { .. } => Phase::Over,
            Close::Linger { within } => {
                conn.io.shut_write();
                Phase::Lingering { idle: self.time.now + LINGER_IDLE, until: self.time.now + within }
            }
        }
    }

    /// The very end: out of the loop, told, dropped, counted. The place is free when all that has been done.
    pub(crate) fn finish(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.remove(id) else { return };
        let unsent = conn.out.len() + conn.cold.as_ref().map_or(0, |cold| cold.given_up);
        conn.out.clear(&mut self.buffers.spares);
        self.release_parts(id, &mut conn);
        let Conn { entry: Entry { origin, permit, .. }, io, peer, protocol, paused, watch, end, .. } = conn;
        let reason = end.reason;
        self.unwatch(&io);
        let is_lent = io.give_back(watch.left_unread, matches!(reason, None | Some(LostReason::Shutdown)));
        let connector = origin.connector();
        if let Some(connector) = connector {
            self.clients.lose_connection(connector, self.time.clock.now());
        }
        let mut lost = Lost { id, peer, reason: reason.unwrap_or(LostReason::Shutdown), unsent, connector };
        if let Some(mut protocol) = protocol {
            self.time.now = self.time.clock.now();
            let tell = || protocol.connection_lost(&mut Context { state: self }, &lost);
            let told = catch_unwind(AssertUnwindSafe(tell));
            self.note_stall("connection_lost", Some(&lost.peer));
            forget(protocol);
            if let Err(payload) = told {
                forget(std::mem::replace(&mut lost.reason, LostReason::Panic(take_message(payload))));
            }
        }
        drop(permit);
        if !self.loops.group.is_alone() {
            self.loops.group.note_load(self.loops.number, self.conns.len());
        }
        self.ports.rests &= self.ports.accepts_one; // its descriptor may be what accepting waits for
        let (outcome, is_broken) = lost.reason.into_outcome();
        if is_lent {
            if let Some(lent) = &mut self.lent {
                lent.outcome = Some(outcome);
            }
            return;
        }
        origin.report_end(&self.core, &lost.peer, is_broken || paused.at_eof, &outcome);
        if let Outcome::Failed(e) = outcome {
            forget(e);
        }
        connector.into_iter().for_each(|connector| self.plan_after_loss(connector));
    }

    /// It is closed next.
    fn unwatch(&self, io: &Io) {
        io.with_fd(|fd| match io {
            Io::Input(_) => self.poller.remove(fd), // others may have the file open: then epoll would go on telling of it
            _ => self.poller.forget(fd),
        });
    }

    fn release_parts(&mut self, id: ConnId, conn: &mut Conn) {
        for group in conn.groups.drain(..) {
            self.leave(group, id);
        }
        if let Some(cold) = conn.cold.take() {
            self.unlink(id, &cold.links, &cold.linked);
            self.release_waiter(cold.reading);
            self.release_waiter(cold.writing);
            forget(cold.next);
        }
        let limit = conn.limits.timer.take().map(|(timer, _)| timer);
        for timer in conn.timers.drain(..).chain(limit) {
            self.time.timers.cancel(timer);
        }
    }
}

impl Transport<'_> {
    /// Closes: no more is read, what is queued is sent, then the connection ends, with care for what the peer has
    /// still to read ([`LingeringClose`](crate::connection::LingeringClose)). Once is enough.
    pub fn close(&mut self) {
        self.cx.state.end(self.id, LostReason::Closed);
    }

    /// Cuts: what is queued is given up, and the peer's kernel is told by a reset. What the kernel has been given before, as
    /// it is with large pieces, may still have left.
    pub fn abort(&mut self) {
        self.cx.state.end(self.id, LostReason::Aborted);
    }

    /// Whether the connection is being closed, by whomever.
    pub fn is_closing(&self) -> bool {
        !self.cx.state.is_open(self.id)
    }
}
