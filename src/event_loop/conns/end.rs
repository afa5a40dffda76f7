//! The end of a connection: `end` begins it, `advance` goes a step on, `finish` takes the connection out.
//!
//! After a stop, no code reads what the peer still sends, and a late byte would reset the connection. So the socket
//! is closed only when the peer has acknowledged everything (`SIOCOUTQ`). Any other close lingers as
//! `LingeringClose` says. Timers and events drive both, so a slow end costs a slot and no thread.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::config::{Limit, LimitExceeded, FIRST_LOOK, LINGER_IDLE};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Entry, Phase};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{Lost, LostReason};
use crate::event_loop::state::solo::SoloEnd;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;
use crate::finish::plan::{plan, Close, Facts};
use crate::lifecycle::Core;
use crate::observe::Account;
use crate::panics::forget;

impl State {
    /// Begins the end of a connection. The first cause holds; only a failure replaces an orderly end.
    pub(crate) fn end(&mut self, id: ConnId, reason: LostReason) {
        let Some(conn) = self.conns.get_mut(id) else { return forget(reason) };
        let holds = conn.end.reason.as_ref().is_some_and(|first| !first.is_orderly() || reason.is_orderly());
        match conn.end.phase {
            // The first cause, or a failure after an orderly one.
            Phase::Open | Phase::Flushing if !holds => {
                conn.end.phase = if reason.flushes() { Phase::Flushing } else { Phase::Over };
                if reason.resets() {
                    conn.reset_at_close();
                }
                conn.end.reason.replace(reason).into_iter().for_each(forget);
            }
            // The first cause holds, but the rest of the output cannot be sent.
            Phase::Flushing if !reason.flushes() => {
                conn.end.phase = Phase::Over;
                if reason.resets() {
                    conn.reset_at_close();
                }
                forget(reason);
            }
            // An abort is no failure. If the callback that asked for it then fails, that is one.
            Phase::Over if matches!(conn.end.reason, Some(LostReason::Aborted)) && reason.is_from_callback() => {
                conn.end.reason.replace(reason).into_iter().for_each(forget);
            }
            // All has been sent. A failure now ends the wait, and is no reason any more.
            Phase::Acknowledging { .. } | Phase::Lingering { .. } if !reason.is_orderly() => {
                conn.end.phase = Phase::Over;
                forget(reason);
            }
            _ => forget(reason),
        }
        self.mark(id);
    }

