//! [`ReactorHandle`]: the loop from other threads. It is the loop's inbox, a queue of closures with an eventfd that is
//! rung once, however many calls come before the loop looks.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::{LoopInbox, SiblingLoops};
use crate::lifecycle::{Core, ServerHandle};
use crate::mailbox::Closed;

/// A handle to the loop for other threads. It is their only way in, because a [`Reactor`](crate::Reactor) does not
/// leave its own. Clone it, keep it, send it.
///
/// With [`EventLoops`](crate::EventLoops), each loop has its own. [`Context::handle`] returns it, at the earliest in
/// [`start_factory`](crate::event_loop::Factory::start_factory). Calls run in that loop. Writes and messages go to the
/// loop that has the connection, whichever handle is used.
///
/// ```
/// use std::time::Duration;
/// use socketserver::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// let other = std::thread::spawn(move || handle.call_from_thread(|cx| cx.stop()));
/// reactor.run()?; // until the call from the other thread
/// assert!(other.join().unwrap().is_ok());
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Clone)]
pub struct ReactorHandle {
    inbox: Arc<LoopInbox>,
    team: Arc<SiblingLoops>,
    core: Arc<Core>,
}

impl ReactorHandle {
    pub(crate) fn new(team: &Arc<SiblingLoops>, number: usize, core: &Arc<Core>) -> Self {
        Self { inbox: team.inbox(number).clone(), team: team.clone(), core: core.clone() }
    }

    /// Returns the inbox of the loop that has this connection. If the server has no such loop, it is this handle's.
    fn inbox_of(&self, id: ConnId) -> &Arc<LoopInbox> {
        self.team.inbox_at(id.home()).unwrap_or(&self.inbox)
    }

    /// Wakes the loop, which runs `call`. Calls run in the order in which they arrive. If a call arrives while others
    /// run, it waits for the next turn. Before the loop runs, calls are kept. A panic in `call` is contained and
    /// logged.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor is dropped. A call that is sent at that very moment may be dropped.
    pub fn call_from_thread(&self, call: impl FnOnce(&mut Context<'_>) + Send + 'static) -> Result<(), ReactorGone> {
        self.inbox.send(Box::new(call)).map_err(gone)
    }

    /// Queues bytes for a connection. It does not report that the connection is gone; to know, use
    /// [`call_from_thread`](Self::call_from_thread) with [`Context::write_to`]. Until the loop takes the bytes, no
    /// limit counts them. So a thread that sends faster than the loop turns should ask by such a call now and then.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn write(&self, id: ConnId, bytes: impl Into<Vec<u8>>) -> Result<(), ReactorGone> {
        let bytes = bytes.into();
        let write = move |cx: &mut Context<'_>| {
            cx.write_to(id, &bytes);
        };
        self.inbox_of(id).send(Box::new(write)).map_err(gone)
    }

    /// Sends a message to a connection's [`Protocol::message`](crate::Protocol::message). It does not report that the
    /// connection is gone.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn post(&self, id: ConnId, message: impl Any + Send) -> Result<(), ReactorGone> {
        let post = move |cx: &mut Context<'_>| {
            cx.post(id, message);
        };
        self.inbox_of(id).send(Box::new(post)).map_err(gone)
    }

    /// Stops the loop, as [`Context::stop`] does.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn stop(&self) -> Result<(), ReactorGone> {
        self.call_from_thread(|cx| cx.stop())
    }

    /// Shuts the loop down, as [`Context::shutdown`] does.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn shutdown(&self, grace: Duration) -> Result<(), ReactorGone> {
        self.call_from_thread(move |cx| cx.shutdown(grace))
    }

    /// Returns the handle that servers have: counters, limits, pause and stop.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.core.clone() }
    }
}

/// Only a reactor that is dropped closes its inbox.
fn gone(_: Closed) -> ReactorGone {
    ReactorGone
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle").finish_non_exhaustive()
    }
}

impl Context<'_> {
    /// Returns a handle for other threads.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle::new(&self.state.loops.group, self.state.loops.number, &self.state.core)
    }

    /// Returns the server's handle: its counters, its limits, its stop.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.state.core.clone() }
    }
}

/// The reactor has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReactorGone;

impl fmt::Display for ReactorGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor has been dropped")
    }
}

impl std::error::Error for ReactorGone {}
