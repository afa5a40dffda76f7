//! A fresh handler for each connection.

use std::marker::PhantomData;

use super::{run, StreamRequestHandler};
use crate::connection::Connection;
use crate::error::HandlerResult;

/// A handler of one connection, with state of its own: Python's `StreamRequestHandler`, of which there is an instance
/// per request. Made by [`per_connection`].
pub trait StreamRequestHandlerMut {
    /// Called first. Where it fails, neither `handle` nor `finish` is called.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }

    /// Serves the connection. When it returns, the connection is closed.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn handle(&mut self, conn: &mut Connection) -> HandlerResult;

    /// Called last, also after an error or a panic in `handle`. Its error counts where `handle` had none.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        let _ = conn;
        Ok(())
    }
}

/// A maker of handlers as a [`StreamRequestHandler`]. From [`per_connection`].
pub struct PerConnection<F, H> {
    make: F,
    made: PhantomData<fn() -> H>,
}

impl<F, H> std::fmt::Debug for PerConnection<F, H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PerConnection")
    }
}

/// Gives each connection a handler of its own.
///
/// ```
/// use std::io::Write;
/// use socketserver::{per_connection, Connection, HandlerResult, Sequential, StreamRequestHandlerMut, TcpServer};
///
/// #[derive(Default)]
/// struct Counter { lines: usize }
///
/// impl StreamRequestHandlerMut for Counter {
///     fn handle(&mut self, conn: &mut Connection) -> HandlerResult {
///         while let Some(line) = conn.next_line()? {
///             self.lines += 1;
///             writeln!(conn, "{}: {line}", self.lines)?;
///         }
///         Ok(())
///     }
/// }
///
/// let server = TcpServer::with_strategy("127.0.0.1:0", per_connection(Counter::default), Sequential)?;
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
