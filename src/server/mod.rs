//! The server: listeners, handler and strategy put together.

mod bind;
mod builder;
mod drain;
mod engine;
mod udp;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::hooks;
use crate::lifecycle::ServerHandle;
use crate::net::{Addr, Address};
use crate::observe::Report;
use crate::strategy::Threading;
use crate::sys::{limits, signal};

pub use bind::ListeningSocket;
pub use builder::ServerBuilder;
#[cfg(all(test, shuttle))]
pub(crate) use drain::drain;
pub use engine::Engine;
pub(crate) use engine::{Bound, Single};
pub use udp::{UdpServer, UnixDatagramServer};

/// A stream server: handler `H` serves the connections, strategy `S` says where.
///
/// Python's `class Server(ThreadingMixIn, TCPServer)` is `type Server = TcpServer<Handler, Threading>`. A server is
/// listening as soon as it is bound; settings other than the defaults come from [`ServerBuilder`].
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler, TcpServer, Threading};
///
/// struct Greeter;
///
/// impl StreamRequestHandler for Greeter {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         conn.write_all(b"Thank you for connecting\n")?;
///         Ok(())
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
#[derive(Debug)]
#[must_use = "a server serves when serve_forever is called"]
pub struct TcpServer<H, S = Threading> {
    pub(crate) bound: Bound,
    handler: Arc<H>,
    strategy: S,
    handles_signals: bool,
    signals: Option<signal::Guard>,
}

/// A server on a Unix socket: Python's `UnixStreamServer`, which is a `TCPServer` but for its address. Here too it is
/// the address that decides, so this is another name for the same type, and all of [`TcpServer`] holds.
///
/// An address that begins with `/` is a path already; a relative one is written `unix:x.sock`, or given as a
/// [`Path`](std::path::Path), and `unix:@NAME` is a name in Linux's abstract namespace.
/// [`bind_unix`](ServerBuilder::bind_unix) says what becomes of the file, and
/// [`unix_mode`](ServerBuilder::unix_mode) who may connect: by default the owner alone.
///
/// ```
/// use std::io::{Read, Write};
/// use std::os::unix::net::UnixStream;
/// use socketserver::{Connection, HandlerResult, StreamRequestHandler, Threading, UnixServer};
///
/// struct WhoAmI;
///
/// impl StreamRequestHandler for WhoAmI {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         let peer = conn.peer_credentials()?.ok_or("not a Unix socket")?;
///         Ok(writeln!(conn, "you are process {}", peer.pid)?)
///     }
/// }
///
/// type Server = UnixServer<WhoAmI, Threading>;
///
/// # let folder = std::env::temp_dir().join(format!("socketserver-doc-who-{}", std::process::id()));
/// # std::fs::create_dir(&folder)?;
/// # let path = folder.join("who.sock");
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
    /// Listens on an address, with the strategy's and the server's defaults. Name the strategy in an alias
    /// (`type Server = TcpServer<Handler, Threading>`).
    ///
    /// A name that stands for several addresses is listened on at each; port 0 is a free port, the same for all.
    ///
    /// # Errors
    /// [`Error::Listen`] with the address, the failed act and the system's answer.
    pub fn bind(address: impl Into<Address>, handler: H) -> Result<Self>
    where
        S: Engine<H> + Default,
    {
        Self::with_strategy(address, handler, S::default())
    }

    /// As [`bind`](Self::bind), with a strategy made by hand.
    ///
    /// # Errors
    /// As there, and [`Error::Setting`] for a strategy's setting that makes no sense.
    pub fn with_strategy(address: impl Into<Address>, handler: H, strategy: S) -> Result<Self>
    where
        S: Engine<H>,
    {
        ServerBuilder::new().strategy(strategy).bind(address, handler)
    }

    /// Serves until [`ServerHandle::shutdown`] (or a signal, see [`ServerBuilder::handle_signals`]), then drains,
    /// and returns the account of this run. The listeners stay open, so it may be called again; they are closed when
    /// the server is dropped.
    ///
    /// # Errors
    /// [`Error::Accept`] when a listener fails for good, [`Error::System`] when the strategy cannot begin. What goes
    /// wrong with a connection is not an error of the server.
    pub fn serve_forever(&mut self) -> Result<Report>
    where
        S: Engine<H>,
    {
        self.install_signals()?;
        let core = self.bound.core.clone();
        let _serving = core.begin();
        let before = core.totals();
        self.warn_of_few_descriptors();
        Self::warn_of_panics_that_abort();
        let abandoned = self.strategy.run(&self.bound, &self.handler);
        self.signals = None;
        core.monitor.report_left_out();
        let report = core.totals().since(before);
        Ok(Report { abandoned: abandoned?, ..report })
    }

    /// Waits for one connection, gives it to the strategy, and returns: `false` once `timeout` has passed (`None`:
    /// no limit; zero: no wait) or the server was told to stop. With strategies that serve elsewhere, it returns before the request
    /// is done; [`stats`](ServerHandle::stats) tell.
    ///
    /// # Errors
    /// As [`serve_forever`](Self::serve_forever).
    pub fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool>
    where
        S: Engine<H>,
    {
        let came = self.strategy.run_once(&self.bound, &self.handler, timeout)?;
        let core = &self.bound.core;
        if let (Single::TimedOut, Some(hook)) = (came, &core.hooks.handle_timeout) {
            hooks::call(core, "handle_timeout", hook);
        }
        Ok(came == Single::Taken)
    }
}

