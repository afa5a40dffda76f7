//! Servers and their builder.
//!
//! [`ServerBuilder`], [`TcpServer`], [`UdpServer`] and their names for Unix sockets are at the crate's root
//! too. Look here for two names in signatures. [`Engine`] is the bound of a function that is generic over
//! strategies and event loops. [`ListeningSocket`] is the argument of [`ServerBuilder::from_listener`].

// The walk: `ServerBuilder::bind` → `serve_forever` → `Core::begin` → `Engine::run` →
// `ServingStrategy::serve` → `drain` → the report. This folder knows neither `event_loop` nor `preforking`:
// they stand above it, and are engines.

mod bind;
mod bound;
mod builder;
mod drain;
mod engine;
mod greeting;
mod plan;
mod process;
mod serve_one;
mod udp;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::hooks;
use crate::lifecycle::ServerHandle;
use crate::net::{Addr, Address};
use crate::observe::Report;
use crate::strategy::Threading;

pub use bind::ListeningSocket;
use bound::Signals;
pub(crate) use bound::{Bound, SERVE_HERE};
pub use builder::ServerBuilder;
#[cfg(all(test, shuttle))]
pub(crate) use drain::drain;
pub use engine::Engine;
pub(crate) use engine::Single;
pub use udp::{UdpServer, UnixDatagramServer};

/// A server of connections. Handler `H` serves them, strategy `S` says where.
///
/// Python's `class Server(ThreadingMixIn, TCPServer)` is `type Server = TcpServer<Handler, Threading>`. Write
/// such an alias: `TcpServer::bind` cannot infer the strategy. [`ServerBuilder`] needs no alias, since its
/// strategy is [`Threading`] until you name another one, and it changes the defaults. A server listens as soon
/// as it is bound.
///
/// ```
/// use std::io::Read;
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler};
/// use socketserver::{TcpServer, Threading};
///
/// struct Greeter;
///
/// impl StreamRequestHandler for Greeter {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         conn.send_line("Thank you for connecting")
///     }
/// }
///
/// type Server = TcpServer<Greeter, Threading>;
///
/// let mut server = Server::bind("127.0.0.1:0", Greeter)?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut greeting = String::new();
/// std::net::TcpStream::connect(addr)?.read_to_string(&mut greeting)?;
/// assert_eq!(greeting, "Thank you for connecting\n");
///
/// handle.shutdown();
/// let report = serving.join().unwrap()?;
/// assert_eq!(report.served, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What a drop does
///
/// A drop closes the listeners. It waits for nobody, and cuts nobody: it does not drain. A client that waits in
/// the kernel's queue gets a reset. After [`serve_forever`](Self::serve_forever) nothing is left to a drop but
/// handlers that the report counts as abandoned. After [`handle_request`](Self::handle_request), requests may be
/// under way:
///
/// | strategy | a request that is under way at the drop |
/// |---|---|
/// | `Sequential`, event loops, `PreForking` | there is none: the call returns when the request has ended |
/// | `Threading`, `ThreadPool` | its thread goes on to its end, and ends with the process at the latest |
/// | `Forking` | its process goes on, as after the [server's death](crate::guide::forking#when-the-server-dies) |
///
/// The same holds for datagrams, which [`UdpServer`] serves. To drain, call `shutdown` and `serve_forever` first.
#[derive(Debug)]
#[must_use = "a server serves when serve_forever is called"]
pub struct TcpServer<H, S = Threading> {
    pub(crate) bound: Bound,
    handler: Arc<H>,
    strategy: S,
    signals: Signals,
}

/// A server on a Unix socket (Python's `UnixStreamServer`). It is another name for [`TcpServer`]: the address
/// decides.
///
/// An address that begins with `/` is a path. A relative path is written `unix:x.sock`, or given as a
/// [`Path`](std::path::Path). `unix:@NAME` is a name in Linux's abstract namespace.
/// [`bind_unix`](ServerBuilder::bind_unix) describes the socket's file.
/// [`unix_mode`](ServerBuilder::unix_mode) sets which users may connect: by default the owner alone.
///
/// ```
/// use std::io::Read;
/// use std::os::unix::net::UnixStream;
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler};
/// use socketserver::{Threading, UnixServer};
///
/// struct WhoAmI;
///
/// impl StreamRequestHandler for WhoAmI {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         let peer = conn.peer_credentials()?.ok_or("not a Unix socket")?;
///         conn.send_line(format!("you are process {}", peer.pid))
///     }
/// }
///
/// type Server = UnixServer<WhoAmI, Threading>;
///
/// # let name = format!("socketserver-doc-unix-{}", std::process::id());
/// # let folder = std::env::temp_dir().join(name);
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("doc.sock");
/// let mut server = Server::bind(path.as_path(), WhoAmI)?;
/// let handle = server.handle();
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut answer = String::new();
/// UnixStream::connect(&path)?.read_to_string(&mut answer)?;
/// assert_eq!(answer, format!("you are process {}\n", std::process::id()));
///
/// handle.shutdown();
/// serving.join().unwrap()?;
/// assert!(!path.exists());                             // it goes with the server
/// # std::fs::remove_dir(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type UnixServer<H, S = Threading> = TcpServer<H, S>;

