//! Calls of the user's code: never two at once, and no panic of it escapes.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use crate::error::HandlerResult;
use crate::event_loop::conns::stream::is_refused_write;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;
use crate::net::Addr;
use crate::panics::{caught, forget, panic_message};

impl State {
    /// Calls the connection's protocol. An error or a panic ends the connection. If the protocol has named a successor,
    /// that takes over.
    pub(crate) fn call<R>(
        &mut self,
        id: ConnId,
        callback: &'static str,
        call: impl FnOnce(&mut dyn Protocol, &mut Transport<'_>) -> HandlerResult<R>,
    ) -> Option<R> {
        let done = self.call_once(id, callback, call);
        if self.conns.get(id).is_some_and(Conn::is_switching) {
            // The successor may name one as well, from within its `connection_made`.
            let mut succeeded = done.is_some();
            while self.switch(id, succeeded) {
                succeeded = self.call_once(id, "connection_made", |p, t| p.connection_made(t)).is_some();
            }
        }
        done
    }

    fn call_once<R>(
        &mut self,
        id: ConnId,
        callback: &'static str,
        call: impl FnOnce(&mut dyn Protocol, &mut Transport<'_>) -> HandlerResult<R>,
    ) -> Option<R> {
        // Out of its slot, so that the transport may borrow all the rest of the loop. Meanwhile the slot holds the
        // queue, the flags and the timers. No `RefCell` is needed, and no protocol can be called while it is called.
        let mut protocol = self.conns.get_mut(id)?.protocol.take()?;
        self.time.now = self.time.clock.now();
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, &mut Transport::new(self, id))));
        if let Some(conn) = self.conns.get_mut(id) {
            conn.protocol = Some(protocol);
        }
        self.note_stall_of(callback, id);
        match result {
            Ok(Ok(done)) => return Some(done),
            // A refused write to a connection that is ending is no failure.
            Ok(Err(e)) if !self.takes_output(id) && caught(|| is_refused_write(&*e)) == Ok(true) => forget(e),
            Ok(Err(e)) => self.end(id, LostReason::Error(e)),
            Err(payload) => self.end(id, LostReason::Panic(take_message(payload))),
        }
        None
    }

    /// Calls code that belongs to no connection. A panic is logged.
    pub(crate) fn call_free(&mut self, what: &'static str, call: impl FnOnce(&mut Context<'_>)) {
        self.time.now = self.time.clock.now();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(&mut Context { state: self }))) {
            let text = take_message(payload);
            self.core.monitor.report_panic_of_call(what, &text);
        }
        self.note_stall(what, None);
    }

    /// Reports a callback that took long, because all connections have waited for it. Nothing else in a loop shows
    /// which one it was. Price: one more look at the clock, which keeps the loop's time fresh for timers too.
    pub(crate) fn note_stall(&mut self, callback: &'static str, peer: Option<&Addr>) {
        if let Some(took) = self.stall() {
            self.core.monitor.report_stall(callback, peer, took);
        }
    }

    /// Reports a long callback of one connection, as `note_stall` does.
    pub(crate) fn note_stall_of(&mut self, callback: &'static str, id: ConnId) {
        if let Some(took) = self.stall() {
            let peer = self.conns.get(id).map(|conn| &conn.peer);
            self.core.monitor.report_stall(callback, peer, took);
        }
    }

    /// Refreshes the clock. `Some` if the time since its last reading is worth a report.
    fn stall(&mut self) -> Option<Duration> {
        let before = std::mem::replace(&mut self.time.now, self.time.clock.now());
        let took = self.time.now.saturating_duration_since(before);
        (took >= self.settings.slow_callback).then_some(took)
    }
}

/// Takes the text of a panic, and drops its payload, whose own `drop` may panic.
pub(crate) fn take_message(payload: Box<dyn Any + Send>) -> String {
    let text = panic_message(payload.as_ref());
    forget(payload);
    text
}