    /// Takes a connection that is ending one step on.
    pub(crate) fn advance(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        // The queue is sent. A stream of TLS has an end of its own, which follows. The owner of a solo connection
        // sends it.
        let is_sent = conn.end.phase == Phase::Flushing && conn.out.is_empty();
        if is_sent && !self.is_solo(id) && !self.close_tls(id) {
            return;
        }
        let Some(conn) = self.conns.get(id) else { return };
        let phase = match conn.end.phase {
            Phase::Flushing if is_sent => self.phase_after_sending(id, conn),
            phase => phase,
        };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.end.phase = phase;
        }
        if phase == Phase::Over {
            self.finish(id);
        }
    }

    /// Returns the phase after everything is sent. The connection closes at once, unless the peer might lose data by
    /// that.
    fn phase_after_sending(&self, id: ConnId, conn: &Conn) -> Phase {
        // The owner of a solo connection closes it.
        if self.is_solo(id) {
            return Phase::Over;
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
            Close::AtOnce | Close::Reset | Close::WhenAcknowledged { .. } => Phase::Over,
            Close::Linger { within } => {
                conn.io.shut_write();
                Phase::Lingering { idle: self.time.now + LINGER_IDLE, until: self.time.now + within }
            }
        }
    }

    /// Takes the connection out of the loop, calls `connection_lost`, drops everything, and counts the end.
    pub(crate) fn finish(&mut self, id: ConnId) {
        // Out of the table first: in `connection_lost` the id stands for nothing.
        let Some(mut conn) = self.conns.remove(id) else { return };
        let unsent = conn.out.len() + conn.cold.as_ref().map_or(0, |cold| cold.given_up);
        conn.out.clear(&mut self.buffers.spares);
        let happened = self.is_solo(id).then(|| conn.happened());
        let account = self.take_account(&mut conn);
        let mut home = conn.cold.as_mut().and_then(|cold| cold.home.take());
        self.release_parts(id, &mut conn);
        let Conn { entry: Entry { origin, permit, .. }, io, peer, protocol, paused, end, .. } = conn;
        let reason = end.reason;
        home.iter_mut().for_each(|home| home.leave());
        // The socket is closed before the protocol hears of it.
        self.unwatch(&io);
        // Not so the socket of a solo connection: its owner closes that.
        let solo = happened.map(|happened| (happened, io.into_socket()));
        // Before the callback, so that `connection_lost` finds the client without a connection.
        let connector = origin.connector();
        if let Some(connector) = connector {
            self.clients.lose_connection(connector, self.time.clock.now());
        }
        // The last callback. A panic in it becomes the reason.
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
        // The permit comes back when the protocol is gone: the limit is on what exists.
        drop(permit);
        self.note_gone();
        // A solo connection is counted by its owner, any other here.
        let (outcome, is_broken) = lost.reason.into_outcome();
        if let (Some((happened, socket)), Some(solo)) = (solo, &mut self.solo) {
            solo.ended = Some(SoloEnd { outcome, socket, happened });
            return;
        }
        match home {
            Some(mut home) => home.report_end(is_broken || paused.at_eof, &outcome, account),
            None => origin.report_end(&self.core, &lost.peer, is_broken || paused.at_eof, &outcome, account),
        }
        forget(outcome);
        // A client may connect again.
        connector.into_iter().for_each(|connector| self.plan_after_loss(connector));
    }

    /// Takes what the observers of its server are told.
    fn take_account(&self, conn: &mut Conn) -> Option<Account> {
        let core = conn.home().map_or(&self.core, |home| &home.core);
        core.monitor.observes().then(|| conn.take_account())
    }

    /// Notes that the loop has one connection less.
    fn note_gone(&mut self) {
        if !self.loops.group.is_alone() {
            self.loops.group.note_load(self.loops.number, self.conns.len());
        }
        // A rest for want of descriptors is over: one came back.
        self.ports.rests &= self.ports.accepts_one;
    }

    /// Returns why a connection is broken. At the drain limit the registry of the server shuts the socket of a solo
    /// connection, which looks as if the peer had.
    pub(crate) fn reason_of_break(&self, id: ConnId, e: io::Error) -> LostReason {
        if self.is_cut_outside(id) {
            let after = self.home_of(id).settings.drain_timeout;
            return LostReason::TimedOut(LimitExceeded { limit: Limit::Drain, after });
        }
        LostReason::Reset(e)
    }

    /// True if the registry of the server may have shut the socket.
    pub(crate) fn is_cut_outside(&self, id: ConnId) -> bool {
        let has_home = self.conns.get(id).is_some_and(|conn| conn.home().is_some());
        (has_home || self.is_solo(id)) && self.home_of(id).control.is_cut()
    }

    /// Returns the server that has accepted the connection: this one, unless it was adopted.
    fn home_of(&self, id: ConnId) -> &Core {
        let home = self.conns.get(id).and_then(Conn::home);
        home.map_or(&self.core, |home| &home.core)
    }

    /// Watches a descriptor no more, because it is closed next.
    fn unwatch(&self, io: &Io) {
        io.with_fd(|fd| match io {
            // Another process may have the file open. Then epoll would go on reporting it after the close.
            Io::Input(_) => self.poller.remove(fd),
            // The kernel removes a closed socket from epoll by itself. Only a poll(2) list must be told.
            _ => self.poller.forget(fd),
        });
    }

    /// Releases what the connection has in other tables: groups, links, rate limits, timers.
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
    /// Closes the connection. It reads no more, sends what is queued, and ends with care for data that the peer has
    /// still to read ([`LingeringClose`](crate::connection::LingeringClose)). A second call changes nothing.
    pub fn close(&mut self) {
        self.cx.state.end(self.id, LostReason::Closed);
    }

    /// Cuts the connection: it drops what is queued, and resets the connection. Data that the kernel already has, such
    /// as a large piece, may still arrive.
    pub fn abort(&mut self) {
        self.cx.state.end(self.id, LostReason::Aborted);
    }

    /// True if the connection is being closed, from either side.
    pub fn is_closing(&self) -> bool {
        !self.cx.state.is_open(self.id)
    }
}
