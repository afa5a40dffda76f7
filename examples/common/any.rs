//! For the examples that serve as their command line says: with any strategy.

use std::process::exit;

use socketserver::event_loop::Factory;
use socketserver::server::Engine;
use socketserver::strategy::ServingStrategy;
use socketserver::{Addr, Blocking, EventLoop, EventLoops, Forking, PreForking, Report, Result, Sequential};
use socketserver::{ServerBuilder, StreamRequestHandler, TcpServer, ThreadPool, Threading};

use super::{fail, Args, Usage};

/// Options that choose how connections are served.
pub const STRATEGY: &[Usage] = &[
    ("strategy S", "sequential, threading, thread-pool, forking, preforking, event-loop or event-loops [threading]"),
    ("workers N", "threads of a thread-pool [16], processes of preforking and event-loops [one a processor]"),
    ("accepted yes", "ADDR is fd:0 (inetd) or fd:3 (systemd), one connection that was accepted: serve it and end"),
    ("notify yes", "report to systemd (NOTIFY_SOCKET)"),
    ("observe yes", "print what an observer hears of each connection, and measure times for STATS"),
    ("run-as USER", "the user to become once it listens: USER or USER:GROUP"),
    ("as A", "what serves with a strategy other than an event loop: handler, protocol, or request, a handler for each request \
              (torture_server, echo_server) [handler]"),
];

/// Options of worker processes.
pub const WORKERS: &[Usage] = &[
    ("max-requests N", "after how many connections a process of preforking is replaced"),
    ("heartbeat MS", "how long a process of preforking may give no sign of life [30000]"),
    (
        "inner S",
        "how each process of preforking serves: threading, thread-pool, event-loop or event-loops of 2 [threading]",
    ),
];

/// A server of any type. The type has the strategy in it, which here is known at run time only.
pub trait AnyServer {
    fn local_addr(&self) -> &Addr;
    fn serve_forever(&mut self) -> Result<Report>;
}

impl<H, S: Engine<H>> AnyServer for TcpServer<H, S> {
    fn local_addr(&self) -> &Addr {
        TcpServer::local_addr(self)
    }

    fn serve_forever(&mut self) -> Result<Report> {
        TcpServer::serve_forever(self)
    }
}

type Bound = Result<Box<dyn AnyServer>>;

fn any<H: 'static, S: Engine<H> + 'static>(server: TcpServer<H, S>) -> Bound {
    Ok(Box::new(server))
}

impl Args {
    /// The strategy that `--strategy` names, of those that serve a request at a time.
    pub fn strategy(&self) -> Box<dyn ServingStrategy> {
        let workers = self.get("workers");
        match self.choice("strategy", "threading") {
            "threading" => Box::new(Threading::new()),
            "thread-pool" => Box::new(ThreadPool::new(workers.unwrap_or(16))),
            "forking" => Box::new(Forking::new()),
            "sequential" => Box::new(Sequential),
            other => fail(format!("--strategy {other}: there is no such strategy; see --help")),
        }
    }

    /// A server with the strategy that `--strategy` names. An event loop, and `--as protocol`, take the factory.
    pub fn bind(
        &self,
        builder: ServerBuilder,
        handler: impl StreamRequestHandler,
        factory: impl Factory + Send + Sync + 'static,
    ) -> Bound {
        if self.is_on("accepted") {
            self.serve_one(builder, handler, factory)?;
            exit(0);
        }
        let builder = if self.is_on("notify") { builder.notify_systemd() } else { builder };
        let builder = if self.is_on("observe") { builder.observer(super::observed::Observed) } else { builder };
        let run_as = self.get::<String>("run-as");
        let builder = builder.run_as(run_as.as_deref());
        let workers = self.get("workers"); // also where the strategy has none: a slip is an error
        match self.choice("strategy", "threading") {
            "preforking" => self.bind_preforking(builder, handler, factory),
            "event-loop" => any(builder.strategy(EventLoop::new()).bind(&self.addr, factory)?),
            "event-loops" => {
                let loops = workers.map_or_else(EventLoops::default, EventLoops::new);
                any(builder.strategy(loops).bind(&self.addr, factory)?)
            }
            _ => self.bind_one(builder.strategy(self.strategy()), handler, factory),
        }
    }

    /// Serves the one connection that the program was started for. Its stdout may be the connection: no line on it.
    fn serve_one(
        &self,
        builder: ServerBuilder,
        handler: impl StreamRequestHandler,
        factory: impl Factory + Send + Sync + 'static,
    ) -> Result<()> {
        let is_protocol =
            self.choice("as", "handler") == "protocol" || self.choice("strategy", "").contains("event-loop");
        let served = match is_protocol {
            true => builder.serve_one(&self.addr, Blocking(factory)),
            false => builder.serve_one(&self.addr, handler),
        };
        super::report(&served?);
        Ok(())
    }

    /// True if the handler is to be called for each request.
    pub fn serves_requests(&self) -> bool {
        self.choice("as", "handler") == "request"
    }

    /// The same in worker processes, which serve as `--inner` says.
    pub fn bind_preforking(
        &self,
        builder: ServerBuilder,
        handler: impl StreamRequestHandler,
        factory: impl Factory + Send + Sync + 'static,
    ) -> Bound {
        let inner: Box<dyn ServingStrategy> = match self.choice("inner", "threading") {
            "threading" => Box::new(Threading::new()),
            "thread-pool" => Box::new(ThreadPool::default()),
            "event-loop" => return any(builder.strategy(self.workers(EventLoop::new())).bind(&self.addr, factory)?),
            "event-loops" => {
                return any(builder.strategy(self.workers(EventLoops::new(2))).bind(&self.addr, factory)?)
            }
            other => fail(format!("--inner {other}: there is no such way; see --help")),
        };
        self.bind_one(builder.strategy(self.workers(inner)), handler, factory)
    }

    /// As `--as` says.
    fn bind_one<H, F, S>(&self, builder: ServerBuilder<S>, handler: H, factory: F) -> Bound
    where
        H: StreamRequestHandler,
        F: Factory + Send + Sync + 'static,
        S: Engine<H> + Engine<Blocking<F>> + 'static,
    {
        match self.choice("as", "handler") {
            "handler" | "request" => any(builder.bind(&self.addr, handler)?),
            "protocol" => any(builder.bind(&self.addr, Blocking(factory))?),
            other => fail(format!("--as {other}: it is handler, request or protocol")),
        }
    }

    /// As many processes as `--workers` says, with the options of [`WORKERS`].
    pub fn workers<E>(&self, inner: E) -> PreForking<E> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut strategy = PreForking::new(self.get("workers").unwrap_or(cores), inner);
        if let Some(limit) = self.get("max-requests") {
            strategy = strategy.max_requests(limit);
        }
        if let Some(limit) = self.millis("heartbeat") {
            strategy = strategy.heartbeat(limit);
        }
        strategy
    }
}
