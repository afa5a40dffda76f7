//! The handlers of connections and of datagrams: the code that you write.
//!
//! One [`StreamRequestHandler`] serves all connections. [`per_connection()`] makes a
//! [`StreamRequestHandlerMut`] for each. [`handler()`] and [`datagram_handler()`] make a handler from a
//! closure. [`per_request()`] and [`sessions()`] make one that is called for each request. All of these are at the
//! crate's root too. Look here for the types that these functions return, to name one in a field or a signature:
//! [`HandlerFn`], [`PerConnection`], [`PerRequest`], [`DatagramHandlerFn`].

// `run` calls the methods of one request in order. This folder does not know where a request runs or how it
// is counted.

mod datagram;
mod function;
mod per_connection;
mod per_request;

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;

use crate::connection::Connection;
use crate::error::HandlerResult;
use crate::panics::forget;

pub use datagram::{datagram_handler, DatagramHandlerFn, DatagramRequestHandler};
pub use function::{handler, HandlerFn};
pub use per_connection::{per_connection, PerConnection, StreamRequestHandlerMut};
#[doc(hidden)]
pub use per_request::MakeSession;
pub use per_request::{per_request, sessions, Next, PerRequest, RequestFn, Session, SessionMaker};

/// A handler of connections. One handler serves all of them, many at once if the strategy does so: hence
/// `&self`. State that it changes lies behind a lock or an atomic. For a fresh value for each connection, see
/// [`per_connection()`]; to make one from a closure, [`handler()`].
///
/// A handler is a value, not a class: it can hold configuration, be tested alone, and be asked for results
/// afterwards ([`TcpServer::handler`](crate::TcpServer::handler)).
///
/// The methods run in Python's order: `setup`, `handle`, `finish`. An error or a panic in one of them ends
/// that connection only. Its output is sent first. The error is counted, logged, and reported to the
/// [`handle_error`](crate::ServerBuilder::handle_error) hook.
///
/// ```
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler};
///
/// struct Greeter;
///
/// impl StreamRequestHandler for Greeter {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         conn.send_line("Thank you for connecting")
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    label = "not a `StreamRequestHandler`",
    note = "`handler(|conn| ...)` makes a handler of a closure",
    note = "`per_connection(|| MyHandler::new())` makes a handler of a type with `&mut self` methods",
    note = "if `per_connection` is there already, an alias such as `TcpServer<MyHandler, _>` names the wrong type: call `ServerBuilder::new().bind(…)`",
    note = "for a factory of protocols (`factory(|peer| MyProtocol::new())`), take an event loop, `ServerBuilder::new().strategy(EventLoop::new())`, or wrap it in `Blocking(factory)`"
)]
#[doc(alias = "middleware")]
pub trait StreamRequestHandler: Send + Sync + 'static {
    /// Called first. If it fails, neither `handle` nor `finish` is called.
    ///
    /// # Errors
    /// Any error of the handler.
    fn setup(&self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// Serves the connection. When it returns, the connection is closed.
    ///
    /// # Errors
    /// Any error of the handler.
    fn handle(&self, conn: &mut Connection) -> HandlerResult;

    /// Called last, also after an error or a panic in `handle`. Its error counts if `handle` had none.
    ///
    /// # Errors
    /// Any error of the handler.
    fn finish(&self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// True if it is called for each request, as [`per_request`] says. Then it has sessions.
    #[doc(hidden)]
    fn is_per_request(&self) -> bool {
        false
    }

    /// Makes the session of a connection.
    #[doc(hidden)]
    fn session(&self) -> Option<Box<dyn Session>> {
        None
    }

    /// Returns the number of descriptors that a connection takes.
    #[doc(hidden)]
    fn descriptors() -> usize
    where
        Self: Sized,
    {
        1
    }
}

impl<H: StreamRequestHandler + ?Sized> StreamRequestHandler for Arc<H> {
    fn setup(&self, conn: &mut Connection) -> HandlerResult {
        (**self).setup(conn)
    }

    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        (**self).handle(conn)
    }

    fn finish(&self, conn: &mut Connection) -> HandlerResult {
        (**self).finish(conn)
    }

    fn is_per_request(&self) -> bool {
        (**self).is_per_request()
    }

    fn session(&self) -> Option<Box<dyn Session>> {
        (**self).session()
    }
}

/// A reference to a shared handler is a value for one connection, so `run` serves both kinds.
impl<H: StreamRequestHandler + ?Sized> StreamRequestHandlerMut for &H {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        (**self).setup(conn)
    }

    fn handle(&mut self, conn: &mut Connection) -> HandlerResult {
        (**self).handle(conn)
    }

    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        (**self).finish(conn)
    }
}

/// Runs the methods of one request. `finish` runs if `setup` has succeeded, after a panic too.
pub(crate) fn run<H: StreamRequestHandlerMut>(handler: &mut H, conn: &mut Connection) -> HandlerResult {
    handler.setup(conn)?;
    let handled = catch_unwind(AssertUnwindSafe(|| handler.handle(conn)));
    let finished = catch_unwind(AssertUnwindSafe(|| handler.finish(conn)));
    match (handled, finished) {
        (Ok(handled), Ok(finished)) => handled.and(finished),
        // One panic can go on. The second one's payload is dropped with care: its drop may panic.
        (Err(panic), later) => {
            if let Err(later) = later {
                forget(later);
            }
            resume_unwind(panic)
        }
        (Ok(_), Err(panic)) => resume_unwind(panic),
    }
}
