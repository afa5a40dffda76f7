//! What a user writes: the handler of a connection, or of a datagram.

mod datagram;
mod function;
mod per_connection;

use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::Arc;

use crate::connection::Connection;
use crate::error::HandlerResult;
use crate::panics::forget;

pub use datagram::{datagram_handler, DatagramHandlerFn, DatagramRequestHandler};
pub use function::{handler, HandlerFn};
pub use per_connection::{per_connection, PerConnection, StreamRequestHandlerMut};

/// Serves connections. One handler serves them all, many at once where the strategy says so, hence `&self`; what it
/// changes lies behind a lock or an atomic. For a fresh value per connection see [`per_connection()`]; for a closure,
/// [`handler()`].
///
/// The methods run in Python's order: `setup`, `handle`, `finish`. An error or a panic in one of them ends that
/// connection only, after what it had written has been sent; it is counted, logged, and told to the
/// [`handle_error`](crate::ServerBuilder::handle_error) hook.
///
/// ```
/// use std::io::Write;
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler};
///
/// struct Greeter;
///
/// impl StreamRequestHandler for Greeter {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         conn.write_all(b"Thank you for connecting\n")?;
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    label = "not a `StreamRequestHandler`",
    note = "a closure is made one by `handler(|conn| ...)`",
    note = "a type with `&mut self` methods is made one by `per_connection(|| MyHandler::new())`",
    note = "a factory of protocols is made one by `Blocking(factory)`, or wants an event loop: `ServerBuilder::new().strategy(EventLoop::new())`"
)]
pub trait StreamRequestHandler: Send + Sync + 'static {
    /// Called first. Where it fails, neither `handle` nor `finish` is called.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn setup(&self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// Serves the connection. When it returns, the connection is closed.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn handle(&self, conn: &mut Connection) -> HandlerResult;

    /// Called last, also after an error or a panic in `handle`. Its error counts where `handle` had none.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn finish(&self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
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
}

/// A shared handler is run as a value of its own for the connection: a reference.
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

/// The whole of a request: `finish` runs whenever `setup` has succeeded, panics included.
pub(crate) fn run<H: StreamRequestHandlerMut>(handler: &mut H, conn: &mut Connection) -> HandlerResult {
    handler.setup(conn)?;
    let handled = catch_unwind(AssertUnwindSafe(|| handler.handle(conn)));
    let finished = catch_unwind(AssertUnwindSafe(|| handler.finish(conn)));
    match (handled, finished) {
        (Ok(handled), Ok(finished)) => handled.and(finished),
        (Err(panic), later) => {
            if let Err(later) = later {
                forget(later);
            }
            resume_unwind(panic)
        }
        (Ok(_), Err(panic)) => resume_unwind(panic),
    }
}
