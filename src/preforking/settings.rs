//! What is set: the builder that users write, and what it holds.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lifecycle::check_count;
use crate::strategy::forking::{bound_settings, Bounds};
use crate::strategy::Threading;

type Hook<T> = Box<dyn Fn(T) + Send>;
type ExitHook = Box<dyn Fn(&WorkerExit) + Send>;

/// N worker processes on one listener, each of which serves with engine `E`: [`Threading`],
/// [`ThreadPool`](crate::ThreadPool), [`Sequential`](crate::Sequential), [`Forking`](crate::Forking),
/// [`EventLoop`](crate::EventLoop), or a strategy of your own; `PreForking` itself is refused when the server is bound.
/// What gunicorn and nginx do.
///
/// The process that calls [`serve_forever`](crate::TcpServer::serve_forever) is the master: it accepts nothing, and
/// sees that there are always N workers. One that dies is replaced at once, and only its own connections fail with it
/// (after five in a row that have lived less than 100 ms, with rests as below).
/// One that ends before it is ready is started again after 1 s, then 2 s, and so on up to 60 s; after some attempts in
/// a row ([`max_start_failures`](Self::max_start_failures)) `serve_forever` ends with [`Error::Workers`]. One that
/// gives no sign of life is [replaced](Self::heartbeat), and one that has served its time is
/// [recycled](Self::max_requests). When the master dies, whatever the cause, its workers stop accepting at once, finish
/// what they have within the drain limit, and end; only a handler that computes on and never waits for its peer can
/// outlast that. The listening socket is shut then, so that a worker which is stopped holds no clients, unless it was
/// taken over by [`from_listener`](crate::ServerBuilder::from_listener): that stays its maker's. (The path of a Unix socket is taken as long as a stopped worker has the socket.)
///
/// The master must have no other threads, since `fork` copies only one of them and every lock as it is: it refuses to
/// start, and to fork, where there are some ([`Error::Threads`]). Engines start theirs in the workers.
///
/// ```no_run
/// use std::io::Write;
/// use socketserver::{handler, PreForking, TcpServer, Threading};
///
/// let hello = handler(|conn| Ok(writeln!(conn, "Hello from process {}", std::process::id())?));
/// let strategy = PreForking::new(4, Threading::new()).max_requests(100_000);
/// TcpServer::with_strategy("127.0.0.1:1234", hello, strategy)?.serve_forever()?;
/// # Ok::<(), socketserver::Error>(())
/// ```
///
/// # Limits and counters
///
/// [`max_connections`](crate::ServerBuilder::max_connections) is a limit on all workers together, and exact: it is
/// divided among them as evenly as can be, and a share is lent to nobody before it has been given back. So with fewer
/// connections than workers, some workers serve nobody; and with [`AtLimit::Refuse`](crate::AtLimit::Refuse) a client
/// may be refused by a worker whose share is used up while another worker has places. Defaults to N times the engine's
/// own limit, and follows N where it was not set.
/// [`ServerHandle::stats`](crate::ServerHandle::stats), in the master and in every worker, are sums over all workers
/// there are and were: connections that a worker took with it have failed and crashed.
///
/// # What is where
///
/// [`ServerHandle`](crate::ServerHandle) works on the whole server, from wherever it is called. The hooks
/// `handle_error` and `verify_request` run in the worker whose connection it is, `service_actions` in the master. Memory
/// is copied at the fork: what a handler changes, the other workers do not see, and a successor begins with the
/// master's.
///
/// # Signals
///
/// With [`handle_signals`](crate::ServerBuilder::handle_signals), the master drains all workers at SIGINT and SIGTERM,
/// at a second one kills them and ends; [reloads](crate::ServerHandle::reload) at SIGHUP; and has one worker more or
/// fewer after SIGTTIN or SIGTTOU. A worker that gets SIGTERM itself is replaced, and drained once its successor is
/// ready; SIGKILL is felt by its own connections only, those in children of [`Forking`](crate::Forking) included. Workers
/// are told of their master's death by SIGIO; one that comes from elsewhere does nothing.
///
/// [`handle_request`](crate::TcpServer::handle_request) starts one worker for its one connection; that it cannot be
/// started is an error, [`Error::Workers`], at once.
pub struct PreForking<E = Threading> {
    pub(super) engine: E,
    pub(super) settings: PreForkingSettings,
}

