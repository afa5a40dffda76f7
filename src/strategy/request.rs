//! An admitted connection on its way to a handler.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crate::accept::Accepting;
use crate::admit::Permit;
use crate::connection::{Connection, Wakes};
use crate::finish::{self, Outcome};
use crate::handler::{self, StreamRequestHandler};
use crate::hooks;
use crate::lifecycle::{Core, InHandler, ServerHandle};
use crate::listen::{Accepted, Addr};
use crate::strategy::forking::SlotRef;

/// An admitted connection, with its permit and its handler: [`run`](Self::run) it where it shall be served.
///
/// Dropped without that, it is refused: the client reads the end of the stream, or the server's message at the limit.
pub struct Request(Option<Parts>);

struct Parts {
    accepted: Accepted,
    handler: Arc<dyn StreamRequestHandler>,
    permit: Permit,
}

impl Request {
    pub(crate) fn new(accepted: Accepted, permit: Permit, handler: Arc<dyn StreamRequestHandler>) -> Self {
        finish::observe::accepted(permit.core(), &accepted.peer);
        Self(Some(Parts { accepted, handler, permit }))
    }

    /// Serves the connection on this thread: `verify_request`, `setup`, `handle`, `finish`, close, account. Neither an error nor a
    /// panic of the handler comes out.
    pub fn run(mut self) {
        let Some(Parts { accepted, handler, permit }) = self.0.take() else { return };
        let core = permit.core();
        let wakes = if Accepting::is_here() { Wakes::Watches } else { Wakes::Registered };
        if let Err(why) = hooks::verify(core, &accepted, wakes == Wakes::Watches) {
            return finish::turn_away(core, accepted, &why);
        }
        let mut connection = Connection::new(accepted, ServerHandle { core: core.clone() }, wakes);
        let outcome = {
            let _inside = InHandler::of(core);
            finish::contain(|| handler::run(&mut &*handler, &mut connection))
        };
        finish::finish(core, connection, outcome);
        drop(permit);
    }

    /// Who has connected.
    pub fn peer_addr(&self) -> &Addr {
        self.0.as_ref().map_or(&Addr::Unnamed, |parts| &parts.accepted.peer)
    }

    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        self.0.as_ref().map(|parts| parts.permit.core())
    }

    /// In a forked child: asks `verify_request`. That has a limit of its own; the request's begins afterwards.
    pub(crate) fn verify_in_child(&mut self, slot: &SlotRef) -> io::Result<()> {
        let Some(Parts { accepted, permit, .. }) = &self.0 else { return Ok(()) };
        let core = permit.core();
        if core.config.verify_request.is_none() {
            return Ok(());
        }
        if core.config.limits.request.is_some() {
            slot.set_deadline(core.control.millis(Instant::now() + core.config.verify_timeout));
        }
        let verified = hooks::verify(core, accepted, true);
        if let Some(limit) = core.config.limits.request {
            slot.set_deadline(core.control.millis(Instant::now() + limit));
        }
        verified
    }

    /// In a forked child: serves the connection, and tells how it went. The permit is the parent's.
    pub(crate) fn run_in_child<T>(mut self, slot: SlotRef, judge: impl FnOnce(&Outcome, bool) -> T) -> Option<T> {
        let Parts { accepted, handler, permit } = self.0.take()?;
        let core = permit.core().clone();
        std::mem::forget(permit);
        let mut connection = Connection::new(accepted, ServerHandle { core: core.clone() }, Wakes::Watches);
        connection.wire().tell_deadlines(slot);
        let outcome = {
            let _inside = InHandler::of(&core);
            finish::contain(|| handler::run(&mut &*handler, &mut connection))
        };
        Some(finish::finish_in_child(&core, connection, outcome, judge))
    }

    /// In the parent of a forked child: closes this copy of the socket, and keeps the permit.
    pub(crate) fn keep_permit(mut self) -> Option<(Addr, Permit)> {
        let Parts { accepted: Accepted { socket, peer }, permit, .. } = self.0.take()?;
        drop(socket);
        Some((peer, permit))
    }

    fn refuse(&mut self, why: &io::Error) {
        if let Some(Parts { accepted, permit, .. }) = self.0.take() {
            finish::refuse_admitted(permit.core(), accepted, why);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.refuse(&io::Error::other("the strategy dropped it"));
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("peer", self.peer_addr()).finish_non_exhaustive()
    }
}

/// A request that a strategy could not take, handed back with the cause.
#[derive(Debug)]
pub struct Rejected {
    /// The connection.
    pub request: Request,
    /// Why it was not taken.
    pub why: io::Error,
}

impl Rejected {
    /// A request, and why it was not taken.
    pub fn new(request: Request, why: io::Error) -> Self {
        Self { request, why }
    }

    /// Whether the system lacks something (threads, processes, memory, descriptors), so that accepting had better rest.
    pub(crate) fn is_for_want_of_resources(&self) -> bool {
        use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
        matches!(self.why.raw_os_error(), Some(EAGAIN | EMFILE | ENFILE | ENOBUFS | ENOMEM))
    }

    pub(crate) fn refuse(mut self) {
        self.request.refuse(&self.why);
    }
}
