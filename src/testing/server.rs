//! A server on a thread of the test.

use std::any::TypeId;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver};

use super::client::TestClient;
use crate::error::Result;
use crate::handler::StreamRequestHandler;
use crate::lifecycle::ServerHandle;
use crate::net::Addr;
use crate::observe::{Report, Stats};
use crate::server::{Engine, ServerBuilder, TcpServer};
use crate::strategy::Forking;

/// After its drain limit, a server gets this long to return.
const PATIENCE: Duration = Duration::from_secs(5);
/// While a test fails already, its server gets this long.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for a server that shall end by itself.
const LONG: Duration = Duration::from_secs(30);

/// A server that serves on a thread of its own, for the time of a test.
///
/// It listens on a free port from the moment it is made, so there is nothing to wait for; [`connect`](Self::connect)
/// gives clients whose every wait ends. [`stop`](Self::stop), and dropping it, ask for the stop as
/// [`ServerHandle::shutdown`] does, and **fail the test if the server is not done by itself at its drain limit**, with
/// the address and the age of each connection that had to be cut, or whose handler still runs.
///
/// ```
/// use socketserver::handler;
/// use socketserver::testing::TestServer;
///
/// let server = TestServer::start(handler(|conn| {
///     while let Some(name) = conn.next_line()? {
///         std::io::Write::write_all(conn, format!("hello {name}\n").as_bytes())?;
///     }
///     Ok(())
/// }));
/// let mut client = server.connect();
/// assert_eq!(client.ask("Ada"), "hello Ada");
/// assert_eq!(client.ask("Grace"), "hello Grace");
/// client.end();
/// assert_eq!(client.rest(), b"");
/// assert_eq!(server.stop().served, 1);
/// ```
///
/// A stop leaves connections the drain limit to finish, 10 s where the builder sets no other: a test of what is left
/// open wants a shorter one. What a test cuts itself, by [`ServerHandle::shutdown_now`], is not held against it.
///
/// [`Forking`] cannot serve here, since a process with several threads cannot be forked safely: test its handlers by
/// [`converse`](super::converse) or with another strategy, and its server as a process.
///
/// # Panics
/// As a test shall: all its functions panic where something fails.
#[derive(Debug)]
pub struct TestServer {
    addr: Addr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
    result: Receiver<Result<Report>>,
    folder: Option<Folder>,
}

impl TestServer {
    /// Serves with this handler, with [`Threading`](crate::Threading) and the defaults, on a free port of 127.0.0.1.
    #[track_caller]
    pub fn start<H: StreamRequestHandler>(handler: H) -> Self {
        Self::with(ServerBuilder::new(), handler)
    }

    /// Serves as the builder says: with any strategy but [`Forking`], a handler or, for an
    /// [`EventLoop`](crate::EventLoop), a factory. It listens where the builder does; if that says nothing, on a free
    /// port of 127.0.0.1.
    #[track_caller]
    pub fn with<H, S>(builder: ServerBuilder<S>, handler: H) -> Self
    where
        H: Send + Sync + 'static,
        S: Engine<H> + Send + 'static,
    {
        let builder = if builder.has_addresses() { builder } else { builder.listen("127.0.0.1:0") };
        match builder.finish(handler) {
            Ok(server) => Self::of(server),
            Err(e) => panic!("the test server cannot be bound: {e}"),
        }
    }

    /// As [`with`](Self::with), on a Unix socket in a folder of its own, which goes with the server.
    #[track_caller]
    pub fn unix<H, S>(builder: ServerBuilder<S>, handler: H) -> Self
    where
        H: Send + Sync + 'static,
        S: Engine<H> + Send + 'static,
    {
        let folder = Folder::new();
        let mut server = Self::with(builder.listen(folder.0.join("socket")), handler);
        server.folder = Some(folder);
        server
    }

    /// Serves with a server that was bound by hand, as with a [listener of the test's
    /// own](ServerBuilder::from_listener).
    #[track_caller]
    pub fn of<H, S>(mut server: TcpServer<H, S>) -> Self
    where
        H: Send + Sync + 'static,
        S: Engine<H> + Send + 'static,
    {
        assert!(
            TypeId::of::<S>() != TypeId::of::<Forking>(),
            "a test has several threads, and Forking forks from one thread only: test its handlers by \
             testing::converse or with another strategy, and its server as a process"
        );
        let (addr, handle) = (server.local_addr().clone(), server.handle());
        handle.core.monitor.open.keep();
        let (tell, result) = bounded(1);
        let serve = move || {
            let served = server.serve_forever();
            drop(server); // closes its listeners
            let _ = tell.send(served);
        };
        let thread = thread::Builder::new().name("test-server".to_owned()).spawn(serve);
        let thread = Some(thread.expect("a thread for the test server"));
        Self { addr, handle, thread, result, folder: None }
    }