/// All but the engine.
pub(super) struct PreForkingSettings {
    pub(super) workers: usize,
    pub(super) max_requests: Option<u64>,
    pub(super) jitter: Option<u64>,
    pub(super) heartbeat: Option<Duration>,
    pub(super) start_failures: u32,
    pub(super) before_fork: Option<Hook<usize>>,
    pub(super) after_fork: Option<Hook<usize>>,
    pub(super) on_worker_exit: Option<ExitHook>,
    pub(super) name: String,
    pub(super) bounds: Bounds,
}

/// A worker's end, for [`PreForking::on_worker_exit`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerExit {
    /// The number of its place, from 0.
    pub index: usize,
    /// Its process.
    pub pid: i32,
    /// Its exit code, if it has exited: 0 after a drain.
    pub code: Option<i32>,
    /// The name of the signal that has killed it, as `SIGSEGV`.
    pub signal: Option<&'static str>,
    /// Whether the master has asked it to end, or ended it.
    pub expected: bool,
}

impl<E: Default> Default for PreForking<E> {
    /// A worker for each processor that this process may use.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from), E::default())
    }
}

impl<E> PreForking<E> {
    /// So many workers, each with a copy of this engine. None at all, more than 512, more than there may be
    /// processes (`kernel.pid_max`, `RLIMIT_NPROC`), and more than the master has descriptors for (8 each, of
    /// `RLIMIT_NOFILE`), are errors when the server is bound.
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

    /// After how many connections a worker is replaced, so that what handlers leak does not pile up. Its successor is
    /// ready before it is drained; until then it goes on serving. Each worker gets up to a tenth more by chance, so
    /// that they do not all go at once; see [`max_requests_jitter`](Self::max_requests_jitter). Defaults to no limit.
    #[must_use]
    pub fn max_requests(mut self, connections: u64) -> Self {
        self.settings.max_requests = Some(connections);
        self
    }

    /// How many connections more than [`max_requests`](Self::max_requests) a worker may get by chance. Defaults to a
    /// tenth of that.
    #[must_use]
    pub fn max_requests_jitter(mut self, connections: u64) -> Self {
        self.settings.jitter = Some(connections);
        self
    }

    /// How long a worker may give no sign of life before it is replaced: stopped, or with a serving thread that does
    /// not come back. When its successor is ready, it is killed, and its connections fail; those in the kernel's queue
    /// are its successor's. Also how long a worker may take to become ready. Defaults to 30 s; `None`: for ever.
    ///
    /// The sign is given by the thread that serves: in an [`EventLoop`](crate::EventLoop) the loop itself, so a callback
    /// must not take that long; with [`Sequential`](crate::Sequential) the thread of the handler, whenever it waits
    /// for the peer; with [`Threading`], [`ThreadPool`](crate::ThreadPool) and [`Forking`](crate::Forking) a thread
    /// that runs no handlers, so handlers may take as long as they like, and one that hangs stays unnoticed. A strategy
    /// of your own gives it where it accepts by [`Acceptor::run`](crate::strategy::Acceptor::run), and is left alone otherwise.
    #[must_use]
    pub fn heartbeat(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.settings.heartbeat = limit.into();
        self
    }

    /// After how many failed attempts in a row to start a worker `serve_forever` ends, with [`Error::Workers`]. An
    /// attempt fails when the worker ends before it is ready, or its engine fails within a second; each place counts by
    /// itself, and its rests hold up no other. While any worker serves, failures never end the server. Defaults to 5,
    /// which takes 15 s.
    #[must_use]
    pub fn max_start_failures(mut self, attempts: u32) -> Self {
        self.settings.start_failures = attempts;
        self
    }

    /// Called in the master before each fork, with the number of the worker's place, from 0. A panic in it is
    /// contained.
    #[must_use]
    pub fn before_fork(mut self, hook: impl Fn(usize) + Send + 'static) -> Self {
        self.settings.before_fork = Some(Box::new(hook));
        self
    }

    /// Called in each worker before it serves, with the number of its place, from 0: to reseed random number
    /// generators, which otherwise give every worker the same numbers; to open connections to a database; to give up
    /// rights; to [bind it to a processor](crate::guide::forking#bounds-of-your-own). It may start threads. A panic in
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

    /// The name of the workers in `ps -e` and `top`, before a hyphen and the number of their place; 15 bytes are shown.
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
            return Err(Error::setting("max_requests", "a worker that serves nobody is of no use; give 1 at least"));
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

    /// How many connections the next worker serves. The standard library's hash keys are as good as dice.
    pub(super) fn recycle_after(&self) -> Option<u64> {
        let least = self.max_requests?;
        let jitter = self.jitter.unwrap_or(least.div_ceil(10));
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
