//! Network servers without an async runtime: write one small handler, and say in one word how connections are served.
//!
//! ```no_run
//! use socketserver::{handler, ServerBuilder};
//!
//! fn main() -> socketserver::Result<()> {
//!     let greet = handler(|conn| conn.send_line("Thank you for connecting"));
//!     let mut server = ServerBuilder::new()
//!         .handle_signals()
//!         .bind("127.0.0.1:1234", greet)?;
//!     println!("{}", server.serve_forever()?); // until Ctrl-C
//!     Ok(())
//! }
//! ```
//!
//! This is Python's `socketserver` as it should be today: a server, a handler, and a choice of where requests run. It has
//! limits, timeouts, and a clean stop. An event loop in Twisted's manner is one of the choices. The crate runs on Linux,
//! over TCP, UDP and Unix sockets. The same server with a handler type, as Python writes it:
//!
//! ```
//! use std::io::Read;
//! use socketserver::{Connection, HandlerResult, StreamRequestHandler};
//! use socketserver::{TcpServer, Threading};
//!
//! struct Greeter;
//!
//! impl StreamRequestHandler for Greeter {
//!     fn handle(&self, conn: &mut Connection) -> HandlerResult {
//!         conn.send_line("Thank you for connecting")
//!     }
//! }
//!
//! // Python: class Server(ThreadingMixIn, TCPServer): pass
//! type Server = TcpServer<Greeter, Threading>;
//!
//! // It listens from here on. Port 0 is any free port.
//! let mut server = Server::bind("127.0.0.1:0", Greeter)?;
//! let addr = server.local_addr().socket_addr().unwrap();
//! let handle = server.handle();
//! let serving = std::thread::spawn(move || server.serve_forever());
//!
//! let mut greeting = String::new();
//! std::net::TcpStream::connect(addr)?.read_to_string(&mut greeting)?;
//! assert_eq!(greeting, "Thank you for connecting\n");
//!
//! handle.shutdown();
//! assert_eq!(serving.join().unwrap()?.served, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Choosing a strategy
//!
//! | strategy | one connection is | default limit | suits |
//! |---|---|---|---|
//! | [`Sequential`] | work of the accepting thread | 1 | tests, tools with one client |
//! | [`Threading`] | a thread, kept for the next connection | 1024, or `RLIMIT_NOFILE` less 64 if that is lower | most servers; connections that stay |
//! | [`ThreadPool`] | one of N threads (16), idle clients included | N | short connections; with [`per_request()`], thousands of clients that stay |
//! | [`Forking`] | a process | 128 | handlers that must not harm each other |
//! | [`PreForking<E>`](PreForking) | what `E` makes of it, in one of N worker processes | N times `E`'s | servers that must outlive a crash, a leak, a hang of their own code |
//! | [`EventLoop`] | a [`Protocol`], on one thread for all | `RLIMIT_NOFILE` less 64 | thousands of connections, mostly idle; chats and broadcasts |
//! | [`EventLoops`] | a [`Protocol`], in one of N loops with a thread each | the same, less 2 for each further loop | the same on several processors |
//!
//! Every strategy survives an error or a panic in a handler. An abort, a segfault or a stack overflow ends the process.
//! With [`Forking`] that is the process of one connection, and with [`PreForking`] one worker; [the
//! guide](guide::forking) says what a handler may do there. A strategy of your own implements
//! [`ServingStrategy`](strategy::ServingStrategy). [`ServerBuilder`] takes strategies with settings.
//!
//! Guides: [choosing a strategy](guide::choosing), [exposing a server](guide::exposing), [every default](guide::defaults),
//! [its cost](guide::cost), [recipes](guide::recipes), [logging](guide::logging), [restarts and several
//! machines](guide::beyond), [when not to use this](guide::not_for).
//!
//! # Handlers
//!
//! [`StreamRequestHandler`] has `setup`, `handle` and `finish`, with `&self`: one value serves all connections, many at
//! once. [`handler()`] makes a handler of a closure. [`per_connection()`] gives each connection a fresh value with `&mut self`
//! methods ([`StreamRequestHandlerMut`]), as Python does. `?` takes any error.
//!
//! [`per_request()`] and [`sessions()`] make a handler that is called once for each request. Between two requests its
//! connection has no thread: four threads serve ten thousand clients that seldom speak
//! ([which one to write](guide::choosing#requests-or-connections)).
//!
//! # The connection
//!
//! A [`Connection`] reads as [`BufRead`](std::io::BufRead) and writes as [`Write`](std::io::Write), buffered both ways.
//! Output is sent when its buffer is full, at a flush, **before a read that may wait for the peer**, and at the end.
//! - [`next_line`](Connection::next_line) and [`read_line`](Connection::read_line) are bounded;
//!   [`send_line`](Connection::send_line) writes a line.
//! - [`read_frame`](Connection::read_frame) reads netstrings, length prefixes and other [`framing`], bounded too.
//! - [`next_request`](Connection::next_request) marks where a request ends and the next begins. Limits count from there,
//!   and a stop ends the wait between two requests.
//! - [`halves`](Connection::halves) lends both directions apart (Python's `rfile` and `wfile`).
//! - [`writer`](Connection::writer) gives a handle for other threads, whose messages are queued.
//!
//! # Datagrams
//!
//! [`UdpServer`] and [`UnixDatagramServer`] serve datagrams with the same strategies, except [`PreForking`] and
//! the event loops. Each [`Datagram`] is a request for a [`DatagramRequestHandler`]. What the handler writes is sent back as
//! one datagram.
//! ```
//! # use std::io::Write;
//! use socketserver::{datagram_handler, ServerBuilder, ThreadPool};
//!
//! let upper = datagram_handler(|datagram| {
//!     let upper = datagram.data().to_ascii_uppercase();
//!     Ok(datagram.write_all(&upper)?)
//! });
//! let mut server = ServerBuilder::new()
//!     .strategy(ThreadPool::new(4))
//!     .bind_udp("127.0.0.1:0", upper)?;
//! let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
//! client.send_to(b"hello", server.local_addr().socket_addr().unwrap())?;
//! assert!(server.handle_request(None)?);
//! let mut reply = [0; 10];
//! assert_eq!(client.recv(&mut reply)?, 5);
//! assert_eq!(&reply[..5], b"HELLO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! In a loop, a [`DatagramProtocol`](event_loop::DatagramProtocol) is given to [`Reactor::listen_udp`].
//!
//! # Event loop
//!
//! Twisted's and asyncio's way: a [`Factory`](event_loop::Factory) makes a [`Protocol`] for each connection, and the loop
//! calls it when something has happened. Each callback borrows a [`Transport`], which reaches others by their
//! [`ConnId`](event_loop::ConnId), or all members of a [`Group`]:
//! ```
//! # use std::io::{Read, Write};
//! use socketserver::{factory, EventLoop, Group, HandlerResult};
//! use socketserver::{Protocol, ServerBuilder, Transport};
//!
//! /// Passes on to all others what one of them sends.
//! struct Member(Group);
//!
//! impl Protocol for Member {
//!     fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
//!         t.join(self.0);
//!         t.send_line(format!("{} here", t.members(self.0)))
//!     }
//!
//!     fn data_received(
//!         &mut self,
//!         t: &mut Transport<'_>,
//!         data: &[u8],
//!     ) -> HandlerResult {
//!         let me = t.id();
//!         t.broadcast(self.0, data, Some(me));
//!         Ok(())
//!     }
//! }
//!
//! let room = Group::new();
//! let mut server = ServerBuilder::new()
//!     .strategy(EventLoop::new())
//!     .bind_tcp("127.0.0.1:0", factory(move |_peer| Member(room)))?;
//! let addr = server.local_addr().socket_addr().unwrap();
//! let handle = server.handle();
//! let serving = std::thread::spawn(move || server.serve_forever());
//!
//! let mut text = [0; 7];
//! let mut anna = std::net::TcpStream::connect(addr)?;
//! anna.read_exact(&mut text)?;
//! assert_eq!(&text, b"1 here\n");
//! let mut bert = std::net::TcpStream::connect(addr)?;
//! bert.read_exact(&mut text)?;
//! assert_eq!(&text, b"2 here\n");
//! bert.write_all(b"hello!\n")?;
//! anna.read_exact(&mut text)?;
//! assert_eq!(&text, b"hello!\n");
//!
//! handle.shutdown();
//! assert_eq!(serving.join().unwrap()?.served, 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! [`lines()`] and [`strings()`](event_loop::strings) make a protocol of a receiver of lines or strings. [`Blocking`]
//! serves the same protocols with the other strategies, each connection in a loop of its own. A [`Reactor`] is the loop
//! without a server: several listeners, timers, and a [`ReactorHandle`](event_loop::ReactorHandle) for other threads. The
//! guide has [how a turn works](guide::event_loop) and [the names that Twisted and asyncio use](guide::from_twisted). A
//! loop of your own is made of [`selectors`].
//!
//! # Limits
//!
//! | limit | set by | default | what the handler's read or write reports |
//! |---|---|---|---|
//! | connections | [`max_connections`](ServerBuilder::max_connections) | the strategy's | nothing: clients wait, or are refused ([`AtLimit`]) |
//! | idle | [`idle_timeout`](ServerBuilder::idle_timeout) | none | `TimedOut`, [`Limit::Idle`] |
//! | read | [`read_timeout`](ServerBuilder::read_timeout) | none | `TimedOut`, [`Limit::Read`] |
//! | write | [`write_timeout`](ServerBuilder::write_timeout) | 30 s | `TimedOut`, [`Limit::Write`] |
//! | request | [`request_timeout`](ServerBuilder::request_timeout) | none | `TimedOut`, [`Limit::Request`] |
//! | verify | [`verify_timeout`](ServerBuilder::verify_timeout) | 10 s | nothing: the connection is refused |
//! | drain | [`drain_timeout`](ServerBuilder::drain_timeout) | 10 s | `TimedOut`, [`Limit::Drain`] |
//! | line | [`max_line_length`](ServerBuilder::max_line_length) | 64 KiB | `InvalidData`, with a [`LineTooLong`](framing::LineTooLong) inside |
//!
//! A server that faces the internet should set the idle and request limits, and
//! [`per_source`](ServerBuilder::per_source). A handler that returns such an error ends its connection. A handler may
//! also answer first:
//! ```
//! # use std::{io::Read, time::Duration};
//! use socketserver::{handler, Limit, ServerBuilder};
//!
//! let mut server = ServerBuilder::new()
//!     .max_connections(100)
//!     .idle_timeout(Duration::from_millis(50))
//!     .bind_tcp("127.0.0.1:0", handler(|conn| match conn.next_request() {
//!         Err(e) if Limit::of(&e) == Some(Limit::Idle) => {
//!             conn.send_line(format!("too slow: {e}"))
//!         }
//!         other => Ok(other.map(|_| ())?),
//!     }))?;
//! let addr = server.local_addr().socket_addr().unwrap();
//! let mut silent = std::net::TcpStream::connect(addr)?;
//! assert!(server.handle_request(None)?); // one connection, instead of all
//! let mut reply = String::new();
//! silent.read_to_string(&mut reply)?;
//! assert_eq!(reply, "too slow: idle limit of 50ms exceeded\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Hooks
//!
//! They are Python's, as settings. [`verify_request`](ServerBuilder::verify_request) decides whether a connection is
//! served, and may be slow. The serving thread calls [`service_actions`](ServerBuilder::service_actions) now and
//! then. [`handle_timeout`](ServerBuilder::handle_timeout) is called when a
//! [`handle_request`](TcpServer::handle_request) has waited in vain, and
//! [`handle_error`](ServerBuilder::handle_error) when something goes wrong. An [`Observer`] hears of each connection
//! when it opens and when it closes: for an access log, or metrics. A panic in a hook is logged and ends nothing.
//! [The guide](guide::from_socketserver) has their order, and what became of Python's names.
//!
//! # Stopping
//!
//! [`ServerHandle::shutdown`], from any thread or from a handler ([`Connection::server`]), never blocks. The server serves
//! the connections already queued. An idle connection reads end of stream. A running request may finish. At the drain
//! limit the server cuts the rest. Then [`serve_forever`](TcpServer::serve_forever) returns a [`Report`]. With
//! [`ServerBuilder::handle_signals`], SIGINT and SIGTERM do the same.
//!
//! # Errors and logging
//!
//! [`Error`] says why a server could not be bound or could not go on. What goes wrong with one connection is counted
//! ([`Stats`], [`Report`]), given to the [`handle_error`](ServerBuilder::handle_error) hook as a [`Failure`], and logged:
//!
//! | target | level and what |
//! |---|---|
//! | `socketserver::handler` | `error`: errors and panics; `info`: time limits; `debug`: peers that went away |
//! | `socketserver::accept` | `warn`: refusals, failing accepts; `info`: connections that `verify_request` refused |
//! | `socketserver::drain` | `warn`: a stop has cut connections |
//! | `socketserver::limits` | `warn`: `RLIMIT_NOFILE` is too low |
//! | `socketserver::preforking` | `error`: workers that died or could not be started; `info`: their beginning and end |
//! | `socketserver::event_loop` | `warn`: a callback held up a loop; `error`: panics in its calls and timers |
//! | `socketserver::server` | `error`: panics of hooks |
//! | `socketserver::restart` | `info`: a restart and its end; `error`: a restart that failed |
//!
//! With `env_logger`: `RUST_LOG=socketserver=info,socketserver::handler=debug`.
//!
//! # Testing a handler
//!
//! [`Connection::pair`] gives a connection without a server, and its client's end:
//! ```
//! # use std::io::Write;
//! use socketserver::{handler, Connection, StreamRequestHandler};
//!
//! let echo = handler(|conn| {
//!     let (mut input, mut output) = conn.halves();
//!     std::io::copy(&mut input, &mut output)?;
//!     Ok(())
//! });
//! let (mut conn, mut client) = Connection::pair()?;
//! client.write_all(b"hello")?;
//! client.shutdown(std::net::Shutdown::Write)?;
//! echo.handle(&mut conn)?;
//! drop(conn); // sends what is left
//! assert_eq!(std::io::read_to_string(client)?, "hello");
//! # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
//! ```
//! The module `testing` (feature `testing`, for `[dev-dependencies]`) has more. `converse` runs a handler on an input and
//! gives its output. `TestServer` is a server for the time of a test. If the test leaves connections open, it fails and
//! names them. `FailingListener` fails to accept as a test says. `TestLoop` is the event loop in memory, with a manual clock.
// What is public is meant to be.
#![warn(unreachable_pub)]
// rust-version is linted, since only one toolchain is tested.
#![deny(clippy::incompatible_msrv)]
// Nothing that a peer, a file or the system does makes the library panic.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
// It never prints either: `eprintln!` panics when its reader is gone.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(not(target_os = "linux"))]
compile_error!("socketserver runs on Linux only: it is built on epoll, eventfd and pidfd");

