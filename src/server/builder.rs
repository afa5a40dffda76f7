//! Settings, and the way to a bound server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AtLimit, LingeringClose, ServerSettings};
use crate::error::Result;
use crate::lifecycle::{Actions, Hooks, Incoming};
use crate::listen::{Access, Listener};
use crate::net::Address;
use crate::observe::Failure;
use crate::strategy::Threading;

/// Sets a server up. Every setting has a default that suits a server facing the internet, unless its text says when
/// to change it.
///
/// ```
/// use std::{io::Write, time::Duration};
/// use socketserver::{handler, ServerBuilder, ThreadPool};
///
/// let server = ServerBuilder::new()
///     .strategy(ThreadPool::new(64))
///     .idle_timeout(Duration::from_secs(60))
///     .max_line_length(1000)
///     .listen("[::1]:0")                                // a second address, in the same server
///     .bind_tcp("127.0.0.1:0", handler(|conn| Ok(conn.write_all(b"hello\n")?)));
/// # if std::net::TcpListener::bind("[::1]:0").is_ok() {
/// assert_eq!(server?.local_addrs().count(), 2);
/// # }
/// # Ok::<(), socketserver::Error>(())
/// ```
#[must_use = "a builder does nothing until it binds"]
pub struct ServerBuilder<S = Threading> {
    pub(super) strategy: S,
    pub(super) settings: ServerSettings,
    pub(super) hooks: Hooks,
    pub(super) max_connections: Option<usize>,
    pub(super) reuse_port: bool,
    pub(super) only_v6: Option<bool>,
    pub(super) no_delay: bool,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_time: Option<Duration>,
    pub(super) access: Access,
    pub(super) handles_signals: bool,
    pub(super) raises_descriptor_limit: bool,
    pub(super) more: Vec<Address>,
    pub(super) adopted: Vec<Result<Listener>>,
}

impl ServerBuilder {
    /// The defaults, and the strategy [`Threading`].
    pub fn new() -> Self {
        Self::default()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            strategy: Threading::new(),
            settings: ServerSettings::default(),
            hooks: Hooks::default(),
            max_connections: None,
            reuse_port: false,
            only_v6: None,
            no_delay: true,
            keep_alive: true,
            keep_alive_time: None,
            access: Access::default(),
            handles_signals: false,
            raises_descriptor_limit: false,
            more: Vec::new(),
            adopted: Vec::new(),
        }
    }
}

/// Settings.
impl<S> ServerBuilder<S> {
    /// How connections are served: [`Sequential`](crate::Sequential), [`Threading`],
    /// [`ThreadPool`](crate::ThreadPool), or a strategy of your own. Defaults to [`Threading`].
    pub fn strategy<T>(self, strategy: T) -> ServerBuilder<T> {
        ServerBuilder {
            strategy,
            settings: self.settings,
            hooks: self.hooks,
            max_connections: self.max_connections,
            reuse_port: self.reuse_port,
            only_v6: self.only_v6,
            no_delay: self.no_delay,
            keep_alive: self.keep_alive,
            keep_alive_time: self.keep_alive_time,
            access: self.access,
            handles_signals: self.handles_signals,
            raises_descriptor_limit: self.raises_descriptor_limit,
            more: self.more,
            adopted: self.adopted,
        }
    }

