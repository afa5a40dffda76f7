//! [`ServerBuilder`]: the settings of a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use crate::config::{AtLimit, LingeringClose};
use crate::lifecycle::{Actions, Incoming};
use crate::net::Address;
use crate::observe::{Failure, Observer};
use crate::strategy::Threading;

/// Builds a server. Every setting has a default. Three are off by default, and a server that faces the internet
/// should set them: [`idle_timeout`](Self::idle_timeout), [`request_timeout`](Self::request_timeout), and
/// [`per_source`](Self::per_source).
///
/// ```
/// use std::time::Duration;
/// use socketserver::{handler, ServerBuilder, ThreadPool};
///
/// let server = ServerBuilder::new()
///     .strategy(ThreadPool::new(64))
///     .idle_timeout(Duration::from_secs(60))
///     .max_line_length(1000)
///     .listen("[::1]:0")                          // a second address
///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")));
/// # if std::net::TcpListener::bind("[::1]:0").is_ok() {
/// assert_eq!(server?.local_addrs().count(), 2);
/// # }
/// # Ok::<(), socketserver::Error>(())
/// ```
#[must_use = "a builder does nothing until it binds"]
pub struct ServerBuilder<S = Threading> {
    pub(super) strategy: S,
    pub(super) plan: Plan,
}

impl ServerBuilder {
    /// Makes a builder with the defaults, and the strategy [`Threading`].
    pub fn new() -> Self {
        Self::default()
    }
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self { strategy: Threading::new(), plan: Plan::default() }
    }
}

/// Settings.
impl<S> ServerBuilder<S> {
    /// Sets the strategy: [`Threading`], [`ThreadPool`](crate::ThreadPool),
    /// [`Sequential`](crate::Sequential), [`EventLoop`](crate::EventLoop), …, or one of your own. Defaults to
    /// [`Threading`].
    pub fn strategy<T>(self, strategy: T) -> ServerBuilder<T> {
        ServerBuilder { strategy, plan: self.plan }
    }

