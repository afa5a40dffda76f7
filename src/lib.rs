//! Network servers without an async runtime: write one small handler, name in one word how connections are served.
//!
//! This is Python's `socketserver` as it should be today: a server, a handler, and a choice of where requests run, with
//! limits, timeouts, and a clean stop. An event loop in Twisted's manner is one of the choices. It runs on Linux, over
//! TCP, UDP and Unix sockets.
//!
//! ```
//! use std::io::{Read, Write};
//! use socketserver::{Connection, HandlerResult, StreamRequestHandler, TcpServer, Threading};
//!
//! struct Greeter;
//!
//! impl StreamRequestHandler for Greeter {
//!     fn handle(&self, conn: &mut Connection) -> HandlerResult {
//!         conn.write_all(b"Thank you for connecting\n")?;
//!         Ok(())
//!     }
//! }
//!
//! type Server = TcpServer<Greeter, Threading>; // Python: class Server(ThreadingMixIn, TCPServer): pass
//!
//! let mut server = Server::bind("127.0.0.1:0", Greeter)?; // it listens from here on; port 0: any free one
//! let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
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
//! | [`Sequential`] | the accepting thread's work | 1 | tests, tools with one client, handlers that must not overlap |
//! | [`Threading`] | a thread, kept for the next one | 1024, or 64 less than `RLIMIT_NOFILE` | most servers; connections that stay |
//! | [`ThreadPool`] | a turn of one of N threads (16) | N | short connections on a fixed number of threads |
//! | [`Forking`] | a process | 128 | handlers that must not harm each other |
//! | [`PreForking<E>`](PreForking) | what `E` makes of it, in one of N worker processes | N times `E`'s | servers that must outlive a crash, a leak, a hang of their own code |
//! | [`EventLoop`] | a [`Protocol`]'s, on one thread for all | 64 less than `RLIMIT_NOFILE` | thousands of connections, idle most of the time; chats and broadcasts |
//! | [`EventLoops`] | a [`Protocol`]'s, in one of N loops with a thread each | the same, less 2 for each further loop | the same, where one processor is not enough |
//!
//! All survive an error or a panic in a handler. An abort, a segfault or a stack overflow ends the process: with
//! [`Forking`], that of the connection, and with [`PreForking`] one worker; [the guide](guide::forking) tells what a handler may do there. A strategy of
//! your own implements [`ServingStrategy`](strategy::ServingStrategy). [`ServerBuilder`] takes strategies with settings. All but [`EventLoop`]
//! take the same handlers; a loop [takes protocols](#event-loop), as its handlers may not wait.
//!
//! Guides: [choosing a strategy](guide::choosing), [exposing a server](guide::exposing), [every default](guide::defaults),
//! [logging](guide::logging), [when not to use this](guide::not_for).
//!
//! # Handlers
//!
//! [`StreamRequestHandler`] has `setup`, `handle` and `finish`, with `&self`: one value serves all connections, many at
//! once. [`handler()`] makes one of a closure, and [`per_connection()`] gives each connection a fresh value with
//! `&mut self` methods ([`StreamRequestHandlerMut`]), as Python does. `?` takes any error.
//!
//! # The connection
//!
//! A [`Connection`] reads as [`BufRead`](std::io::BufRead) and writes as [`Write`](std::io::Write), buffered both ways.
//! Output is sent when its buffer is full, at a flush, **before a read that may wait for the peer**, and at the end.
//! - [`next_line`](Connection::next_line) and [`read_line`](Connection::read_line) are bounded.
//! - [`read_frame`](Connection::read_frame) reads netstrings, length prefixes and other [`framing`], bounded too.
//! - [`next_request`](Connection::next_request) marks where a request ends and the next begins: for the limits, and for
//!   a stop, which ends the wait between two requests and lets a request finish.
//! - [`halves`](Connection::halves) lends both directions apart (Python's `rfile` and `wfile`).
//! - [`writer`](Connection::writer) gives a handle for other threads; what they send is queued.
//!
//! # Datagrams
//!
//! [`UdpServer`] and [`UnixDatagramServer`] serve them with the same strategies (all but [`PreForking`] and [`EventLoop`]):
//! each [`Datagram`] is a request, given to a [`DatagramRequestHandler`]; what that writes is sent back as one.
//! ```
//! # use std::io::Write;
//! use socketserver::{datagram_handler, ServerBuilder, ThreadPool};
//!
//! let upper = datagram_handler(|datagram| {
//!     let upper = datagram.data().to_ascii_uppercase();
//!     Ok(datagram.write_all(&upper)?)
//! });
//! let mut server = ServerBuilder::new().strategy(ThreadPool::new(4)).bind_udp("127.0.0.1:0", upper)?;
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
//! Twisted's and asyncio's way: a [`Protocol`] for each connection, made by a [`Factory`](event_loop::Factory), and called when something
//! has happened. It is lent its [`Transport`]; other connections it reaches by their [`ConnId`](event_loop::ConnId), or all of a [`Group`]:
//! ```
//! # use std::io::{Read, Write};
//! use socketserver::{factory, EventLoop, Group, HandlerResult, Protocol, ServerBuilder, Transport};
//!
//! /// Passes on to all others what one of them sends.
//! struct Member(Group);
//!
//! impl Protocol for Member {
//!     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
//!         transport.join(self.0);
//!         Ok(writeln!(transport, "{} here", transport.members(self.0))?)
//!     }
//!
//!     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
//!         let me = transport.id();
//!         transport.broadcast(self.0, data, Some(me));
//!         Ok(())
//!     }
//! }
//!
//! let room = Group::new();
//! let mut server = ServerBuilder::new()
//!     .strategy(EventLoop::new())
//!     .bind_tcp("127.0.0.1:0", factory(move |_peer| Member(room)))?;
//! let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
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
//! [`Blocking`] serves the same protocols with every other strategy. [`lines()`] and [`strings()`](event_loop::strings) make protocols of
//! receivers of whole lines and strings. A [`Reactor`] is the loop
//! without a server, with several listeners, timers and a [`ReactorHandle`](event_loop::ReactorHandle) for other threads. The guide has [how a
//! turn works](guide::event_loop) and [the names that Twisted and asyncio use](guide::from_twisted). For a loop of
//! one's own there are [`selectors`].
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
//! A server that faces the internet should set idle and request. A handler that returns such an error ends its
//! connection; it may also answer:
//! ```
//! # use std::{io::{Read, Write}, time::Duration};
//! use socketserver::{handler, Limit, ServerBuilder};
//!
//! let mut server = ServerBuilder::new().max_connections(100).idle_timeout(Duration::from_millis(50)).bind_tcp(
//!     "127.0.0.1:0",
//!     handler(|conn| match conn.next_request() {
//!         Err(e) if Limit::of(&e) == Some(Limit::Idle) => Ok(writeln!(conn, "too slow: {e}")?),
//!         other => Ok(other.map(|_| ())?),
//!     }),
//! )?;
//! let mut silent = std::net::TcpStream::connect(server.local_addr().socket_addr().unwrap())?;
//! assert!(server.handle_request(None)?); // one connection, instead of all
//! let mut reply = String::new();
//! silent.read_to_string(&mut reply)?;
//! assert_eq!(reply, "too slow: idle limit of 50ms exceeded\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Hooks
//!
//! Python's, as settings: [`verify_request`](ServerBuilder::verify_request) says who is served, and may be slow;
//! [`service_actions`](ServerBuilder::service_actions) is called now and then by the thread that serves;
//! [`handle_timeout`](ServerBuilder::handle_timeout) when a [`handle_request`](TcpServer::handle_request) has waited in
//! vain; [`handle_error`](ServerBuilder::handle_error) for what goes wrong. A panic in one of them is logged and told,
//! and ends nothing. [The guide](guide::from_socketserver) has their order, and what became of every name of Python's.
//!
//! # Stopping
//!
//! [`ServerHandle::shutdown`], from any thread or from a handler ([`Connection::server`]), never blocks. Who is queued
//! is served, who waits for a request reads the end of the stream, requests may finish, and at the drain limit the rest
//! is cut; then [`serve_forever`](TcpServer::serve_forever) returns a [`Report`]. With
//! [`ServerBuilder::handle_signals`], SIGINT and SIGTERM do the same.
//!
//! # Errors and logging
//!
//! [`Error`] is what keeps a server from being bound or from serving. What goes wrong with one connection is counted
//! ([`Stats`], [`Report`]), told to the [`handle_error`](ServerBuilder::handle_error) hook as a [`Failure`], and logged
//! to `socketserver::handler` (errors and panics: `error`; time limits: `info`; peers that went away: `debug`) or
//! `socketserver::accept` (refusals, failing accepts: `warn`; a no of `verify_request`: `info`). The server itself
//! warns in `socketserver::drain` (a stop has cut connections), `socketserver::limits` (`RLIMIT_NOFILE` is too low),
//! `socketserver::event_loop` (a callback that holds up a loop; panics in its calls and timers: `error`) and
//! `socketserver::server` (panics of hooks: `error`). With `env_logger`:
//! `RUST_LOG=socketserver=info,socketserver::handler=debug`.
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
//! More is in the module `testing` (feature `testing`, for `[dev-dependencies]`): `converse` runs a handler on an input
//! and gives its output, `TestServer` is a server for the time of a test, which names the connections that it leaves
//! open, `FailingListener` fails to accept as a test says, and `TestLoop` is the event loop with connections in memory
//! and a clock that the test moves.
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
pub mod selectors;
#[cfg(feature = "testing")]
pub mod testing;

// A connection's way.
mod accept;
mod admit;
pub mod connection;
mod finish;
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
mod sync;
#[allow(unsafe_code)] // the only place for unsafe acts, see its head
mod sys;

#[cfg(all(test, shuttle))]
mod model;

pub use config::{AtLimit, Limit};
pub use connection::{Connection, Datagram};
pub use error::{Error, HandlerResult, Result};
pub use event_loop::{
    factory, lines, Blocking, Context, EventLoop, EventLoops, Group, LineReceiver, Lost, Protocol, Reactor, Transport,
};
pub use handler::{
    datagram_handler, handler, per_connection, DatagramRequestHandler, StreamRequestHandler, StreamRequestHandlerMut,
};
pub use lifecycle::{Incoming, ServerHandle};
pub use net::{Addr, Address};
pub use observe::{Failure, Report, Stats};
pub use preforking::PreForking;
pub use server::{ServerBuilder, TcpServer, UdpServer, UnixDatagramServer, UnixServer};
pub use strategy::{Forking, Sequential, ThreadPool, Threading};