    /// How many connections are served at once, exactly; of a `ThreadPool` never more than it has threads. Defaults to
    /// the strategy's own limit: 1 for `Sequential`,
    /// the threads of a `ThreadPool`, for `Threading` 1024 or 64 less than `RLIMIT_NOFILE`.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.max_connections = Some(limit);
        self
    }

    /// What happens to clients beyond that. Defaults to [`AtLimit::Wait`].
    pub fn at_limit(mut self, policy: AtLimit) -> Self {
        self.settings.at_limit = policy;
        self
    }

    /// How long a connection may wait for a request: with nothing read since the last flush, or since the start.
    /// Defaults to no limit, since a chat may be silent for hours; a server that faces the internet wants one.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.limits.idle = limit.into();
        self
    }

    /// How long one wait for more of a request may take. Defaults to no limit.
    pub fn read_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.limits.read = limit.into();
        self
    }

    /// How long one wait for a peer that takes nothing may take. Defaults to 30 s.
    pub fn write_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.limits.write = limit.into();
        self
    }

    /// How long a request may take in all: from the start of `handle`, or from the first byte after
    /// [`next_request`](crate::Connection::next_request). It ends a client that sends a byte now and then, and is
    /// checked whenever the handler waits for the peer. Defaults to no limit.
    pub fn request_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.limits.request = limit.into();
        self
    }

    /// How long a stop leaves the connections to finish; zero cuts them at once. Defaults to 10 s.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.settings.drain_timeout = limit;
        self
    }

    /// The most bytes of a line, its end not counted. Defaults to 64 KiB.
    pub fn max_line_length(mut self, bytes: usize) -> Self {
        self.settings.line_limit = bytes;
        self
    }

    /// The read buffer of a connection, in bytes, made at its first read. Defaults to 8 KiB.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.settings.read_buffer = bytes;
        self
    }

    /// The write buffer of a connection, in bytes, at most. Defaults to 8 KiB.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.settings.write_buffer = bytes;
        self
    }

    /// How many bytes other threads may queue through a [`ConnectionWriter`](crate::connection::ConnectionWriter). Defaults to 1
    /// MiB.
    pub fn writer_capacity(mut self, bytes: usize) -> Self {
        self.settings.writer_capacity = bytes;
        self
    }

    /// The most bytes that are received of a datagram; what is longer is cut, and
    /// [says so](crate::Datagram::is_truncated). Defaults to 65,535, more than UDP has; those of Unix sockets can be longer
    /// (unix(7)). (Python's 8192 cuts without a word.)
    pub fn max_packet_size(mut self, bytes: usize) -> Self {
        self.settings.max_packet_size = bytes;
        self
    }

    /// When a connection is closed with care for what the peer has still to read. Defaults to
    /// [`LingeringClose::IfUnread`].
    pub fn lingering_close(mut self, policy: LingeringClose) -> Self {
        self.settings.lingering_close = policy;
        self
    }

    /// How many clients the kernel lets wait to be accepted; it caps the number at `net.core.somaxconn`. Defaults to
    /// 4096. (Python's 5, and the standard library's 128, drop connections in a burst.)
    pub fn backlog(mut self, connections: usize) -> Self {
        self.settings.backlog = connections;
        self
    }

    /// Whether several sockets may listen on the same TCP address (`SO_REUSEPORT`, Python's `allow_reuse_port`), if all
    /// of them say so and belong to the same user: the kernel divides new connections among them by the clients'
    /// addresses. Defaults to `false`, so that a second copy of the server that is started by mistake is refused
    /// (`AddrInUse`) instead of getting a share.
    ///
    /// Each socket has a queue of its own. When one of them is closed, clients that wait in its queue are reset, although
    /// others listen: to replace a server without a loss, let the new one have the old one's socket
    /// ([`from_listener`](Self::from_listener)). Of no effect on Unix sockets, which the kernel does not share so.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let server = || ServerBuilder::new().reuse_port(true);
    /// let first = server().bind_tcp("127.0.0.1:0", handler(|_conn| Ok(())))?;
    /// let second = server().bind_tcp(first.local_addr().to_string(), handler(|_conn| Ok(())))?;
    /// assert_eq!(first.local_addr(), second.local_addr());
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// Whether a listener on an IPv6 address takes IPv6 only, so that `[::]:80` and `0.0.0.0:80` can be had apart.
    /// Defaults to the system's choice (`net.ipv6.bindv6only`), as a rule both families.
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`). Defaults to `true`: output is buffered already.
    pub fn no_delay(mut self, on: bool) -> Self {
        self.no_delay = on;
        self
    }

    /// Whether the kernel probes silent peers (`SO_KEEPALIVE`), so that one that has vanished without a word (a cable
    /// pulled, a machine switched off) is noticed even without time limits. Defaults to `true`. The kernel's own times
    /// are long: it begins after 2 hours of silence and gives up 11 minutes later (tcp(7));
    /// [`keep_alive_time`](Self::keep_alive_time) shortens them.
    pub fn keep_alive(mut self, on: bool) -> Self {
        self.keep_alive = on;
        self
    }

    /// How long a TCP peer that has vanished may go unnoticed, with or without output on its way: from 6 to 32767 s, in
    /// whole seconds, fractions are cut off. For the first half of it the peer may be silent, then the kernel probes it
    /// five times, and the next read or write fails as [`std::io::ErrorKind::TimedOut`], or with what the network
    /// said (`EHOSTUNREACH`). (`TCP_KEEPIDLE`,
    /// `TCP_KEEPINTVL`, `TCP_KEEPCNT` and `TCP_USER_TIMEOUT`, see tcp(7); set on the listener, so a connection costs
    /// no call.) A peer that is there answers by itself, and may be silent for ever. Defaults to `None`: the kernel's
    /// times. Of no effect without [`keep_alive`](Self::keep_alive).
    ///
    /// ```
    /// use std::time::Duration;
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let server = ServerBuilder::new()
    ///     .keep_alive_time(Duration::from_secs(60))
    ///     .bind_tcp("127.0.0.1:0", handler(|_conn| Ok(())))?;
    /// # drop(server);
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn keep_alive_time(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.keep_alive_time = limit.into();
        self
    }

    /// Who may connect to a Unix socket with a path: the mode of its file, up to 0o777. Connecting takes the right to
    /// write (unix(7)). Defaults to 0o600: the owner alone; 0o660 is for a group, see [`unix_owner`](Self::unix_owner),
    /// and 0o666 for everybody.
    ///
    /// The file has this mode before anybody can connect, and never a wider one; the umask plays no part. Names in the
    /// abstract namespace have no mode: whoever shares the network namespace may connect, so ask for
    /// [`peer_credentials`](crate::Connection::peer_credentials) there.
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.access.mode = mode;
        self
    }

    /// Whom the file of a Unix socket belongs to; `None` leaves the user or the group as they are. Defaults to the
    /// process's own. As chown(2) has it, giving it to another user takes root's rights (`CAP_CHOWN`), giving it to a
    /// group that one is a member of does not.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    /// # let folder = std::env::temp_dir().join(format!("socketserver-doc-{}", std::process::id()));
    /// # std::fs::create_dir(&folder)?;
    /// # let path = folder.join("s");
    /// # let gid = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata("/proc/self")?);
    /// let server = ServerBuilder::new()
    ///     .unix_owner(None, gid)
    ///     .unix_mode(0o660)                                 // that group may connect
    ///     .bind_unix(&path, handler(|_conn| Ok(())))?;
    /// # drop(server);
    /// # std::fs::remove_dir(&folder)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unix_owner(mut self, uid: impl Into<Option<u32>>, gid: impl Into<Option<u32>>) -> Self {
        (self.access.uid, self.access.gid) = (uid.into(), gid.into());
        self
    }

    /// From binding until `serve_forever` returns, SIGINT and SIGTERM drain the server, and a second one ends the
    /// process at once, with status 128 + its number, even where a handler spins. Handlers that were installed
    /// before are called as well, and are restored. A signal that was ignored (as SIGINT is in background jobs of a
    /// script) is handled too: asked for is asked for. Defaults to off: signals are the program's.
    pub fn handle_signals(mut self) -> Self {
        self.handles_signals = true;
        self
    }

    /// When the server is bound, raises the soft limit on descriptors (`RLIMIT_NOFILE`) to what
    /// [`max_connections`](Self::max_connections) needs and 64 more (1024 connections where that is not set), or as far
    /// as the hard limit allows. Where that is not enough, there is a warning when serving begins, as without.
    ///
    /// It is the process's limit: it stays raised, and programs that are started inherit it (set it back with `ulimit
    /// -Sn` where they use select(2), which cannot take descriptors from 1024 on). Children of
    /// [`Forking`](crate::Forking) get the former one back. Defaults to off.
    pub fn raise_descriptor_limit(mut self) -> Self {
        self.raises_descriptor_limit = true;
        self
    }

    /// A hook for whatever goes wrong: handlers' errors and panics, refusals, failing accepts, panics of the other
    /// hooks (Python's `handle_error`). It runs on the thread where that happened; a panic in it is contained and
    /// logged. Everything is logged besides. Defaults to none.
    pub fn handle_error(mut self, hook: impl Fn(&Failure<'_>) + Send + Sync + 'static) -> Self {
        self.hooks.handle_error = Some(Arc::new(Box::new(hook)));
        self
    }

    /// A hook that says which connections are served (Python's `verify_request`): one for which it returns `false` is
    /// closed without a handler and without a message, counted as refused, and told to
    /// [`handle_error`](Self::handle_error). A panic in it refuses its connection. Defaults to none.
    ///
    /// It may be slow (look a name up, ask a database), and never holds up accepting or an event loop: it is called
    /// on one of at most 64 threads, which are started when they are needed and kept for 10 s, while the connection
    /// waits, in its place, up to [`verify_timeout`](Self::verify_timeout) or the end of a drain. With
    /// [`Sequential`](crate::Sequential), whose one thread does everything, the next client waits as well. With
    /// [`Forking`](crate::Forking), the thread is the child's: the hook sees the server's memory as it was at the
    /// fork, and changes nothing in it.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let mut server = ServerBuilder::new()
    ///     .verify_request(|incoming| incoming.peer_addr().ip().is_some_and(|ip| !ip.is_loopback()))
    ///     .bind_tcp("127.0.0.1:0", handler(|conn| Ok(conn.write_all(b"welcome\n")?)))?;
    /// let mut client = std::net::TcpStream::connect(server.local_addr().socket_addr().unwrap())?;
    /// assert!(server.handle_request(None)?);
    /// assert_eq!(std::io::read_to_string(&mut client)?, ""); // closed: it comes from this machine
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify_request(mut self, hook: impl Fn(&Incoming) -> bool + Send + Sync + 'static) -> Self {
        self.hooks.verify_request = Some(Box::new(hook));
        self
    }

    /// How long a connection waits for [`verify_request`](Self::verify_request), the wait for a thread included; then
    /// it is refused, its place is free, and the hook's answer is thrown away when it comes. Defaults to 10 s; zero is
    /// an error when the server is bound.
    pub fn verify_timeout(mut self, limit: Duration) -> Self {
        self.settings.verify_timeout = limit;
        self
    }

    /// A hook for what is to be done now and then (Python's `service_actions`): called on the thread that is in
    /// [`serve_forever`](crate::TcpServer::serve_forever), until the stop, at most once in this time; and at least so often
    /// where that thread runs no requests itself, as [`Sequential`](crate::Sequential) does. In an event loop it holds
    /// up all connections for as long as it takes. [`handle_request`](crate::TcpServer::handle_request) does not call it, as
    /// in Python; nor does a strategy of your own that does not accept by [`Acceptor::run`](crate::strategy::Acceptor::run).
    /// Defaults to none: then nothing wakes for it. Zero is an error when the server is bound.
    pub fn service_actions(mut self, every: Duration, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.service_actions = Some(Actions { every, hook: Box::new(hook) });
        self
    }

    /// A hook for a [`handle_request`](crate::TcpServer::handle_request) whose time has passed without a connection (Python's
    /// `handle_timeout`): called there, before that returns `false`; not for a stop. Defaults to none.
    pub fn handle_timeout(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.handle_timeout = Some(Box::new(hook));
        self
    }

    /// Listens on this address as well. Each address keeps its own queue; all share the limits.
    pub fn listen(mut self, address: impl Into<Address>) -> Self {
        self.more.push(address.into());
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("strategy", &self.strategy)
            .field("settings", &self.settings)
            .field("addresses", &self.more)
            .finish_non_exhaustive()
    }
}