impl<H, S> TcpServer<H, S> {
    /// Listens on an address, with the defaults of the strategy and the server.
    ///
    /// `TcpServer::bind(address, handler)` alone does not compile: no argument names the strategy (E0283). Bind
    /// an alias, or take [`ServerBuilder::new().bind(…)`](ServerBuilder::bind), which is [`Threading`]:
    ///
    /// ```
    /// use socketserver::{Connection, HandlerResult, StreamRequestHandler};
    /// use socketserver::{ServerBuilder, TcpServer, Threading};
    ///
    /// struct Greeter;
    ///
    /// impl StreamRequestHandler for Greeter {
    ///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
    ///         conn.send_line("hello")
    ///     }
    /// }
    ///
    /// type Server = TcpServer<Greeter, Threading>;
    ///
    /// let one = Server::bind("127.0.0.1:0", Greeter)?;
    /// let same: Server = ServerBuilder::new().bind("127.0.0.1:0", Greeter)?;
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// A name with several addresses gets a listener on each. Port 0 is a free port, the same for all.
    ///
    /// # Errors
    /// [`Error::Listen`](crate::Error::Listen) with the address, the failed act and the system's answer.
    pub fn bind(address: impl Into<Address>, handler: H) -> Result<Self>
    where
        S: Engine<H> + Default,
    {
        Self::with_strategy(address, handler, S::default())
    }

    /// As [`bind`](Self::bind), with a strategy that has settings of its own.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and [`Error::Setting`](crate::Error::Setting) for a setting of the strategy that makes no sense.
    pub fn with_strategy(address: impl Into<Address>, handler: H, strategy: S) -> Result<Self>
    where
        S: Engine<H>,
    {
        ServerBuilder::new().strategy(strategy).bind(address, handler)
    }

    /// Serves until [`ServerHandle::shutdown`] (or a signal, see [`ServerBuilder::handle_signals`]). Then it
    /// drains, and returns the report of this run.
    ///
    /// The listeners stay open, so you may call it again. Clients that connect meanwhile wait in the kernel's
    /// queue. The listeners are closed when the server is dropped.
    ///
    /// If the server was asked to stop before, it only drains. It serves the connections that are queued, and waits
    /// for those that [`handle_request`](Self::handle_request) has begun.
    ///
    /// # Errors
    /// [`Error::Accept`](crate::Error::Accept) if the last listener fails for good, [`Error::System`](crate::Error::System) if the strategy cannot begin.
    /// The failure of a connection is no error of the server.
    pub fn serve_forever(&mut self) -> Result<Report>
    where
        S: Engine<H>,
    {
        let Self { bound, handler, strategy, signals } = self;
        bound.run(signals, strategy.has_workers(), &mut || strategy.run(bound, handler))
    }

    /// Waits for one connection, gives it to the strategy, and returns `true`. It returns `false` if
    /// `timeout` has passed (`None`: no limit; zero: no wait), or if the server was asked to stop.
    ///
    /// A strategy may serve on another thread or in another process. Then it returns before the request is
    /// done; look at [`stats`](ServerHandle::stats).
    ///
    /// A stop is not over with the call that it ends: each further call returns `false` at once, until
    /// [`serve_forever`](Self::serve_forever) has drained.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let hello = handler(|conn| conn.send_line("hello"));
    /// let mut server = ServerBuilder::new().bind("127.0.0.1:0", hello)?;
    /// # server.handle().shutdown();
    /// while !server.handle().is_shutting_down() {
    ///     server.handle_request(None)?;
    /// }
    /// let report = server.serve_forever()?;              // drains, and returns
    /// # assert_eq!(report.accepted, 0);
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever).
    pub fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool>
    where
        S: Engine<H>,
    {
        self.bound.serve_here()?;
        let core = &self.bound.core;
        core.control.begin();
        // What is queued is for the drain.
        if core.control.stopping() {
            return Ok(false);
        }
        let came = self.strategy.run_once(&self.bound, &self.handler, timeout)?;
        if let (Single::TimedOut, Some(hook)) = (came, &core.hooks.handle_timeout) {
            hooks::call(core, "handle_timeout", hook);
        }
        Ok(came == Single::Taken)
    }
}

impl<H, S> TcpServer<H, S> {
    /// Returns the address of the first listener, with the real port.
    pub fn local_addr(&self) -> &Addr {
        self.bound.listeners.first().map_or(&Addr::Unnamed, |l| l.local_addr())
    }

    /// Returns the addresses of all listeners.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Addr> {
        self.bound.listeners.iter().map(|l| l.local_addr())
    }

    /// Returns the descriptors of all listeners, for a loop of your own (Python's `fileno`). While one is
    /// readable, a [`handle_request`](Self::handle_request) with a timeout of zero serves a connection. They
    /// are non-blocking. Only the server may accept from them.
    ///
    /// ```
    /// use std::time::Duration;
    /// use socketserver::selectors::{Events, Selector};
    /// use socketserver::{handler, Sequential, TcpServer};
    ///
    /// let hello = handler(|conn| conn.send_line("hello"));
    /// let mut server = TcpServer::with_strategy("127.0.0.1:0", hello, Sequential)?;
    /// let mut selector = Selector::new()?;
    /// for listener in server.listeners() {
    ///     selector.register(&listener, Events::READ, "a client")?;
    /// }
    /// let address = server.local_addr().socket_addr().unwrap();
    /// let client = std::net::TcpStream::connect(address)?;
    /// for (key, _events) in selector.select(None)? {
    ///     assert_eq!(key.data, "a client");
    ///     assert!(server.handle_request(Some(Duration::ZERO))?);
    /// }
    /// assert_eq!(std::io::read_to_string(client)?, "hello\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.bound.listeners.iter().map(AsFd::as_fd)
    }

    /// Returns the server's handle.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { core: self.bound.core.clone() }
    }

    /// Returns the handler that serves the connections.
    pub fn handler(&self) -> &Arc<H> {
        &self.handler
    }
}
