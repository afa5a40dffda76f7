//! Handlers of datagrams.

use std::sync::Arc;

use crate::connection::Datagram;
use crate::error::HandlerResult;

/// Serves datagrams: each is a request of its own. One handler serves them all, many at once where the strategy says
/// so, hence `&self`. For a closure see [`datagram_handler()`].
///
/// What it writes is collected, and sent to the peer as one datagram when it has returned `Ok`; nothing is sent where
/// nothing was written. After an error or a panic nothing of it is sent either; that is counted, logged, and told to
/// the [`handle_error`](crate::ServerBuilder::handle_error) hook, and the server goes on. (Python's sends an empty
/// datagram where nothing was written, and after an error what had been written until then.)
///
/// ```
/// use std::io::Write;
/// use socketserver::{Datagram, DatagramRequestHandler, HandlerResult, Sequential, UdpServer};
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
    note = "a closure is made one by `datagram_handler(|datagram| ...)`"
)]
pub trait DatagramRequestHandler: Send + Sync + 'static {
    /// Serves a datagram.
    ///
    /// # Errors
    /// Whatever the handler likes.
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult;
}

impl<H: DatagramRequestHandler + ?Sized> DatagramRequestHandler for Arc<H> {
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        (**self).handle(datagram)
    }
}

/// A closure as a [`DatagramRequestHandler`]. From [`datagram_handler`].
#[derive(Clone, Copy)]
pub struct DatagramHandlerFn<F>(F);

impl<F> std::fmt::Debug for DatagramHandlerFn<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatagramHandlerFn")
    }
}

/// Makes a handler of datagrams of a closure. Spelt out, since the compiler does not infer a closure's arguments
/// through the bounds of a server.
///
/// ```
/// use std::io::Write;
/// use socketserver::{datagram_handler, ServerBuilder};
///
/// let count = datagram_handler(|datagram| Ok(write!(datagram, "{} bytes", datagram.data().len())?));
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
