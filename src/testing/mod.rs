//! For tests of handlers and protocols: what a test of a server needs, without sleeps, fixed ports or threads left
//! behind (feature `testing`, for `[dev-dependencies]`).
//!
//! | to test | take | which is |
//! |---|---|---|
//! | a handler's answer to an input | [`converse`] | the handler on a pair of sockets in memory; no server, no network |
//! | a handler's dialogue | [`Connection::pair`](crate::Connection::pair) | the same, both ends in the test's hands |
//! | a whole server: strategy, limits, stop | [`TestServer`] | the production server on a free port and a thread |
//! | what a server does when accepting fails | [`FailingListener`] | a real listener, with the failures that are ordered |
//! | a protocol of the event loop | [`TestLoop`] | the production loop, with connections in memory and a manual clock |
//!
//! `examples/testing_a_handler.rs` shows each of them.
//!
//! # Time
//! The clock of a [`TestLoop`] moves by [`advance`](TestLoop::advance) alone, so a test of timers and limits of a
//! protocol takes no time. Handlers wait in the kernel, which measures their limits itself, and there is no clock to
//! hand over: a test of them sets short limits, of some tens of milliseconds, by
//! [`Connection::set_read_timeout`](crate::Connection::set_read_timeout) and its like or by the builder's settings,
//! and asserts that it has ended with the right [`Limit`](crate::Limit), not when.
//! ```
//! use std::time::Duration;
//! use socketserver::testing::TestServer;
//! use socketserver::{handler, Limit, ServerBuilder};
//!
//! let slow = handler(|conn| match conn.next_request() {
//!     Err(e) if Limit::of(&e) == Some(Limit::Idle) => Ok(std::io::Write::write_all(conn, b"too slow\n")?),
//!     other => Ok(other.map(drop)?),
//! });
//! let server = TestServer::with(ServerBuilder::new().idle_timeout(Duration::from_millis(20)), slow);
//! assert_eq!(server.connect().line(), "too slow");
//! assert_eq!(server.stop().served, 1);
//! ```
// Where something fails, the test shall fail.
#![allow(clippy::panic, clippy::expect_used)]

mod client;
mod converse;
mod server;

pub use crate::event_loop::TestLoop;
pub use crate::listen::{FailingListener, Failures};
pub use client::TestClient;
pub use converse::{converse, Conversation, Panicked};
pub use server::TestServer;