impl<H, S> TcpServer<H, S> {
    /// The address of the first listener, with the real port.
    pub fn local_addr(&self) -> &Addr {
        self.bound.listeners.first().map_or(&Addr::Unnamed, |l| l.local_addr())
    }

    /// The addresses of all listeners.
    pub fn local_addrs(&self) -> impl Iterator<Item = &Addr> {
        self.bound.listeners.iter().map(|l| l.local_addr())
    }

    /// The descriptors of all listeners, to be watched in a loop of the program's own: while one is readable, a
    /// [`handle_request`](Self::handle_request) with a timeout of zero serves a connection (Python's `fileno`). They
    /// are non-blocking, and to be accepted from by the server only.
    ///
    /// ```
    /// use std::{io::Write, time::Duration};
    /// use socketserver::selectors::{Events, Selector};
    /// use socketserver::{handler, Sequential, TcpServer};
    ///
    /// let hello = handler(|conn| Ok(conn.write_all(b"hello\n")?));
    /// let mut server = TcpServer::with_strategy("127.0.0.1:0", hello, Sequential)?;
    /// let mut selector = Selector::new()?;
    /// for listener in server.listeners() {
    ///     selector.register(&listener, Events::READ, "a client")?;
    /// }
    /// let client = std::net::TcpStream::connect(server.local_addr().socket_addr().unwrap())?;
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

    /// The server's remote control.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { core: self.bound.core.clone() }
    }

    /// The handler that serves the connections.
    pub fn handler(&self) -> &Arc<H> {
        &self.handler
    }

    fn install_signals(&mut self) -> Result<()> {
        if self.handles_signals && self.signals.is_none() {
            let switch = self.bound.core.control.switch().clone();
            let guard = signal::Guard::install(switch).map_err(Error::system("handle SIGINT and SIGTERM"))?;
            self.signals = Some(guard);
        }
        Ok(())
    }

    /// One line, once a run: nothing can be contained.
    fn warn_of_panics_that_abort() {
        if cfg!(panic = "abort") {
            log::warn!(
                target: "socketserver::server",
                "this program is built with panic=abort: a panic in a handler ends the process, with Forking that of \
                 its connection"
            );
        }
    }

    /// One line, once a run: a limit that the system will not let it reach.
    fn warn_of_few_descriptors(&self) {
        let (core, descriptors) = (&self.bound.core, limits::descriptors());
        let processes = core.scoreboard().map_or(1, |scoreboard| scoreboard.wanted());
        let limit = core.admission.permits.limit().div_ceil(processes.max(1)); // each has descriptors of its own
        if limit > descriptors.saturating_sub(RESERVE) {
            log::warn!(
                target: "socketserver::limits",
                "max_connections is {limit}, but RLIMIT_NOFILE is {descriptors}: raise it (ulimit -n, or \
                 raise_descriptor_limit()) or lower the limit"
            );
        }
    }
}

/// Descriptors that a server needs besides its connections.
const RESERVE: usize = 16;
