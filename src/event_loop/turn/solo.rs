//! A loop for one connection, which a blocking strategy has handed over.

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
    /// A forked child does not have all of the switch.
    pub(crate) fn watch_server_stop(&self) -> io::Result<()> {
        let control = &self.core.control;
        self.poller.add(&control.stop, Readiness::READABLE, token::STOP)?;
        control.urgent().map_or(Ok(()), |now| self.poller.add(now, Readiness::READABLE, token::NOW))
    }

    /// A worker that ends alone waits for a first request; unless its server follows.
    pub(crate) fn watch_end_of_grace(&self) {
        if self.solo.is_some() && self.core.ends_alone() {
            let _ = self.poller.add(&self.core.server().control.stop, Readiness::READABLE, token::GATE);
            // a list never fails
        }
    }

    /// Others may have cut the connection already, which then looks as if the peer had ended it.
    pub(crate) fn adopt_server_cut(&mut self) {
        if self.solo.is_some() && self.core.control.is_cut() && !self.is_cut() {
            self.begin_drain();
            self.cut();
        }
    }

    /// Whether the server's own drain limit has passed.
    pub(crate) fn is_server_drain_over(&self) -> bool {
        let limit = self.core.settings.drain_timeout;
        self.core.control.drain_deadline(limit).is_some_and(|at| at <= Instant::now())
    }

    /// Takes a connection over. Input that its owner has read is delivered first, as to a protocol that takes over.
    pub(crate) fn take_over(&mut self, handed: HandedOver, peer: Addr) -> ConnId {
        let HandedOver { socket, unread, limits, parent_deadline } = handed;
        let mut conn = Conn::new(Io::Socket(socket), peer, Origin::Accepted(None), None, self.time.now);
        conn.limits.own = Some(Box::new(limits));
        if !unread.is_empty() {
            conn.cold().leftover = unread;
            conn.paused.by_switch = true;
        }
        let id = self.conns.insert(conn);
        self.solo = Some(Solo { id, parent_deadline, ended: None });
        id
    }

    /// Runs the loop until the connection has ended, and what it has added to the loop as well.
    pub(crate) fn run_solo(&mut self, factory: &dyn Factory, id: ConnId, wire: &Wire) -> Result<()> {
        match self.build(factory, id) {
            Ok(Some(protocol)) => self.begin(id, protocol),
            Ok(None) => return Ok(self.refuse_solo(id, Outcome::NotServed(NotServed(NO_PROTOCOL)))),
            Err(text) => return Ok(self.refuse_solo(id, Outcome::Panicked(text))),
        }
        if self.core.control.stopping() {
            self.begin_drain();
        }
        self.settle();
        loop {
            if self.stop.asked {
                self.end_all();
            }
            let Some(conn) = self.conns.get(id) else { return self.drain_others(wire) };
            self.share_request(conn.limits.request_since);
            self.turn(wire.beat())?;
        }
    }

    fn refuse_solo(&mut self, id: ConnId, outcome: Outcome) {
        let Some(conn) = self.conns.remove(id) else { return };
        let happened = conn.happened();
        if let Some(solo) = &mut self.solo {
            solo.ended = Some(SoloEnd { outcome, socket: conn.io.into_socket(), happened });
        }
    }

    /// The end of the connection, which is now at the latest: the loop may have failed.
    pub(crate) fn end_solo(&mut self, id: ConnId) -> Option<(SoloEnd, Option<ParentDeadline>)> {
        if self.conns.get(id).is_some() {
            self.end_all();
        }
        let Solo { ended, parent_deadline, .. } = self.solo.take()?;
        Some((ended?, parent_deadline))
    }

    /// The loop ends with its connection. What was written to other ones, as clients have them, is sent before.
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

    /// No request lasts any more, for the parent of this child.
    fn share_no_request(&self) {
        let deadline = self.solo.as_ref().and_then(|solo| solo.parent_deadline.as_ref());
        deadline.into_iter().for_each(|deadline| deadline.set(0));
    }
}