// What users write.
pub mod framing;
pub mod guide;
pub mod handler;
pub mod proxy;
pub mod selectors;
#[cfg(feature = "testing")]
pub mod testing;

// A connection's way.
mod accept;
mod admit;
pub mod connection;
mod finish;
mod greeting;
mod hooks;
mod listen;
mod net;

// What runs it.
pub mod event_loop;
mod lifecycle;
mod observe;
pub mod preforking;
pub mod server;
pub mod strategy;

// The ground.
mod config;
mod error;
mod mailbox;
mod offload;
mod panics;
mod privileges;
mod sources;
mod sync;
#[allow(unsafe_code)] // the only place for unsafe acts, see its head
mod sys;
mod systemd;
#[cfg(feature = "__tls")]
pub mod tls;
#[cfg(not(feature = "__tls"))]
mod tls;

#[cfg(all(test, shuttle))]
mod model;

pub use config::{AtLimit, Limit, PerSource};
pub use connection::{Connection, Datagram};
pub use error::{Error, HandlerResult, PeerFault, Result};
pub use event_loop::{
    factory, lines, Blocking, Context, EventLoop, EventLoops, Group, LineReceiver, LineTransport, Lost, Protocol,
    Reactor, Transport,
};
pub use handler::{
    datagram_handler, handler, per_connection, per_request, sessions, DatagramRequestHandler, Next, Session,
    StreamRequestHandler, StreamRequestHandlerMut,
};
pub use lifecycle::{Incoming, ServerHandle};
pub use net::{Addr, Address};
pub use observe::{
    Closed, ConnectionOutcome, Failure, GreetingCounts, GreetingFailure, Observer, Opened, Report, SourceCounts, Stats,
    Times,
};
pub use preforking::PreForking;
pub use server::{ServerBuilder, TcpServer, UdpServer, UnixDatagramServer, UnixServer};
pub use sources::SourceRefusal;
pub use strategy::{Forking, Sequential, ThreadPool, Threading};
#[cfg(feature = "__tls")]
pub use tls::{TlsConfig, TlsInfo};
