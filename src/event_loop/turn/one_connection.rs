//! A loop that has been lent its one connection.

use std::io;
use std::time::Instant;

use crate::connection::Wire;
use crate::error::Result;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::NEVER;
use crate::event_loop::primitives::token;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::State;
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
        if self.lent.is_some() && self.core.ends_alone() {
            let _ = self.poller.add(&self.core.server().control.stop, Readiness::READABLE, token::GATE);
            // a list never fails
        }
    }

    /// Others may have cut the connection already, which then looks as if the peer had ended it.
    pub(crate) fn adopt_server_cut(&mut self) {
        if self.lent.is_some() && self.core.control.is_cut() && !self.is_cut() {
            self.begin_drain();
            self.cut();
        }
    }

    /// Whether the server's own drain limit has passed.
    pub(crate) fn is_server_drain_over(&self) -> bool {
        let limit = self.core.settings.drain_timeout;
        self.core.control.drain_deadline(limit).is_some_and(|at| at <= Instant::now())
    }

    /// The lent connection, if it is to be read from and has input that the kernel does not tell of.
    fn ahead(&self) -> Option<ConnId> {
        let id = self.lent.as_ref()?.id;
        self.conns.get(id).filter(|conn| conn.wanted().read && conn.io.has_ahead()).map(|_| id)
    }

    pub(crate) fn has_ahead(&self) -> bool {
        self.ahead().is_some()
    }

    pub(crate) fn serve_ahead(&mut self) {
        if let Some(id) = self.ahead() {
            self.handle_readiness(id, Readiness::READABLE);
        }
    }

    /// The loop ends with its connection. What was written to other ones, as clients have them, is sent before.
    pub(crate) fn drain_others(&mut self, wire: &Wire) -> Result<()> {
        if self.stop.asked || !self.has_connections() {
            return Ok(());
        }
        wire.share_no_deadline(); // no request lasts any more
        let grace = self.core.settings.drain_timeout;
        self.drain_within(self.time.clock.now() + grace.min(NEVER), grace);
        self.conns.ids().into_iter().for_each(|id| self.end(id, LostReason::Shutdown));
        self.settle();
        while self.has_connections() && !self.stop.asked {
            self.turn(wire.beat())?;
        }
        Ok(())
    }

    pub(crate) fn share_request(&self, wire: &Wire) {
        let conn = self.lent.as_ref().and_then(|lent| self.conns.get(lent.id));
        if let Some(conn) = conn {
            wire.tell_request(conn.limits.request_since, self.limits_of(conn).request);
        }
    }
}
