//! The beginning of a connection: the factory builds its protocol, and `connection_made` is called.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Entry, Origin};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::{Factory, Peer};
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::State;
use crate::net::Addr;
use crate::observe::{NotServed, Outcome};
use crate::panics::forget;

impl State {
    /// Builds the protocol and begins, or refuses the connection.
    pub(crate) fn build_and_begin(&mut self, factory: &dyn Factory, id: ConnId) {
        match self.build(factory, id) {
            Ok(Some(protocol)) => self.begin(id, protocol),
            Ok(None) => self.refuse_new(id, None),
            Err(text) => self.refuse_new(id, Some(text)),
        }
    }

    /// Has the factory build a protocol. `Ok(None)` is a refusal, `Err` the text of a panic.
    pub(crate) fn build(
        &mut self,
        factory: &dyn Factory,
        id: ConnId,
    ) -> std::result::Result<Option<Box<dyn Protocol>>, String> {
        let addr = self.conns.get(id).map_or(Addr::Unnamed, |conn| conn.peer.clone());
        let peer = Peer { addr, id };
        self.time.now = self.time.clock.now();
        let build = || factory.build_protocol(&mut Context { state: self }, &peer);
        let built = catch_unwind(AssertUnwindSafe(build)).map_err(take_message);
        self.note_stall_of("build_protocol", id);
        built
    }

    /// Gives the connection its protocol, and calls `connection_made`.
    pub(crate) fn begin(&mut self, id: ConnId, protocol: Box<dyn Protocol>) {
        match self.conns.get_mut(id) {
            Some(conn) if conn.is_open() => conn.protocol = Some(protocol),
            // The factory has closed the connection. The new protocol is never called.
            _ => forget(protocol),
        }
        self.call(id, "connection_made", |p, t| p.connection_made(t));
        self.mark(id);
    }

    /// Closes a connection that has no protocol, because the factory refused it or panicked.
    fn refuse_new(&mut self, id: ConnId, panic: Option<String>) {
        let Some(mut conn) = self.conns.remove(id) else { return };
        let account = self.core.monitor.observes().then(|| conn.take_account());
        let Conn { entry: Entry { origin, permit, .. }, io, peer, .. } = conn;
        // Before the report: a hook that connects anew finds the permit free.
        drop(io);
        drop(permit);
        match (panic, origin) {
            (Some(text), _) => origin.report_end(&self.core, &peer, false, &Outcome::Panicked(text), account),
            (None, Origin::Made(_) | Origin::Adopted) => {}
            (None, Origin::Accepted(_)) => {
                self.core.monitor.report_refused(&peer, &io::Error::other(NO_PROTOCOL));
                let why = Outcome::NotServed(NotServed(NO_PROTOCOL));
                account.into_iter().for_each(|account| self.core.monitor.tell_end(account, &peer, false, &why));
            }
        }
        if let Origin::Made(connector) = origin {
            self.clients.lose_connection(connector, self.time.clock.now());
            self.plan_after_loss(connector);
        }
    }
}

/// Why a connection is refused.
pub(crate) const NO_PROTOCOL: &str = "the factory made no protocol for it";
