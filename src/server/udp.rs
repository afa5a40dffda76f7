//! [`UdpServer`]: a server of datagrams.

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

/// A server of datagrams. Handler `H` serves them, strategy `S` says where. Python's
/// `class Server(ThreadingMixIn, UDPServer)` is `type Server = UdpServer<Handler, Threading>`.
///
/// ```
/// use std::io::Write;
/// use std::net::UdpSocket;
/// use socketserver::{Datagram, DatagramRequestHandler, HandlerResult};
/// use socketserver::{Threading, UdpServer};
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
/// A datagram is a request, as an accepted connection is. It takes a permit: at most
/// [`max_connections`](ServerBuilder::max_connections) handlers run at once. Other datagrams wait in the
/// kernel's queue, which drops those that it has no room for. A datagram is verified, counted, and drained.
/// In the counters, *accepted* means received.
///
/// | setting | for datagrams |
/// |---|---|
/// | [`max_packet_size`] | the most bytes of a datagram that are received |
/// | [`write_timeout`] | how long a reply may wait for room in the queue of a Unix socket |
/// | [`request_timeout`] | the same, from the start of the handler |
/// | [`drain_timeout`] | the time for the datagrams that were queued at the stop; later ones are left |
/// | [`at_limit`] | with [`Refuse`](crate::AtLimit::Refuse), the message is the reply beyond the limit |
/// | [`unix_mode`], [`unix_owner`] | which users may send to a Unix socket |
/// | the hooks, signals, [`only_v6`] | as for connections |
/// | idle and read limits, buffers, lines, backlog, `no_delay`, keep-alive, lingering, proxies, TLS | no effect |
///
/// With [`Forking`](crate::Forking), the request limit ends the handler's process. With other strategies it
/// does not end a handler that computes.
///
/// [`max_packet_size`]: ServerBuilder::max_packet_size
/// [`write_timeout`]: ServerBuilder::write_timeout
/// [`request_timeout`]: ServerBuilder::request_timeout
/// [`drain_timeout`]: ServerBuilder::drain_timeout
/// [`at_limit`]: ServerBuilder::at_limit
/// [`unix_mode`]: ServerBuilder::unix_mode
/// [`unix_owner`]: ServerBuilder::unix_owner
/// [`only_v6`]: ServerBuilder::only_v6
///
/// A server that is bound to all addresses (`0.0.0.0`, `[::]`) replies from the address that the datagram was
/// sent to.
#[derive(Debug)]
#[must_use = "a server serves when serve_forever is called"]
pub struct UdpServer<H, S = Threading> {
    pub(super) server: TcpServer<Datagrams<H>, S>,
}

/// A server of datagrams on a Unix socket (Python's `UnixDatagramServer`). It is another name for
/// [`UdpServer`]: the address decides.
///
/// A client that wants a reply binds its socket to a name, or asks the kernel for one (binding to an empty
/// name).
pub type UnixDatagramServer<H, S = Threading> = UdpServer<H, S>;

/// A handler of datagrams, as a type that is no handler of connections.
#[derive(Debug)]
pub(crate) struct Datagrams<H>(pub(super) Arc<H>);

impl<H: DatagramRequestHandler, S: ServingStrategy> UdpServer<H, S> {
    /// Receives on an address, with the defaults of the strategy and the server. Name the strategy in an
    /// alias (`type Server = UdpServer<Handler, Threading>`).
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen) with the address, the failed act and the system's answer.
    pub fn bind(address: impl Into<Address>, handler: H) -> Result<Self>
    where
        S: Default,
    {
        Self::with_strategy(address, handler, S::default())
    }

    /// As [`bind`](Self::bind), with a strategy that has settings of its own.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Setting`](crate::Error::Setting) for a setting of the strategy
    /// that makes no sense.
    pub fn with_strategy(address: impl Into<Address>, handler: H, strategy: S) -> Result<Self> {
        ServerBuilder::new().strategy(strategy).bind_udp(address, handler)
    }

    /// Serves until [`ServerHandle::shutdown`] (or a signal), then drains, and returns the report of this
    /// run, as [`TcpServer::serve_forever`] does. The socket stays open, and datagrams wait in it until the
    /// next run.
    ///
    /// # Errors
    /// As [`TcpServer::serve_forever`].
    pub fn serve_forever(&mut self) -> Result<Report> {
        self.server.serve_forever()
    }

    /// Waits for one datagram, gives it to the strategy, and returns `true`, as [`TcpServer::handle_request`]
    /// does. It returns `false` if `timeout` has passed (`None`: no limit; zero: no wait), or if the server
    /// was asked to stop. A stop stays until [`serve_forever`](Self::serve_forever) has drained.
    ///
    /// # Errors
    /// As [`TcpServer::handle_request`].
    pub fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.server.handle_request(timeout)
    }
}

impl<H, S> UdpServer<H, S> {
    /// Returns the address of the first socket, with the real port.
    pub fn local_addr(&self) -> &Addr {
        self.server.local_addr()
    }

    /// Returns the addresses of all sockets.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Addr> {
        self.server.local_addrs()
    }

    /// Returns the descriptors of all sockets, for a loop of your own, as [`TcpServer::listeners`] does.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.server.listeners()
    }

    /// Returns the server's handle.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Returns the handler that serves the datagrams.
    pub fn handler(&self) -> &Arc<H> {
        &self.server.handler().0
    }
}
