//! [`per_connection`]: a fresh handler for each connection.

use std::marker::PhantomData;

use super::{run, StreamRequestHandler};
use crate::connection::Connection;
use crate::error::HandlerResult;

/// A handler of one connection, with state of its own. Python's `StreamRequestHandler` is such: it has one
/// instance for each request. [`per_connection`] makes them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `StreamRequestHandlerMut`; one `StreamRequestHandler` serves all connections, so bind it without `per_connection`",
    label = "not a `StreamRequestHandlerMut`"
)]
pub trait StreamRequestHandlerMut {
    /// Called first. If it fails, neither `handle` nor `finish` is called.
    ///
    /// # Errors
    /// Any error of the handler.
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// Serves the connection. When it returns, the connection is closed.
    ///
    /// # Errors
    /// Any error of the handler.
    fn handle(&mut self, conn: &mut Connection) -> HandlerResult;

    /// Called last, also after an error or a panic in `handle`. Its error counts if `handle` had none.
    ///
    /// # Errors
    /// Any error of the handler.
    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }
}

/// A maker of handlers as a [`StreamRequestHandler`], made by [`per_connection`].
pub struct PerConnection<F, H> {
    make: F,
    made: PhantomData<fn() -> H>,
}

impl<F, H> std::fmt::Debug for PerConnection<F, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PerConnection")
    }
}

/// Gives each connection a handler of its own. The handler is made and dropped on the thread that serves, so
/// it need not be `Send` or `Sync`.
///
/// ```
/// use socketserver::{per_connection, Connection, HandlerResult};
/// use socketserver::{Sequential, StreamRequestHandlerMut, TcpServer};
///
/// #[derive(Default)]
/// struct Counter { lines: usize }
///
/// impl StreamRequestHandlerMut for Counter {
///     fn handle(&mut self, conn: &mut Connection) -> HandlerResult {
///         while conn.next_request()? {
///             let Some(line) = conn.next_line()? else { break };
///             self.lines += 1;
///             conn.send_line(format!("{}: {line}", self.lines))?;
///         }
///         Ok(())
///     }
/// }
///
/// let handler = per_connection(Counter::default);
/// let server = TcpServer::with_strategy("127.0.0.1:0", handler, Sequential)?;
/// # Ok::<(), socketserver::Error>(())
/// ```
pub fn per_connection<F, H>(make: F) -> PerConnection<F, H>
where
    F: Fn() -> H + Send + Sync + 'static,
    H: StreamRequestHandlerMut + 'static,
{
    PerConnection { make, made: PhantomData }
}

impl<F, H> StreamRequestHandler for PerConnection<F, H>
where
    F: Fn() -> H + Send + Sync + 'static,
    H: StreamRequestHandlerMut + 'static,
{
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        run(&mut (self.make)(), conn)
    }
}
