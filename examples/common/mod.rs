//! The command line of the examples, `NAME [ADDR] [--option VALUE]...`, and the lines that say where a server listens
//! and how it went. A server needs none of this: `main` of each example has what it needs.
#![allow(dead_code)] // each example uses its part

pub mod any;
pub mod chat;
pub mod observed;
pub mod plain;
pub mod tls;
pub mod trouble;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::{self, Display};
use std::io::{stderr, stdout, Write};
use std::process::exit;
use std::str::FromStr;
use std::time::Duration;

use socketserver::{Addr, PerSource, Report, ServerBuilder};

/// An option and its argument, and what it says.
pub type Usage = (&'static str, &'static str);

/// Options that take a limit on a server, see [`Args::limits`].
pub const LIMITS: &[Usage] = &[
    ("max-connections N", "connections served at once"),
    ("drain MS", "how long a stop leaves connections to finish [10000]"),
    ("idle-timeout MS", "longest wait for a request"),
    ("read-timeout MS", "longest wait for more of a request"),
    ("write-timeout MS", "longest wait for a client that takes nothing [30000]"),
    ("request-timeout MS", "longest request in all"),
    ("handshake-timeout MS", "longest wait for a proxy's header and for TLS [10000]"),
    ("per-source N", "connections that one source, an address or a /64 of IPv6, has at once"),
    ("rate N", "connections that one source may make in a second"),
    ("restart-timeout MS", "longest start of the process that takes over after SIGUSR2 [60000]"),
    ("proxy-from CIDR[,CIDR]", "networks of proxies, whose connections begin with a PROXY header; others are refused"),
];

/// The command line.
pub struct Args {
    /// Where to listen.
    pub addr: String,
    options: HashMap<String, String>,
}

/// Reads the command line, and begins to log as `RUST_LOG` says. `--help` and a mistake end the process.
pub fn args(about: &str, options: &[&[Usage]]) -> Args {
    env_logger::init();
    let known = options.concat();
    let mut this = Args { addr: "127.0.0.1:1234".to_owned(), options: HashMap::new() };
    let mut args = std::env::args().skip(1).peekable();
    if let Some(addr) = args.next_if(|a| !a.starts_with('-')) {
        this.addr = addr;
    }
    while let Some(arg) = args.next() {
        if arg == "--help" || arg == "-h" {
            print!("{}", help(about, &known));
            exit(0);
        }
        let name = arg.strip_prefix("--").unwrap_or("");
        if !known.iter().any(|(usage, _)| usage.split(' ').next() == Some(name)) {
            fail(format!("unknown argument {arg:?}; --help lists what there is"));
        }
        let value = args.next().unwrap_or_else(|| fail(format!("{arg} wants a value")));
        this.options.insert(name.to_owned(), value);
    }
    this
}

impl Args {
    /// An option's value, if it was given.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Option<T> {
        let text = self.options.get(name)?;
        Some(text.parse().unwrap_or_else(|e| fail(format!("--{name} {text}: {e}"))))
    }

    /// Whether an option was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// An option's value in milliseconds, if it was given.
    pub fn millis(&self, name: &str) -> Option<Duration> {
        self.get(name).map(Duration::from_millis)
    }

    /// An option's value, or what it is by default.
    pub fn choice<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.options.get(name).map_or(default, String::as_str)
    }

    /// True if an option says yes. Without it, no.
    pub fn is_on(&self, name: &str) -> bool {
        match self.choice(name, "no") {
            "yes" => true,
            "no" => false,
            other => fail(format!("--{name} {other}: it is yes or no")),
        }
    }

    /// Gives the server the [`LIMITS`] of the command line.
    pub fn limits<S>(&self, mut builder: ServerBuilder<S>) -> ServerBuilder<S> {
        if let Some(limit) = self.get("max-connections") {
            builder = builder.max_connections(limit);
        }
        if let Some(limit) = self.millis("drain") {
            builder = builder.drain_timeout(limit);
        }
        if let Some(limit) = self.millis("idle-timeout") {
            builder = builder.idle_timeout(limit);
        }
        if let Some(limit) = self.millis("read-timeout") {
            builder = builder.read_timeout(limit);
        }
        if let Some(limit) = self.millis("write-timeout") {
            builder = builder.write_timeout(limit);
        }
        if let Some(limit) = self.millis("request-timeout") {
            builder = builder.request_timeout(limit);
        }
        if let Some(limit) = self.millis("handshake-timeout") {
            builder = builder.handshake_timeout(limit);
        }
        if self.has("per-source") || self.has("rate") {
            let mut limits = PerSource::new();
            if let Some(most) = self.get("per-source") {
                limits = limits.at_once(most);
            }
            if let Some(most) = self.get("rate") {
                limits = limits.rate(most, Duration::from_secs(1));
            }
            builder = builder.per_source(limits);
        }
        builder = builder.restartable(self.millis("restart-timeout").unwrap_or(Duration::from_secs(60)));
        if let Some(networks) = self.options.get("proxy-from") {
            builder = builder.proxy_protocol(networks.split(',').collect::<Vec<_>>());
        }
        builder
    }
}

/// The first line on stdout: where the server listens.
pub fn listening(addr: &Addr) {
    let _ = stdout().write_all(format!("listening on {addr}\n").as_bytes()); // no panic if nobody reads, as of `println!`
    let _ = stdout().flush();
}

/// The last line on stderr: how it went.
pub fn report(report: &Report) {
    let _ = stderr().write_all(format!("{report}\n").as_bytes()); // one write, one line; and no panic, as of `eprintln!`
}

/// Ends the process with a line on stderr.
pub fn fail(why: impl Display) -> ! {
    let _ = stderr().write_all(format!("Error: {why}\n").as_bytes());
    exit(1)
}

/// For a `main` that meets errors of several kinds: each is shown as its line.
pub struct AnyError(Box<dyn Error>);

impl<E: Into<Box<dyn Error>>> From<E> for AnyError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for AnyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

fn help(about: &str, known: &[Usage]) -> String {
    let mut text = format!(
        "{about}\n\nUsage: [ADDR] [options]\n\n  ADDR  HOST:PORT, [IPV6]:PORT (port 0: any free one), unix:PATH, unix:@NAME, or fd:NUMBER \
         or fd:NAME for a socket that it is started with [127.0.0.1:1234]\n\n"
    );
    for (usage, what) in known.iter().chain(&[("help", "this text")]) {
        text += &format!("  --{usage:<20} {what}\n");
    }
    text + "\nSIGINT and SIGTERM drain the server; a second one stops it at once. RUST_LOG=info logs to stderr.\n"
}
