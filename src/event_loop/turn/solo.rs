//! A loop for one connection, which a blocking strategy has handed over.
//!
//! It is the same `State` as in any loop, so callbacks, timers, limits and the drain need no second implementation.
//! It lacks what one connection does not need: a listener, and a part in the gate. It waits by `poll(2)` instead of
//! epoll, which saves a descriptor for each connection and a system call for each change.
//!
//! The server finishes the connection as any other: it closes, counts and reports in one place. So the socket goes
//! back, with what has happened to it. The connection stays busy in the registry meanwhile, so that no other thread
//! shuts its reading side. The loop knows whether it is idle, and watches the stop itself.
//!
//! The loop ends with its connection, because its thread is the connection's. Clients that the protocol has made are
//! drained first, so that a protocol that passes on a request and closes loses nothing. The drain limit bounds that: a
//! peer of a client that reads nothing must not keep a permit for ever.

use std::io;
use std::time::Instant;

use crate::connection::{HandedOver, ParentDeadline, Wire};
use crate::error::Result;
use crate::event_loop::conns::begin::NO_PROTOCOL;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::NEVER;
use crate::event_loop::primitives::token;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::solo::{Solo, SoloEnd};
use crate::event_loop::state::State;
use crate::net::Addr;
use crate::observe::{NotServed, Outcome};
use crate::sys::Readiness;

impl State {
    /// Watches the stop of the server. A forked child does not have the descriptor of the urgent stop.
    pub(crate) fn watch_server_stop(&self) -> io::Result<()> {
        let control = &self.core.control;
        self.poller.add(control.stop_fd(), Readiness::READABLE, token::STOP)?;
        control.urgent().map_or(Ok(()), |now| self.poller.add(now, Readiness::READABLE, token::NOW))
    }

    /// In a worker that ends alone, watches the server's stop too: the wait for a first request ends with it.
    pub(crate) fn watch_end_of_grace(&self) {
        if self.solo.is_some() && self.core.is_worker() && !self.core.server().control.stopping() {
            // An entry in a list for poll(2) never fails.
            let _ = self.poller.add(self.core.server().control.stop_fd(), Readiness::READABLE, token::GATE);
        }
    }

    /// Cuts the loop's connections if the server has cut its own. The registry may have shut the socket by then, which
    /// looks as if the peer had ended it.
    pub(crate) fn adopt_server_cut(&mut self) {
        if self.solo.is_some() && self.core.control.is_cut() && !self.is_cut() {
            self.begin_drain();
            self.cut();
        }
    }

    /// True if the server's own drain limit has passed.
    pub(crate) fn is_server_drain_over(&self) -> bool {
        let limit = self.core.settings.drain_timeout;
        self.core.control.drain_deadline(limit).is_some_and(|at| at <= Instant::now())
    }

    /// Takes a connection over. Input that its owner has read ahead is delivered first, as to a protocol that
    /// [takes over](crate::Transport::switch_protocol).
    pub(crate) fn take_over(&mut self, handed: HandedOver, peer: Addr) -> ConnId {
        let HandedOver { socket, tls, unread, limits, proxy, id: number, moved, parent_deadline } = handed;
        let io = Io::connected(socket, tls, self.time.now);
        let mut conn = Conn::new(io, peer, Origin::Accepted(None), None, self.time.now);
        conn.limits.own = Some(Box::new(limits));
        // The birth is the owner's, which tells the observers of the end.
        (conn.entry.proxy, conn.entry.birth.id, conn.entry.moved) = (proxy, number, moved);
        if !unread.is_empty() {
            conn.cold().leftover = unread;
            conn.paused.by_switch = true;
        }
        let id = self.conns.insert(conn);
        self.solo = Some(Solo { id, parent_deadline, ended: None });
        id
    }

    /// Runs the loop until the connection has ended, and its clients too.
    pub(crate) fn run_solo(&mut self, factory: &dyn Factory, id: ConnId, wire: &Wire) -> Result<()> {
        let refused = match self.build(factory, id) {
            Ok(Some(protocol)) => {
                self.begin(id, protocol);
                None
            }
            Ok(None) => Some(Outcome::NotServed(NotServed(NO_PROTOCOL))),
            Err(text) => Some(Outcome::Panicked(text)),
        };
        if let Some(outcome) = refused {
            self.refuse_solo(id, outcome);
            return Ok(());
        }
        // The stop may have come before the loop watched for it.
        if self.core.control.stopping() {
            self.begin_drain();
        }
        // Sends what `connection_made` has written, and delivers what was read ahead.
        self.settle();
        loop {
            if self.stop.asked {
                self.end_all();
            }
            let Some(conn) = self.conns.get(id) else { return self.drain_others(wire) };
            // A forked parent learns when the request must have ended, and a master that this worker is not stuck.
            self.share_request(conn.limits.request_since);
            self.turn(wire.beat())?;
        }
    }

    /// Ends the connection without a protocol.
    fn refuse_solo(&mut self, id: ConnId, outcome: Outcome) {
        let Some(conn) = self.conns.remove(id) else { return };
        let happened = conn.happened();
        if let Some(solo) = &mut self.solo {
            solo.ended = Some(SoloEnd { outcome, socket: conn.io.into_socket(), happened });
        }
    }

    /// Returns the end of the connection. If the loop has failed, it ends here.
    pub(crate) fn end_solo(&mut self, id: ConnId) -> Option<(SoloEnd, Option<ParentDeadline>)> {
        if self.conns.get(id).is_some() {
            self.end_all();
        }
        let Solo { ended, parent_deadline, .. } = self.solo.take()?;
        Some((ended?, parent_deadline))
    }

    /// Drains the other connections of the loop, as those of clients are, within the drain limit.
    fn drain_others(&mut self, wire: &Wire) -> Result<()> {
        if self.stop.asked || !self.has_connections() {
            return Ok(());
        }
        self.share_no_request();
        let grace = self.core.settings.drain_timeout;
        self.drain_within(self.time.clock.now() + grace.min(NEVER), grace);
        self.conns.ids().into_iter().for_each(|id| self.end(id, LostReason::Shutdown));
        self.settle();
        while self.has_connections() && !self.stop.asked {
            self.turn(wire.beat())?;
        }
        Ok(())
    }

    /// Tells the parent of a forked child that no request is under way.
    fn share_no_request(&self) {
        let deadline = self.solo.as_ref().and_then(|solo| solo.parent_deadline.as_ref());
        deadline.into_iter().for_each(|deadline| deadline.set(0));
    }
}