    /// Where it listens: the IP address and port of its first listener.
    ///
    /// # Panics
    /// On a Unix socket, whose address is [`local_addr`](Self::local_addr).
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        self.addr.socket_addr().unwrap_or_else(|| panic!("{} has no port", self.addr))
    }

    /// Where it listens: the address of its first listener, of any kind.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }

    /// A client, connected to the first listener.
    #[track_caller]
    pub fn connect(&self) -> TestClient {
        match TestClient::try_connect(&self.addr) {
            Ok(client) => client,
            Err(e) if self.has_ended() => panic!("cannot connect to {}, the server has ended: {e}", self.addr),
            Err(e) => panic!("cannot connect to {}: {e}", self.addr),
        }
    }

    /// The server's remote control.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// The counters at this moment. A connection is counted when it is closed, a little after its client has read the
    /// end; [`stop`](Self::stop) waits for all.
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// Whether `serve_forever` has returned.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Asks for the stop, waits for it, and returns the account of the run, for the test to look into: handlers'
    /// errors and panics are counted there, and do not fail a test by themselves.
    ///
    /// # Panics
    /// Where connections had to be cut at the drain limit or handlers still run: with the address and the age of each.
    /// Where the server itself failed. All that at most 5 s after the drain limit.
    #[track_caller]
    pub fn stop(mut self) -> Report {
        match self.stop_within(self.drain_limit() + PATIENCE) {
            Ok(report) => report,
            Err(why) => panic!("{why}"),
        }
    }

    /// What `serve_forever` returns once the server has ended by itself: stopped by a handler or by its
    /// [`handle`](Self::handle), or for an error of its listener, which is no failure of the test here.
    ///
    /// # Errors
    /// That of `serve_forever`.
    ///
    /// # Panics
    /// As [`stop`](Self::stop); also if that does not come within 30 s and the drain limit.
    #[track_caller]
    pub fn join(mut self) -> Result<Report> {
        match self.ended_within(LONG.saturating_add(self.drain_limit())) {
            Ok(result) => result,
            Err(why) => panic!("{why}"),
        }
    }

    fn drain_limit(&self) -> Duration {
        self.handle.core.settings.drain_timeout
    }

    fn stop_within(&mut self, time: Duration) -> std::result::Result<Report, String> {
        self.handle.shutdown();
        self.ended_within(time)?.map_err(|e| format!("the test server has failed: {e}"))
    }

    /// The run's result, or what is to be said of those who are still there.
    fn ended_within(&mut self, time: Duration) -> std::result::Result<Result<Report>, String> {
        let result = self.result.recv_timeout(time);
        let Some(thread) = self.thread.take() else { return Err("the test server has been stopped before".into()) };
        let left = self.leftovers();
        match result {
            Ok(_) if !left.is_empty() => Err(format!("the test server's connections did not all end:{left}")),
            Ok(result) => {
                let _ = thread.join(); // it has nothing left to do
                Ok(result)
            }
            Err(_) if thread.is_finished() => Err("the thread of the test server panicked".to_owned()),
            Err(_) => Err(format!("the test server has not ended within {time:?}:{left}")),
        }
    }

    /// A line for each connection that did not end by itself.
    fn leftovers(&self) -> String {
        let mut lines = String::new();
        for entry in self.handle.core.monitor.open.entries() {
            let state = if entry.is_cut() { "was cut at the drain limit" } else { "is still being served" };
            let _ = write!(lines, "\n  {} {state}, open for {:?}", entry.peer, entry.age());
        }
        lines
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.thread.is_none() {
            return;
        }
        if thread::panicking() {
            self.handle.shutdown_now();
            let _ = self.ended_within(LITTLE_PATIENCE);
        } else if let Err(why) = self.stop_within(self.drain_limit() + PATIENCE) {
            panic!("{why}");
        }
    }
}

/// A folder that goes with its server.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    #[track_caller]
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let name = format!("socketserver-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {} // of a process before, of this number
                Err(e) => panic!("cannot make the folder {}: {e}", path.display()),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
