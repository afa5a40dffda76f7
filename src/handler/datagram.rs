//! [`DatagramRequestHandler`], and closures as such.

use std::sync::Arc;

use crate::connection::Datagram;
use crate::error::HandlerResult;

/// A handler of datagrams. Each datagram is one request. One handler serves all of them, many at once if the
/// strategy does so: hence `&self`. To make one from a closure, see [`datagram_handler()`].
///
/// The reply is collected, and sent to the peer as one datagram after `handle` has returned `Ok`. Nothing is
/// sent if nothing was written, nor after an error or a panic. An error is counted, logged, and reported to
/// the [`handle_error`](crate::ServerBuilder::handle_error) hook, and the server goes on. (Python sends an
/// empty datagram if nothing was written, and after an error the part that was written.)
///
/// ```
/// use std::io::Write;
/// use socketserver::{Datagram, DatagramRequestHandler, HandlerResult};
/// use socketserver::{Sequential, UdpServer};
///
/// struct Upper;
///
/// impl DatagramRequestHandler for Upper {
///     fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
///         let upper = datagram.data().to_ascii_uppercase();
///         datagram.write_all(&upper)?;
///         Ok(())
///     }
/// }
///
/// let mut server: UdpServer<_, Sequential> = UdpServer::bind("127.0.0.1:0", Upper)?;
/// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", server.local_addr().socket_addr().unwrap())?;
/// assert!(server.handle_request(None)?);
/// let mut reply = [0; 10];
/// assert_eq!(client.recv(&mut reply)?, 5);
/// assert_eq!(&reply[..5], b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler of datagrams",
    label = "not a `DatagramRequestHandler`",
    note = "`datagram_handler(|datagram| ...)` makes a handler of a closure"
)]
pub trait DatagramRequestHandler: Send + Sync + 'static {
    /// Serves one datagram.
    ///
    /// # Errors
    /// Any error of the handler.
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult;
}

impl<H: DatagramRequestHandler + ?Sized> DatagramRequestHandler for Arc<H> {
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        (**self).handle(datagram)
    }
}

/// A closure as a [`DatagramRequestHandler`], made by [`datagram_handler`].
#[derive(Clone, Copy)]
pub struct DatagramHandlerFn<F>(F);

impl<F> std::fmt::Debug for DatagramHandlerFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramHandlerFn")
    }
}

/// Makes a handler of datagrams from a closure. A closure alone does not do: the compiler does not infer its
/// arguments through the bounds of a server.
///
/// ```
/// use std::io::Write;
/// use socketserver::{datagram_handler, ServerBuilder};
///
/// let count = datagram_handler(|datagram| {
///     Ok(write!(datagram, "{} bytes", datagram.data().len())?)
/// });
/// let server = ServerBuilder::new().bind_udp("127.0.0.1:0", count)?;
/// assert_ne!(server.local_addr().port(), Some(0));
/// # Ok::<(), socketserver::Error>(())
/// ```
pub fn datagram_handler<F>(function: F) -> DatagramHandlerFn<F>
where
    F: Fn(&mut Datagram) -> HandlerResult + Send + Sync + 'static,
{
    DatagramHandlerFn(function)
}

impl<F> DatagramRequestHandler for DatagramHandlerFn<F>
where
    F: Fn(&mut Datagram) -> HandlerResult + Send + Sync + 'static,
{
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        (self.0)(datagram)
    }
}
