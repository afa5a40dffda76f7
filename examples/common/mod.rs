//! What every example server does besides the thing it shows: arguments, logging, signals, the line that says where
//! it listens, and the report at the end.
#![allow(dead_code)] // each example uses its part

pub mod chat;
pub mod plain;
pub mod trouble;

use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use socketserver::event_loop::Factory;
use socketserver::event_loop::ListeningPort;
use socketserver::server::Engine;
use socketserver::strategy::ServingStrategy;
use socketserver::{Addr, Blocking, EventLoop, EventLoops, Forking, Report, Sequential, ServerBuilder};
use socketserver::{PreForking, Reactor, StreamRequestHandler, TcpServer, ThreadPool, Threading};

/// What `main` and its helpers return.
pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The command line: `NAME [ADDR] [--option VALUE]...`
pub struct Args {
    /// Where to listen.
    pub addr: String,
    options: HashMap<String, String>,
}

/// Options that take a limit on a server, for the examples that offer them.
pub const LIMITS: &[(&str, &str)] = &[
    ("max-connections N", "connections served at once"),
    ("drain MS", "how long a stop leaves connections to finish [10000]"),
    ("idle-timeout MS", "longest wait for a request"),
    ("read-timeout MS", "longest wait for more of a request"),
    ("write-timeout MS", "longest wait for a client that takes nothing [30000]"),
    ("request-timeout MS", "longest request in all"),
];

/// Options that choose how connections are served.
pub const STRATEGY: &[(&str, &str)] = &[
    ("strategy S", "sequential, threading, thread-pool, forking, preforking, event-loop or event-loops [threading]"),
    ("workers N", "threads of a thread-pool [16], processes of preforking and event-loops [one a processor]"),
    ("as A", "handler or protocol: what serves with a strategy other than an event loop [handler]"),
];

/// Options of worker processes.
pub const WORKERS: &[(&str, &str)] = &[
    ("max-requests N", "after how many connections a process of preforking is replaced"),
    ("heartbeat MS", "how long a process of preforking may give no sign of life [30000]"),
    (
        "inner S",
        "how each process of preforking serves: threading, thread-pool, event-loop or event-loops of 2 [threading]",
    ),
];

