//! [`PreForking`] as users write it, its [`PreForkingSettings`], and [`WorkerExit`].

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lifecycle::check_count;
use crate::strategy::forking::{bound_settings, Bounds};
use crate::strategy::Threading;

type Hook<T> = Box<dyn Fn(T) + Send>;
type ExitHook = Box<dyn Fn(&WorkerExit) + Send>;

/// N worker processes on one listener, as gunicorn and nginx have them. Each serves with the engine `E`:
/// [`Threading`], [`ThreadPool`](crate::ThreadPool), [`Sequential`](crate::Sequential),
/// [`Forking`](crate::Forking), [`EventLoop`](crate::EventLoop), or a strategy of your own. `PreForking`
/// itself is refused when the server is bound.
///
/// The process that calls [`serve_forever`](crate::TcpServer::serve_forever) is the master. It accepts
/// nothing, and keeps N workers:
///
/// - A worker that dies is replaced at once, and only its own connections fail with it. So a storm of requests that
///   crash keeps out no other client. After five workers in a row that have accepted no connection and have lived
///   less than 100 ms, there are rests as below.
/// - A worker that ends before it is ready is started again after 1 s, then 2 s, and so on up to 60 s. After
///   some attempts in a row ([`max_start_failures`](Self::max_start_failures)), `serve_forever` ends with
///   [`Error::Workers`].
/// - A worker that gives no sign of life is [replaced](Self::heartbeat). A worker that has served its time is
///   [recycled](Self::max_requests).
/// - When the master dies, whatever the cause, its workers stop accepting at once. They finish what they have within
///   the drain limit, and end. Only a handler that keeps computing and never waits for its peer can outlast that.
/// - The listening socket is shut then, so that a stopped worker (SIGSTOP) holds no clients. A socket of
///   [`from_listener`](crate::ServerBuilder::from_listener) is not shut. The path of a Unix socket is taken as long
///   as a stopped worker has the socket.
///
/// The master must have no other threads, since `fork` copies only one of them, and every lock as it is. It refuses
/// to start and to fork if there are others ([`Error::Threads`]). Engines start their threads in the workers.
///
/// ```no_run
/// use socketserver::{handler, PreForking, TcpServer, Threading};
///
/// let hello = handler(|conn| {
///     conn.send_line(format!("Hello from process {}", std::process::id()))
/// });
/// let strategy = PreForking::new(4, Threading::new()).max_requests(100_000);
/// TcpServer::with_strategy("127.0.0.1:1234", hello, strategy)?.serve_forever()?;
/// # Ok::<(), socketserver::Error>(())
/// ```
///
/// # Limits and counters
///
/// [`max_connections`](crate::ServerBuilder::max_connections) is a limit on all workers together, and exact. It is
/// divided among them as evenly as possible. A share is given to another worker only after it was given back. So with
/// fewer connections than workers, some workers serve nobody. With [`AtLimit::Refuse`](crate::AtLimit::Refuse), a
/// worker whose share is used up may refuse a client although another worker could serve it. The default is N times
/// the engine's own limit, and follows N.
///
/// [`ServerHandle::stats`](crate::ServerHandle::stats), in the master and in every worker, are sums over all workers,
/// past and present. The connections of a worker that died count as failed and crashed.
///
/// # What is where
///
/// [`ServerHandle`](crate::ServerHandle) works on the whole server, wherever it is called. The hooks `handle_error`
/// and `verify_request` run in the connection's worker, `service_actions` in the master. Memory is copied at the
/// fork. Other workers do not see what a handler changes, and a successor begins with the master's memory.
///
/// # Signals
///
/// With [`handle_signals`](crate::ServerBuilder::handle_signals), the master drains all workers at SIGINT and
/// SIGTERM, and kills them at a second one. It [reloads](crate::ServerHandle::reload) at SIGHUP. SIGTTIN adds a
/// worker, and SIGTTOU removes one. All of them are handled from the bind on. If a terminal sends SIGTTIN or SIGTTOU
/// to a job in the background, it does not count, and does not stop the master. A worker that gets SIGTERM itself is
/// replaced, and drained once its successor is ready. SIGKILL ends only the connections of that worker, also those in
/// children of [`Forking`](crate::Forking). SIGIO tells workers that their master has died; from elsewhere it does
/// nothing.
///
/// After the death of their master, workers accept nothing more, and drain. A worker that computes for ever is killed one
/// second after its [drain limit](crate::ServerBuilder::drain_timeout), by a timer of the kernel.
///
/// [`handle_request`](crate::TcpServer::handle_request) starts one worker for its one connection. If it
/// cannot be started, that is an error, [`Error::Workers`], at once.
pub struct PreForking<E = Threading> {
    pub(super) engine: E,
    pub(super) settings: PreForkingSettings,
}

