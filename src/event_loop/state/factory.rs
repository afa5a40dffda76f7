//! [`Factory`]: makes a protocol for each connection.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::event_loop::clients::connect_error::ConnectError;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::protocol::Protocol;
use crate::net::Addr;

/// The peer of a new connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(crate) addr: Addr,
    pub(crate) id: ConnId,
}

impl Peer {
    /// Returns the peer's address, as `accept` gave it.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Returns the connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// Makes a [`Protocol`] for each connection (Twisted's `Factory`). A function or closure `Fn(&Peer) -> P` is one. Give
/// closures through [`factory()`], which lets the compiler infer their argument.
///
/// What the connections of a server share lives here. A loop is one thread, so that can be an `Rc<RefCell<...>>`,
/// with a clone for each protocol.
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes no protocols",
    label = "not a `Factory`",
    note = "`factory(|peer| MyProtocol::new())` makes a factory of a protocol",
    note = "an event loop serves a `Protocol` for each connection; a `StreamRequestHandler` needs a strategy such as `Threading`"
)]
pub trait Factory {
    /// Makes the protocol of a new connection. `None` refuses the connection: it is closed at once, and counted as
    /// refused. After a panic it is closed too, and counted as a panic.
    fn build_protocol(&self, cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>>;

    /// Called at the first use of this factory in this loop, by a listener or a client. If several share it, as an
    /// `Rc<F>`, it is called once.
    fn start_factory(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Called when the last listener has closed and the last client is gone. Connections of a listener may still be
    /// open.
    fn stop_factory(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Called when an attempt of a client has failed: it was refused, timed out, was stopped. The error says if
    /// another attempt follows. [`Context::connect_again`] begins one now, [`Context::stop_reconnecting`] prevents
    /// it. By default it logs a warning.
    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        cx.state.core.monitor.report_failed_attempt(error);
    }

    /// Returns what identifies the factory: two with the same identity are one.
    #[doc(hidden)]
    fn identity(&self) -> *const () {
        std::ptr::from_ref(self).cast()
    }
}

#[diagnostic::do_not_recommend] // the notes above explain better than "expected a closure"
impl<F, P> Factory for F
where
    F: Fn(&Peer) -> P,
    P: Protocol + 'static,
{
    fn build_protocol(&self, _cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(self(peer)))
    }
}

/// One factory for several listeners and clients.
#[diagnostic::do_not_recommend]
impl<F: Factory + ?Sized> Factory for Rc<F> {
    fn build_protocol(&self, cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>> {
        (**self).build_protocol(cx, peer)
    }

    fn start_factory(&self, cx: &mut Context<'_>) {
        (**self).start_factory(cx);
    }

    fn stop_factory(&self, cx: &mut Context<'_>) {
        (**self).stop_factory(cx);
    }

    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        (**self).connection_failed(cx, error);
    }

    fn identity(&self) -> *const () {
        (**self).identity()
    }
}

/// Makes a [`Factory`] of a closure.
///
/// ```
/// use socketserver::{factory, HandlerResult, Protocol, Reactor, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         Ok(transport.write(data)?)
///     }
/// }
///
/// let mut reactor = Reactor::new()?;
/// let port = reactor.listen_tcp("127.0.0.1:0", factory(|_peer| Echo))?;
/// assert_ne!(port.local_addr().port(), Some(0));
/// # Ok::<(), socketserver::Error>(())
/// ```
pub fn factory<F, P>(build: F) -> F
where
    F: Fn(&Peer) -> P,
    P: Protocol + 'static,
{
    build
}

/// How many listeners and clients use each factory.
#[derive(Debug, Default)]
pub(crate) struct FactoryRefs(HashMap<*const (), usize>);

impl FactoryRefs {
    /// Counts a use. True if it is the first.
    pub(crate) fn add(&mut self, factory: &Rc<dyn Factory>) -> bool {
        let users = self.0.entry(factory.identity()).or_default();
        *users += 1;
        *users == 1
    }

    /// Uncounts a use. True if it was the last.
    pub(crate) fn remove(&mut self, factory: &Rc<dyn Factory>) -> bool {
        let Some(users) = self.0.get_mut(&factory.identity()) else { return false };
        *users -= 1;
        let last = *users == 0;
        if last {
            self.0.remove(&factory.identity());
        }
        last
    }
}

/// A server's factory, which the server and each of its loops share.
pub(crate) struct SharedFactory<F>(pub(crate) Arc<F>);

impl<F: Factory> Factory for SharedFactory<F> {
    fn build_protocol(&self, cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>> {
        self.0.build_protocol(cx, peer)
    }

    fn start_factory(&self, cx: &mut Context<'_>) {
        self.0.start_factory(cx);
    }

    fn stop_factory(&self, cx: &mut Context<'_>) {
        self.0.stop_factory(cx);
    }
}
