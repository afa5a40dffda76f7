//! Servers of datagrams.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{ServerBuilder, TcpServer};
use crate::accept::ServingStrategy;
use crate::error::Result;
use crate::handler::DatagramRequestHandler;
use crate::lifecycle::ServerHandle;
use crate::net::{Addr, Address};
use crate::observe::Report;
use crate::strategy::Threading;

/// A server of datagrams: handler `H` serves each, strategy `S` says where. Python's
/// `class Server(ThreadingMixIn, UDPServer)` is `type Server = UdpServer<Handler, Threading>`.
///
/// ```
/// use std::io::Write;
/// use std::net::UdpSocket;
/// use socketserver::{Datagram, DatagramRequestHandler, HandlerResult, Threading, UdpServer};
///
/// struct Upper;
///
/// impl DatagramRequestHandler for Upper {
///     fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
///         let upper = datagram.data().to_ascii_uppercase();
///         Ok(datagram.write_all(&upper)?)
///     }
/// }
///
/// type Server = UdpServer<Upper, Threading>;
///
/// let mut server = Server::bind("127.0.0.1:0", Upper)?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", addr)?;
/// let mut reply = [0; 10];
/// let (n, from) = client.recv_from(&mut reply)?;
/// assert_eq!((&reply[..n], from), (&b"HELLO"[..], addr));
///
/// handle.shutdown();
/// assert_eq!(serving.join().unwrap()?.served, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A datagram is a request as an accepted connection is one: it takes a place among
/// [`max_connections`](ServerBuilder::max_connections) (as many handlers run, exactly; the others wait in the kernel's
/// queue, which drops what it has no room for), it is verified, counted, and drained. In the counters, *accepted* is
/// received.
///
/// | of the settings | for datagrams |
/// |---|---|
/// | [`max_packet_size`](ServerBuilder::max_packet_size) | how much of one is received |
/// | [`write_timeout`](ServerBuilder::write_timeout) | how long a reply may wait for room in a queue: that of a Unix socket which nobody reads |
/// | [`request_timeout`](ServerBuilder::request_timeout) | the same, from the start of the handler. With [`Forking`](crate::Forking) it ends the handler's process; elsewhere nothing ends a handler that computes |
/// | [`drain_timeout`](ServerBuilder::drain_timeout) | what was queued at the stop is served within it, or as far as the queue is first found empty; newcomers are not waited for |
/// | [`at_limit`](ServerBuilder::at_limit) | with [`Refuse`](crate::AtLimit::Refuse), the message is the reply to what comes beyond the limit |
/// | [`unix_mode`](ServerBuilder::unix_mode), [`unix_owner`](ServerBuilder::unix_owner) | who may send to a Unix socket |
/// | the hooks, signals, [`only_v6`](ServerBuilder::only_v6) | as for connections |
/// | idle and read limits, buffers, lines, backlog, `no_delay`, keep-alive, lingering | of no effect |
///
/// Bound to all addresses (`0.0.0.0`, `[::]`), it replies from the one that the datagram was sent to.
#[derive(Debug)]
#[must_use = "a server serves when serve_forever is called"]
pub struct UdpServer<H, S = Threading> {
    pub(super) server: TcpServer<Datagrams<H>, S>,
}

/// A server of datagrams on a Unix socket: Python's `UnixDatagramServer`. As with [`UnixServer`](crate::UnixServer) it is
/// the address that decides, so this is another name for the same type.
///
/// A client that wants a reply binds its socket to a name, or asks the kernel for one (binding to an empty name).
pub type UnixDatagramServer<H, S = Threading> = UdpServer<H, S>;

/// A handler of datagrams, told from one of connections.
#[derive(Debug)]
pub(crate) struct Datagrams<H>(pub(super) Arc<H>);

impl<H: DatagramRequestHandler, S: ServingStrategy> UdpServer<H, S> {
    /// Receives on an address, with the strategy's and the server's defaults. Name the strategy in an alias
    /// (`type Server = UdpServer<Handler, Threading>`).
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen) with the address, the failed act and the system's answer.
    pub fn bind(address: impl Into<Address>, handler: H) -> Result<Self>
    where
        S: Default,
    {
        Self::with_strategy(address, handler, S::default())
    }

    /// As [`bind`](Self::bind), with a strategy made by hand.
    ///
    /// # Errors
    /// As there, and [`Error::Setting`](crate::Error::Setting) for a strategy's setting that makes no sense.
    pub fn with_strategy(address: impl Into<Address>, handler: H, strategy: S) -> Result<Self> {
        ServerBuilder::new().strategy(strategy).bind_udp(address, handler)
    }

    /// Serves until [`ServerHandle::shutdown`] (or a signal), then drains, and returns the account of this run, as
    /// [`TcpServer::serve_forever`] does. The socket stays open, and what comes meanwhile waits in it.
    ///
    /// # Errors
    /// As there.
    pub fn serve_forever(&mut self) -> Result<Report> {
        self.server.serve_forever()
    }

    /// Waits for one datagram, gives it to the strategy, and returns: `false` once `timeout` has passed (`None`: no
    /// limit; zero: no wait) or the server was told to stop. As [`TcpServer::handle_request`].
    ///
    /// # Errors
    /// As there.
    pub fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.server.handle_request(timeout)
    }
}

impl<H, S> UdpServer<H, S> {
    /// The address of the first socket, with the real port.
    pub fn local_addr(&self) -> &Addr {
        self.server.local_addr()
    }

    /// The addresses of all sockets.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Addr> {
        self.server.local_addrs()
    }

    /// The descriptors of all sockets, to be watched in a loop of the program's own, as [`TcpServer::listeners`].
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.server.listeners()
    }

    /// The server's remote control.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// The handler that serves the datagrams.
    pub fn handler(&self) -> &Arc<H> {
        &self.server.handler().0
    }
}