/// All settings but the engine.
pub(super) struct PreForkingSettings {
    pub(super) workers: usize,
    pub(super) max_requests: Option<u64>,
    /// `None`: a tenth of `max_requests`.
    pub(super) jitter: Option<u64>,
    pub(super) heartbeat: Option<Duration>,
    /// Failed starts in a row that end the run.
    pub(super) start_failures: u32,
    pub(super) before_fork: Option<Hook<usize>>,
    pub(super) after_fork: Option<Hook<usize>>,
    pub(super) on_worker_exit: Option<ExitHook>,
    /// The workers' name, before their number.
    pub(super) name: String,
    pub(super) bounds: Bounds,
}

/// A worker's end, for [`PreForking::on_worker_exit`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerExit {
    /// The worker's number, from 0. Its successor has the same.
    pub index: usize,
    /// Its process number.
    pub pid: i32,
    /// Its exit code, if it has exited: 0 after a drain.
    pub code: Option<i32>,
    /// The name of the signal that has killed it, as `SIGSEGV`.
    pub signal: Option<&'static str>,
    /// True if the master has asked it to end, or ended it.
    pub expected: bool,
}

impl<E: Default> Default for PreForking<E> {
    /// A worker for each processor that this process may use.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from), E::default())
    }
}

impl<E> PreForking<E> {
    /// A number of workers, each with a copy of this engine. When the server is bound, these are errors: no worker,
    /// more than 512, and more than there may be processes (`kernel.pid_max`, `RLIMIT_NPROC`). The master also needs
    /// 8 descriptors for each worker (`RLIMIT_NOFILE`).
    pub fn new(workers: usize, engine: E) -> Self {
        let settings = PreForkingSettings {
            workers,
            max_requests: None,
            jitter: None,
            heartbeat: Some(Duration::from_secs(30)),
            start_failures: 5,
            before_fork: None,
            after_fork: None,
            on_worker_exit: None,
            name: "worker".to_owned(),
            bounds: Bounds::default(),
        };
        Self { engine, settings }
    }

    /// After this number of connections a worker is replaced, so that what handlers leak does not pile up.
    /// Its successor is ready before it is drained; until then it goes on serving. Each worker gets up to a
    /// tenth more by chance, so that they do not all go at once, see
    /// [`max_requests_jitter`](Self::max_requests_jitter). Defaults to no limit.
    #[must_use]
    pub fn max_requests(mut self, connections: u64) -> Self {
        self.settings.max_requests = Some(connections);
        self
    }

    /// The most connections that a worker may get by chance beyond [`max_requests`](Self::max_requests).
    /// Defaults to a tenth of that.
    #[must_use]
    pub fn max_requests_jitter(mut self, connections: u64) -> Self {
        self.settings.jitter = Some(connections);
        self
    }

