//! [`TestServer`]: a server on a thread of the test.

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

/// The time that a server gets to return after its drain limit.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time that a server gets if its test has failed already.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// The longest wait for a server that should end by itself.
const LONG: Duration = Duration::from_secs(30);

/// A server that serves on a thread of its own, for the time of a test.
///
/// It listens on a free port as soon as it is made, so a test need not wait for it.
/// [`connect`](Self::connect) makes clients whose waits all end. [`stop`](Self::stop) and the drop stop it as
/// [`ServerHandle::shutdown`] does. They **fail the test if a connection had to be cut at the drain limit**,
/// or if a handler still runs. The message lists the address and the age of each.
///
/// ```
/// use socketserver::handler;
/// use socketserver::testing::TestServer;
///
/// let server = TestServer::start(handler(|conn| {
///     while conn.next_request()? {
///         let Some(name) = conn.next_line()? else { break };
///         conn.send_line(format!("hello {name}"))?;
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
/// At a stop, connections may go on up to the drain limit: 10 s by default. A test of connections that stay
/// open should set a shorter one. A cut by the test itself ([`ServerHandle::shutdown_now`]) does not fail it.
///
/// [`Forking`] cannot serve here, because a process with several threads cannot be forked safely. Test its
/// handlers by [`converse`](super::converse) or with another strategy, and its server as a process.
///
/// # Panics
/// All its functions panic if something fails, so that the test fails.
#[derive(Debug)]
pub struct TestServer {
    addr: Addr,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
    result: Receiver<Result<Report>>,
    folder: Option<Folder>,
}

impl TestServer {
    /// Serves with this handler, with [`Threading`](crate::Threading) and the defaults, on a free port of
    /// 127.0.0.1.
    #[track_caller]
    pub fn start<H: StreamRequestHandler>(handler: H) -> Self {
        Self::with(ServerBuilder::new(), handler)
    }

    /// Serves with the builder's settings, with any strategy except [`Forking`]. `handler` is a handler, or a
    /// factory for an [`EventLoop`](crate::EventLoop). It listens on the builder's addresses. If there are
    /// none, it listens on a free port of 127.0.0.1.
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

    /// As [`with`](Self::with), on a Unix socket in a folder of its own, which is removed with the server.
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

    /// Serves with a server that the test has bound, for example with a [listener of its
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
            // Closes the listeners, so that a client of a stopped server is refused.
            drop(server);
            let _ = tell.send(served);
        };
        let thread = thread::Builder::new().name("test-server".to_owned()).spawn(serve);
        let thread = Some(thread.expect("a thread for the test server"));
        Self { addr, handle, thread, result, folder: None }
    }

    /// Returns the IP address and port of its first listener.
    ///
    /// # Panics
    /// On a Unix socket. Use [`local_addr`](Self::local_addr) there.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        self.addr.socket_addr().unwrap_or_else(|| panic!("{} has no port", self.addr))
    }

    /// Returns the address of its first listener, of any kind.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }

    /// Connects a client to the first listener.
    #[track_caller]
    pub fn connect(&self) -> TestClient {
        match TestClient::try_connect(&self.addr) {
            Ok(client) => client,
            Err(e) if self.has_ended() => panic!("cannot connect to {}, the server has ended: {e}", self.addr),
            Err(e) => panic!("cannot connect to {}: {e}", self.addr),
        }
    }

    /// Returns the server's handle.
    pub fn handle(&self) -> &ServerHandle {
        &self.handle
    }

    /// Returns the counters at this moment. A connection is counted when it is closed, a little after its
    /// client has read the end. [`stop`](Self::stop) waits for all of them.
    pub fn stats(&self) -> Stats {
        self.handle.stats()
    }

    /// True if `serve_forever` has returned.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Stops the server, waits for its end, and returns the report of the run. Errors and panics of handlers
    /// are counted there, and do not fail a test by themselves.
    ///
    /// # Panics
    /// If connections had to be cut at the drain limit, or handlers still run: with the address and the age
    /// of each. If the server itself failed. It panics at most 5 s after the drain limit.
    #[track_caller]
    pub fn stop(mut self) -> Report {
        match self.stop_within(self.drain_limit() + PATIENCE) {
            Ok(report) => report,
            Err(why) => panic!("{why}"),
        }
    }

    /// Waits until the server has ended by itself, and returns the result of `serve_forever`. A handler or
    /// the [`handle`](Self::handle) may have stopped it, or an error of its listener. That error does not
    /// fail the test here.
    ///
    /// # Errors
    /// The error of `serve_forever`.
    ///
    /// # Panics
    /// As [`stop`](Self::stop), and if the server has not ended within 30 s and the drain limit.
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

    /// Returns the result of the run, or a text about the connections that are left.
    fn ended_within(&mut self, time: Duration) -> std::result::Result<Result<Report>, String> {
        let result = self.result.recv_timeout(time);
        let Some(thread) = self.thread.take() else { return Err("the test server has been stopped before".into()) };
        let left = self.leftovers();
        match result {
            Ok(_) if !left.is_empty() => Err(format!("the test server's connections did not all end:{left}")),
            Ok(result) => {
                // It does not wait: the thread has sent its result last.
                let _ = thread.join();
                Ok(result)
            }
            Err(_) if thread.is_finished() => Err("the thread of the test server panicked".to_owned()),
            Err(_) => Err(format!("the test server has not ended within {time:?}:{left}")),
        }
    }

    /// Returns a line for each connection that did not end by itself.
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
        // A second panic would abort the process and hide the first.
        if thread::panicking() {
            self.handle.shutdown_now();
            let _ = self.ended_within(LITTLE_PATIENCE);
        } else if let Err(why) = self.stop_within(self.drain_limit() + PATIENCE) {
            panic!("{why}");
        }
    }
}

/// A folder that is removed with its server.
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
                // Left behind by an earlier process with the same number.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
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