    /// Sets the most connections that are served at once. The limit is exact. Defaults to the strategy's own limit: 1
    /// for `Sequential`, the threads of a `ThreadPool`; for `Threading` 1024, or `RLIMIT_NOFILE` less 64, whichever
    /// is lower. A `ThreadPool` never serves more than it has threads. With a handler of requests
    /// ([`per_request`](crate::per_request)) the default of these three is `RLIMIT_NOFILE` less 64. The threads of a
    /// pool then bound the requests, not the connections.
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.plan.max_connections = Some(limit);
        self
    }

    /// Sets the policy for clients beyond the limit. Defaults to [`AtLimit::Wait`].
    pub fn at_limit(mut self, policy: AtLimit) -> Self {
        self.plan.settings.at_limit = policy;
        self
    }

    /// Sets how long a connection may wait for a request: see [Requests](crate::Connection#requests). `None`: as
    /// long as it likes, whatever the [`read_timeout`](Self::read_timeout) is. Defaults to the `read_timeout`,
    /// which has no limit by default, because a chat may be silent for hours. A server that faces the internet
    /// needs one.
    pub fn idle_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.plan.settings.limits.idle = Some(limit.into());
        self
    }

    /// Sets how long each wait for input may take. If an [`idle_timeout`](Self::idle_timeout) is set, it holds
    /// instead between two requests. Defaults to no limit. (Python's `timeout` is this and
    /// [`write_timeout`](Self::write_timeout).)
    #[doc(alias = "timeout")]
    pub fn read_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.plan.settings.limits.read = limit.into();
        self
    }

    /// Sets how long to wait for a peer that takes nothing. Any progress begins the wait anew. Defaults to 30
    /// s.
    pub fn write_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.plan.settings.limits.write = limit.into();
        self
    }

    /// Sets how long a request may take in all: see [Requests](crate::Connection#requests). It ends a client that
    /// sends a byte now and then. It is checked when the handler waits for the peer. Defaults to no limit.
    pub fn request_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.plan.settings.limits.request = limit.into();
        self
    }

    /// Sets how long connections may go on after a stop. Zero cuts them at once. Defaults to 10 s.
    ///
    /// A handler that computes is not interrupted. On the serving thread (`Sequential`, event loops) the stop
    /// waits for it, even beyond the limit. On another thread it is left behind, and `Forking` kills it
    /// ([choosing a strategy](crate::guide::choosing)).
    ///
    /// A stop ends idle connections at once. One exception: on a socket that another process may go on with (`fd:`,
    /// [`from_listener`](Self::from_listener), a [restart](Self::restartable)), a client that has not spoken yet is
    /// spared. If it stays mute, the drain lasts up to this limit, or until the [idle limit](Self::idle_timeout) ends it.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.plan.settings.drain_timeout = limit;
        self
    }

    /// Sets the most bytes of a line, without its end. Defaults to 64 KiB.
    pub fn max_line_length(mut self, bytes: usize) -> Self {
        self.plan.settings.line_limit = bytes;
        self
    }

    /// Sets how many bytes may be buffered of a request that is not whole, while its handler waits for the rest by
    /// [`Next::More`](crate::Next::More). Defaults to 64 KiB.
    pub fn max_request_length(mut self, bytes: usize) -> Self {
        self.plan.settings.request_limit = bytes;
        self
    }

    /// Sets the size of a connection's read buffer in bytes. It is made at the first read. Defaults to 8 KiB.
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.plan.settings.read_buffer = bytes;
        self
    }

    /// Sets the size of a connection's write buffer in bytes. Defaults to 8 KiB.
    pub fn write_buffer(mut self, bytes: usize) -> Self {
        self.plan.settings.write_buffer = bytes;
        self
    }

    /// Sets the most bytes that other threads may queue through a
    /// [`ConnectionWriter`](crate::connection::ConnectionWriter). Defaults to 1 MiB.
    pub fn writer_capacity(mut self, bytes: usize) -> Self {
        self.plan.settings.writer_capacity = bytes;
        self
    }

    /// Sets the most bytes of a datagram that are received. A longer one is cut, and
    /// [`is_truncated`](crate::Datagram::is_truncated) says so. Defaults to 65,535, which is more than UDP
    /// allows; datagrams of Unix sockets can be longer (unix(7)). (Python cuts at 8192, and does not report
    /// it.)
    pub fn max_packet_size(mut self, bytes: usize) -> Self {
        self.plan.settings.max_packet_size = bytes;
        self
    }

    /// Sets when a connection is closed in two steps, so that the peer can read all of the reply. Defaults to
    /// [`LingeringClose::IfUnread`].
    pub fn lingering_close(mut self, policy: LingeringClose) -> Self {
        self.plan.settings.lingering_close = policy;
        self
    }

    /// Sets how many clients may wait in the kernel's queue. The kernel caps the number at
    /// `net.core.somaxconn`. Defaults to 4096. (Python's 5 and the standard library's 128 drop connections in
    /// a burst.)
    pub fn backlog(mut self, connections: usize) -> Self {
        self.plan.settings.backlog = connections;
        self
    }

    /// Sets whether several sockets may listen on the same TCP address (`SO_REUSEPORT`, Python's
    /// `allow_reuse_port`). All of them must set it and belong to the same user. The kernel divides new
    /// connections among them by the clients' addresses. Defaults to `false`: a second copy of the server
    /// that is started by mistake is then refused (`AddrInUse`).
    ///
    /// Each socket has a queue of its own. When a socket is closed, the clients in its queue are reset,
    /// although others listen. To replace a server without a loss, make it
    /// [`restartable`](Self::restartable). It does nothing for Unix sockets: the kernel does not
    /// share them so.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let server = || ServerBuilder::new().reuse_port(true);
    /// let first = server().bind_tcp("127.0.0.1:0", handler(|_conn| Ok(())))?;
    /// let address = first.local_addr().to_string();
    /// let second = server().bind_tcp(address, handler(|_conn| Ok(())))?;
    /// assert_eq!(first.local_addr(), second.local_addr());
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.plan.reuse_port = on;
        self
    }

    /// Sets whether a listener on an IPv6 address takes IPv6 only, so that `[::]:80` and `0.0.0.0:80` are two
    /// addresses. Defaults to the system's choice (`net.ipv6.bindv6only`), which is usually both families.
    pub fn only_v6(mut self, only: bool) -> Self {
        self.plan.only_v6 = Some(only);
        self
    }

    /// Sets whether small writes are sent at once (`TCP_NODELAY`). Defaults to `true`: output is buffered
    /// here already, and a delay in the kernel would only add to it.
    pub fn no_delay(mut self, on: bool) -> Self {
        self.plan.no_delay = on;
        self
    }

    /// Sets whether the kernel probes silent peers (`SO_KEEPALIVE`). A peer that has vanished (a cable
    /// pulled, a machine switched off) is then noticed even without time limits. Defaults to `true`. The
    /// kernel begins after 2 hours of silence and gives up 11 minutes later (tcp(7));
    /// [`keep_alive_time`](Self::keep_alive_time) shortens that.
    pub fn keep_alive(mut self, on: bool) -> Self {
        self.plan.keep_alive = on;
        self
    }

    /// Sets how long a vanished TCP peer may go unnoticed, with or without output on its way. The time is from 6 to
    /// 32767 s; fractions of a second are cut off. Defaults to `None`: the kernel's times. Without
    /// [`keep_alive`](Self::keep_alive) it does nothing.
    ///
    /// For the first half of the time the peer may be silent. Then the kernel probes it five times. The next
    /// read or write fails as [`std::io::ErrorKind::TimedOut`], or with the network's error (`EHOSTUNREACH`).
    /// A living peer answers the probes by itself, and may be silent for ever.
    ///
    /// It sets `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT` and `TCP_USER_TIMEOUT` (tcp(7)). The last one
    /// is needed because probes are sent only while no output is on its way. They are set on the listener, so
    /// a connection costs no call.
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
        self.plan.keep_alive_time = limit.into();
        self
    }

    /// Sets the mode of a Unix socket's file, up to 0o777. It decides which users may connect: connecting
    /// needs the right to write (unix(7)). Defaults to 0o600: the owner alone. 0o660 is for a group, see
    /// [`unix_owner`](Self::unix_owner); 0o666 is for all users.
    ///
    /// The file has this mode before a client can connect, and never a wider one. The umask has no effect.
    /// Names in the abstract namespace have no mode: any process in the network namespace may connect. Check
    /// [`peer_credentials`](crate::Connection::peer_credentials) there.
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.plan.access.mode = mode;
        self
    }

    /// Sets the owner and the group of a Unix socket's file; `None` leaves them as they are. Defaults to those of the
    /// process. As with chown(2), giving it to another user needs root's rights (`CAP_CHOWN`); giving it to a group
    /// of the process does not.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    /// # let name = format!("socketserver-doc-{}", std::process::id());
    /// # let folder = std::env::temp_dir().join(name);
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
        (self.plan.access.uid, self.plan.access.gid) = (uid.into(), gid.into());
        self
    }

    /// Sets a hook for all failures: errors and panics of handlers, refusals, failing accepts, panics of the
    /// other hooks (Python's `handle_error`). It runs on the thread of the failure. A panic in it is
    /// contained and logged. The failures are logged too. Defaults to none: then, in a program without a logger,
    /// the first error of a run is printed to stderr.
    pub fn handle_error(mut self, hook: impl Fn(&Failure<'_>) + Send + Sync + 'static) -> Self {
        self.plan.hooks.handle_error = Some(Arc::new(Box::new(hook)));
        self
    }

    /// Adds an observer, which hears of each connection's beginning and end: for an access log, metrics, a count by
    /// client. Several are called in the order in which they were added. `()` is an observer that does nothing, so
    /// that the server measures [`Stats::times`](crate::Stats::times). Defaults to none: then no time is measured.
    ///
    /// See [`Observer`] for what it is told, on which thread and in which process. The examples `access_log`,
    /// `per_client` and `slow_log` are observers.
    #[doc(alias = "middleware")]
    #[doc(alias = "access log")]
    #[doc(alias = "access_log")]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.plan.hooks.observers.add(observer);
        self
    }

    /// Sets a hook that decides which connections are served (Python's `verify_request`). If it returns
    /// `false`, the connection is closed without a handler and without a message. It is counted as refused,
    /// and reported to [`handle_error`](Self::handle_error). A panic in the hook refuses its connection.
    /// Defaults to none.
    ///
    /// The hook may be slow (look a name up, ask a database). It never holds up accepting or an event loop.
    /// It runs on one of at most 64 threads, which are started on demand and kept for 10 s. Meanwhile the
    /// connection waits and holds its permit, up to [`verify_timeout`](Self::verify_timeout) or the end of a
    /// drain.
    ///
    /// With [`Sequential`](crate::Sequential), whose one thread does everything, the next client waits too.
    /// With [`Forking`](crate::Forking), the thread is the child's: the hook sees the server's memory as it
    /// was at the fork, and changes nothing in it.
    ///
    /// ```
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let mut server = ServerBuilder::new()
    ///     .verify_request(|incoming| {
    ///         incoming.peer_addr().ip().is_some_and(|ip| !ip.is_loopback())
    ///     })
    ///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("welcome")))?;
    /// let address = server.local_addr().socket_addr().unwrap();
    /// let mut client = std::net::TcpStream::connect(address)?;
    /// assert!(server.handle_request(None)?);
    /// assert_eq!(std::io::read_to_string(&mut client)?, ""); // from this machine
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify_request(mut self, hook: impl Fn(&Incoming) -> bool + Send + Sync + 'static) -> Self {
        self.plan.hooks.verify_request = Some(Box::new(hook));
        self
    }

    /// Sets how long a connection waits for [`verify_request`](Self::verify_request), the wait for a thread
    /// included. Then it is refused and its permit is free. A later answer of the hook is dropped. Defaults
    /// to 10 s. Zero is an error when the server is bound.
    pub fn verify_timeout(mut self, limit: Duration) -> Self {
        self.plan.settings.verify_timeout = limit;
        self
    }

    /// Sets a hook for regular work (Python's `service_actions`). It is called on the thread in
    /// [`serve_forever`](crate::TcpServer::serve_forever), until the stop, once in each period `every`. It
    /// comes late if that thread runs requests itself, as with [`Sequential`](crate::Sequential). In an event
    /// loop it holds up all connections while it runs. Defaults to none: then no thread wakes for it. Zero is
    /// an error when the server is bound.
    ///
    /// [`handle_request`](crate::TcpServer::handle_request) does not call it, as in Python. A strategy of
    /// your own calls it only if it accepts by [`Acceptor::run`](crate::strategy::Acceptor::run).
    pub fn service_actions(mut self, every: Duration, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.plan.hooks.service_actions = Some(Actions { every, hook: Box::new(hook) });
        self
    }

    /// Sets a hook for a [`handle_request`](crate::TcpServer::handle_request) whose time has passed without a
    /// connection (Python's `handle_timeout`). It is called before `handle_request` returns `false`, but not
    /// for a stop. Defaults to none.
    pub fn handle_timeout(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.plan.hooks.handle_timeout = Some(Box::new(hook));
        self
    }

    /// Adds an address to listen on. Each address has its own queue; all share the limits.
    pub fn listen(mut self, address: impl Into<Address>) -> Self {
        self.plan.addresses.push(address.into());
        self
    }
}

impl<S: fmt::Debug> fmt::Debug for ServerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("strategy", &self.strategy)
            .field("settings", &self.plan.settings)
            .field("addresses", &self.plan.addresses)
            .finish_non_exhaustive()
    }
}