    /// The longest time without a sign of life. After it, a worker is replaced: it is stopped, or its serving thread
    /// hangs. When its successor is ready, it is killed, and its connections fail. The successor serves those in the
    /// kernel's queue. A worker must also become ready in this time. Defaults to 30 s; `None`: for ever.
    ///
    /// The thread that serves gives the sign:
    ///
    /// - in an [`EventLoop`](crate::EventLoop) the loop itself, so a callback must not take that long;
    /// - with [`Sequential`](crate::Sequential) the thread of the handler, whenever it waits for the peer;
    /// - with [`Threading`], [`ThreadPool`](crate::ThreadPool) and [`Forking`](crate::Forking) a thread that
    ///   runs no handlers. So handlers may take as long as they like, and one that hangs stays unnoticed.
    /// - A strategy of your own gives it if it accepts by [`Acceptor::run`](crate::strategy::Acceptor::run).
    ///   Otherwise the worker is not watched.
    #[must_use]
    pub fn heartbeat(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.heartbeat = limit.into();
        self
    }

    /// After this number of failed starts in a row, `serve_forever` ends with [`Error::Workers`]. A start fails when
    /// the worker ends before it is ready, or its engine fails within a second. Each worker's number counts by
    /// itself, and its rests do not hold up the others. While any worker serves, failures never end the server.
    /// Defaults to 5, which takes 15 s.
    #[must_use]
    pub fn max_start_failures(mut self, attempts: u32) -> Self {
        self.settings.start_failures = attempts;
        self
    }

    /// Called in the master before each fork, with the worker's number, from 0. A panic in it is contained.
    #[must_use]
    pub fn before_fork(mut self, hook: impl Fn(usize) + Send + 'static) -> Self {
        self.settings.before_fork = Some(Box::new(hook));
        self
    }

    /// Called in each worker before it serves, with the worker's number, from 0. Reseed random number generators
    /// here: otherwise they give every worker the same numbers. Open connections to a database, give up rights, or
    /// [bind the worker to a processor](crate::guide::forking#bounds-of-your-own). It may start threads. A panic in
    /// it is a failed start.
    #[must_use]
    pub fn after_fork(mut self, hook: impl Fn(usize) + Send + 'static) -> Self {
        self.settings.after_fork = Some(Box::new(hook));
        self
    }

    /// Called in the master after each end of a worker. A panic in it is contained.
    #[must_use]
    pub fn on_worker_exit(mut self, hook: impl Fn(&WorkerExit) + Send + 'static) -> Self {
        self.settings.on_worker_exit = Some(Box::new(hook));
        self
    }

    /// The name of the workers in `ps -e` and `top`, before a hyphen and their number; 15 bytes are shown.
    /// Defaults to `worker`: `worker-0`, `worker-1`, …
    #[must_use]
    pub fn process_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    bound_settings!(settings.bounds);
}

impl PreForkingSettings {
    pub(super) fn check(&self) -> Result<()> {
        check_count("PreForking::new", self.workers)?;
        self.bounds.check()?;
        if self.max_requests == Some(0) {
            return Err(Error::setting(
                "max_requests",
                "a worker that may serve zero requests is of no use; give at least 1",
            ));
        }
        if self.start_failures == 0 {
            return Err(Error::setting("max_start_failures", "without one attempt nothing starts; give 1 at least"));
        }
        if self.name.contains('\0') {
            return Err(Error::setting("process_name", "a name cannot contain a NUL"));
        }
        match self.heartbeat {
            Some(limit) if limit < Duration::from_millis(10) || limit > Duration::from_secs(1 << 31) => {
                Err(Error::setting("heartbeat", format!("{limit:?} is not from 10 ms to 68 years")))
            }
            _ => Ok(()),
        }
    }

    /// Returns the number of connections after which the next worker is recycled.
    pub(super) fn recycle_after(&self) -> Option<u64> {
        let least = self.max_requests?;
        let jitter = self.jitter.unwrap_or(least.div_ceil(10));
        // The standard library's hash keys are as good as dice, and need no dependency.
        let by_chance = RandomState::new().hash_one(least) % jitter.saturating_add(1);
        Some(least.saturating_add(by_chance))
    }
}

impl<E: fmt::Debug> fmt::Debug for PreForking<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreForking")
            .field("workers", &self.settings.workers)
            .field("engine", &self.engine)
            .field("bounds", &self.settings.bounds)
            .finish_non_exhaustive()
    }
}
