//! What makes a protocol for each connection.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use log::Level;

use crate::event_loop::clients::connect_error::ConnectError;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::protocol::Protocol;
use crate::net::Addr;
use crate::observe::log_line;

/// Who has connected.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(crate) addr: Addr,
    pub(crate) id: ConnId,
}

impl Peer {
    /// The peer's address, as `accept` told it.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The connection's id.
    pub fn id(&self) -> ConnId {
        self.id
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr.fmt(f)
    }
}

/// Makes a [`Protocol`] for each connection (Twisted's `Factory`). A function or closure `Fn(&Peer) -> P` is one; give
/// closures through [`factory()`], which lets the compiler infer their argument. What the connections of a server share
/// lives here, as an `Rc<RefCell<...>>` that each protocol gets a copy of: a loop is one thread.
#[diagnostic::on_unimplemented(
    message = "`{Self}` makes no protocols",
    label = "not a `Factory`",
    note = "a protocol, or a closure that makes it, is made one by `factory(|peer| MyProtocol::new())`",
    note = "an event loop serves a `Protocol` for each connection; a `StreamRequestHandler` wants a strategy like `Threading`"
)]
pub trait Factory {
    /// The protocol of a new connection; `None` refuses it: it is closed at once, and counted as refused. When
    /// this panics, it is closed as well, and counted as a panic.
    fn build_protocol(&self, cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>>;

    /// The first use of this factory in this loop: a listener or a client. One that is shared, as an `Rc<F>`, by several
    /// is told once.
    fn start_factory(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The last listener has ended, and nothing is left of the last client. Connections of a listener may still be open.
    fn stop_factory(&self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// A client has not connected: refused, in vain for too long, stopped, ... The error says whether another attempt
    /// follows; [`Context::connect_again`] begins one now, [`Context::stop_reconnecting`] prevents it. Logs a warning, if
    /// not defined otherwise.
    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        let _ = cx;
        log_line(Level::Warn, "socketserver::event_loop", format_args!("{error}"));
    }

    /// Factories of which this is the same are one.
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

/// A closure as a [`Factory`].
///
/// ```
/// use socketserver::{factory, HandlerResult, Protocol, Reactor, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
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
    /// Whether it is the first.
    pub(crate) fn add(&mut self, factory: &Rc<dyn Factory>) -> bool {
        let users = self.0.entry(factory.identity()).or_default();
        *users += 1;
        *users == 1
    }

    /// Whether it was the last.
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

/// A server's factory, which the server keeps as well.
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