/// Reads the command line and runs the example; an error becomes one line and exit status 1.
pub fn main(about: &str, options: &[&[(&str, &str)]], run: impl FnOnce(Args) -> Outcome) -> ExitCode {
    env_logger::init();
    let result = Args::parse(about, &options.concat(), std::env::args().skip(1)).and_then(|args| match args {
        Some(args) => run(args),
        None => Ok(()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "error: {e}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn parse(about: &str, known: &[(&str, &str)], args: impl Iterator<Item = String>) -> Outcome<Option<Self>> {
        let mut this = Self { addr: "127.0.0.1:1234".to_owned(), options: HashMap::new() };
        let mut args = args.peekable();
        if let Some(addr) = args.next_if(|a| !a.starts_with('-')) {
            this.addr = addr;
        }
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                print!("{}", help(about, known));
                return Ok(None);
            }
            let name = arg.strip_prefix("--").unwrap_or("");
            if !known.iter().any(|(usage, _)| usage.split(' ').next() == Some(name)) {
                return Err(format!("unknown argument {arg:?}; --help lists what there is").into());
            }
            let value = args.next().ok_or(format!("{arg} wants a value"))?;
            this.options.insert(name.to_owned(), value);
        }
        Ok(Some(this))
    }

    /// An option's value, if it was given.
    pub fn get<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Outcome<Option<T>> {
        let Some(text) = self.options.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|e| format!("--{name} {text}: {e}").into())
    }

    /// An option's value in milliseconds, if it was given.
    pub fn millis(&self, name: &str) -> Outcome<Option<Duration>> {
        Ok(self.get(name)?.map(Duration::from_millis))
    }

    /// A builder with the limits of the command line, and with signals.
    pub fn builder(&self) -> Outcome<ServerBuilder> {
        let mut builder = ServerBuilder::new().handle_signals();
        if let Some(limit) = self.get("max-connections")? {
            builder = builder.max_connections(limit);
        }
        if let Some(limit) = self.millis("drain")? {
            builder = builder.drain_timeout(limit);
        }
        if let Some(limit) = self.millis("idle-timeout")? {
            builder = builder.idle_timeout(limit);
        }
        if let Some(limit) = self.millis("read-timeout")? {
            builder = builder.read_timeout(limit);
        }
        if let Some(limit) = self.millis("write-timeout")? {
            builder = builder.write_timeout(limit);
        }
        if let Some(limit) = self.millis("request-timeout")? {
            builder = builder.request_timeout(limit);
        }
        Ok(builder)
    }

    /// Serves with the strategy that the command line names: the handler, or, in an event loop and with `--as
    /// protocol`, the factory's protocols.
    pub fn serve(
        &self,
        builder: ServerBuilder,
        handler: impl StreamRequestHandler,
        factory: impl Factory + Send + Sync + 'static,
    ) -> Outcome {
        let workers = self.get("workers")?; // also where the strategy has none: a slip is an error
        let strategy: Box<dyn ServingStrategy> = match self.get::<String>("strategy")?.as_deref() {
            None | Some("threading") => Box::new(Threading::new()),
            Some("thread-pool") => Box::new(ThreadPool::new(workers.unwrap_or(16))),
            Some("forking") => Box::new(Forking::new()),
            Some("sequential") => Box::new(Sequential),
            Some("preforking") => return self.serve_preforking(builder, handler, factory),
            Some("event-loop") => return run(builder.strategy(EventLoop::new()).bind(&self.addr, factory)?),
            Some("event-loops") => {
                let loops = self.get("workers")?.map_or_else(EventLoops::default, EventLoops::new);
                return run(builder.strategy(loops).bind(&self.addr, factory)?);
            }
            Some(other) => return Err(format!("--strategy {other}: there is no such strategy; see --help").into()),
        };
        self.serve_one(builder.strategy(strategy), handler, factory)
    }

    /// The same in worker processes, which serve as `--inner` says.
    pub fn serve_preforking(
        &self,
        builder: ServerBuilder,
        handler: impl StreamRequestHandler,
        factory: impl Factory + Send + Sync + 'static,
    ) -> Outcome {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = self.get("workers")?.unwrap_or(cores);
        let inner: Box<dyn ServingStrategy> = match self.get::<String>("inner")?.as_deref() {
            None | Some("threading") => Box::new(Threading::new()),
            Some("thread-pool") => Box::new(ThreadPool::default()),
            Some("event-loop") => {
                return run(builder.strategy(self.preforking(workers, EventLoop::new())?).bind(&self.addr, factory)?)
            }
            Some("event-loops") => {
                return run(builder
                    .strategy(self.preforking(workers, EventLoops::new(2))?)
                    .bind(&self.addr, factory)?)
            }
            Some(other) => return Err(format!("--inner {other}: there is no such way; see --help").into()),
        };
        self.serve_one(builder.strategy(self.preforking(workers, inner)?), handler, factory)
    }

    /// As `--as` says.
    fn serve_one<H, F, S>(&self, builder: ServerBuilder<S>, handler: H, factory: F) -> Outcome
    where
        H: StreamRequestHandler,
        F: Factory + Send + Sync + 'static,
        S: Engine<H> + Engine<Blocking<F>>,
    {
        match self.get::<String>("as")?.as_deref() {
            None | Some("handler") => run(builder.bind(&self.addr, handler)?),
            Some("protocol") => run(builder.bind(&self.addr, Blocking(factory))?),
            Some(other) => Err(format!("--as {other}: it is handler or protocol").into()),
        }
    }

    fn preforking<E>(&self, workers: usize, inner: E) -> Outcome<PreForking<E>> {
        let mut strategy = PreForking::new(workers, inner);
        if let Some(limit) = self.get("max-requests")? {
            strategy = strategy.max_requests(limit);
        }
        if let Some(limit) = self.millis("heartbeat")? {
            strategy = strategy.heartbeat(limit);
        }
        Ok(strategy)
    }
}

/// Says where the server listens, serves until it is stopped, and reports.
pub fn run<H, S: Engine<H>>(mut server: TcpServer<H, S>) -> Outcome {
    listening_on(server.local_addr())?;
    report(&server.serve_forever()?);
    Ok(())
}

/// The first line on stdout.
pub fn listening_on(addr: &Addr) -> Outcome {
    println!("listening on {addr}");
    Ok(std::io::stdout().flush()?)
}

/// The last line on stderr.
pub fn report(report: &Report) {
    let _ = std::io::stderr().write_all(format!("{report}\n").as_bytes()); // one write, one line
}

/// The same for a reactor with one port.
pub fn run_reactor(mut reactor: Reactor, port: &ListeningPort) -> Outcome {
    reactor.handle_signals()?;
    listening_on(port.local_addr())?;
    report(&reactor.run()?);
    Ok(())
}

fn help(about: &str, known: &[(&str, &str)]) -> String {
    let mut text = format!(
        "{about}\n\nUsage: [ADDR] [options]\n\n  ADDR  HOST:PORT, [IPV6]:PORT (port 0: any free one), unix:PATH or unix:@NAME \
         [127.0.0.1:1234]\n\n"
    );
    for (usage, what) in known.iter().chain(&[("help", "this text")]) {
        text += &format!("  --{usage:<20} {what}\n");
    }
    text + "\nSIGINT and SIGTERM drain the server; a second one stops it at once. RUST_LOG=info logs to stderr.\n"
}
