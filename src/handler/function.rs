//! [`handler`]: closures as handlers.
//!
//! No implementation of the trait covers all closures. A reference to a closure and a box of one are closures
//! too, so it would overlap with implementations for pointers to handlers.

use super::StreamRequestHandler;
use crate::connection::Connection;
use crate::error::HandlerResult;

/// A closure as a [`StreamRequestHandler`], made by [`handler`].
#[derive(Clone, Copy)]
pub struct HandlerFn<F>(F);

impl<F> std::fmt::Debug for HandlerFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandlerFn")
    }
}

/// Makes a handler from a closure. A closure alone does not do. The compiler takes a closure's argument types
/// from a bound on the closure itself, and does not look for them in a server's bounds.
///
/// ```
/// use socketserver::{handler, Threading, TcpServer};
///
/// let hello = handler(|conn| conn.send_line(format!("hello {}", conn.peer_addr())));
/// let server = TcpServer::with_strategy("127.0.0.1:0", hello, Threading::new())?;
/// assert_ne!(server.local_addr().port(), Some(0));
/// # Ok::<(), socketserver::Error>(())
/// ```
pub fn handler<F>(function: F) -> HandlerFn<F>
where
    F: Fn(&mut Connection) -> HandlerResult + Send + Sync + 'static,
{
    HandlerFn(function)
}

impl<F> StreamRequestHandler for HandlerFn<F>
where
    F: Fn(&mut Connection) -> HandlerResult + Send + Sync + 'static,
{
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        (self.0)(conn)
    }
}
