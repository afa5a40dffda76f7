//! The loop from other threads.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::{LoopInbox, SiblingLoops};
use crate::lifecycle::{Core, ServerHandle};
use crate::mailbox::Closed;

/// The loop from other threads: the only way in, since a [`Reactor`](crate::Reactor) does not leave its own. Clone it,
/// keep it, send it.
///
/// Of the loops of [`EventLoops`](crate::EventLoops) each has its own, which [`Context::handle`] gives, in
/// [`start_factory`](crate::event_loop::Factory::start_factory) at the earliest. Its calls are that loop's; what is meant for a
/// connection goes to the loop that has it, whichever handle is used.
///
/// ```
/// use std::time::Duration;
/// use socketserver::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// let other = std::thread::spawn(move || handle.call_from_thread(|cx| cx.stop()));
/// reactor.run()?;                                       // until the call from the other thread
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

    /// Of the loop that has this connection; of this handle's, where the connection is none of the server's.
    fn inbox_of(&self, id: ConnId) -> &Arc<LoopInbox> {
        self.team.inbox_at(id.home()).unwrap_or(&self.inbox)
    }

    /// Has `call` called by the loop, which is woken: in the order of the calls, those of one thread and those of
    /// several, as they arrive. Calls that are sent while others run wait for the next turn. Before the loop runs they
    /// are kept.
    /// A panic in it is contained and logged.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor has been dropped. A call that is sent at that very moment may be dropped.
    pub fn call_from_thread(&self, call: impl FnOnce(&mut Context<'_>) + Send + 'static) -> Result<(), ReactorGone> {
        self.inbox.send(Box::new(call)).map_err(gone)
    }

    /// Queues bytes for a connection. That it is gone by then does not show; use
    /// [`call_from_thread`](Self::call_from_thread) and [`Context::write_to`] to know. Until the loop takes them they count
    /// for no limit: who sends faster than the loop turns asks by such a call now and then.
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

    /// Sends a message to a connection's [`Protocol::message`](crate::Protocol::message). That the connection is gone by
    /// then does not show.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn post(&self, id: ConnId, message: impl Any + Send) -> Result<(), ReactorGone> {
        let post = move |cx: &mut Context<'_>| {
            cx.post(id, message);
        };
        self.inbox_of(id).send(Box::new(post)).map_err(gone)
    }

    /// As [`Context::stop`].
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn stop(&self) -> Result<(), ReactorGone> {
        self.call_from_thread(|cx| cx.stop())
    }

    /// As [`Context::shutdown`].
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn shutdown(&self, grace: Duration) -> Result<(), ReactorGone> {
        self.call_from_thread(move |cx| cx.shutdown(grace))
    }

    /// Counters, limits, pause and stop, as a server has them.
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
    /// A handle for other threads.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle::new(&self.state.loops.group, self.state.loops.number, &self.state.core)
    }

    /// The server's remote control: its counters, its limits, its stop.
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
