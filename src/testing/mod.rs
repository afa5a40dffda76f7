//! Tools for tests of handlers and protocols, without sleeps, fixed ports or leftover threads (feature
//! `testing`, for `[dev-dependencies]`).
//!
//! | to test | take | it is |
//! |---|---|---|
//! | a handler's answer | [`converse`] | the handler on a pair of sockets; no server, no network |
//! | a handler's dialogue | [`Connection::pair`](crate::Connection::pair) | the same, both ends in the test |
//! | a whole server | [`TestServer`] | the production server on a free port and a thread |
//! | a server whose accepting fails | [`FailingListener`] | a real listener, with failures that you set |
//! | a protocol of the event loop | [`TestLoop`] | the production loop in memory, with a manual clock |
//!
//! `examples/testing_a_handler.rs` shows each of them.
//!
//! # Time
//! The clock of a [`TestLoop`] moves only by [`advance`](TestLoop::advance), so a test of a protocol's timers
//! and limits takes no time. Handlers wait in the kernel, which measures their limits itself: there is no
//! clock to replace. A test of them sets short limits, of some tens of milliseconds, by
//! [`Connection::set_read_timeout`](crate::Connection::set_read_timeout) and the like, or by the builder. It
//! asserts the right [`Limit`](crate::Limit), not the time.
//! ```
//! use std::time::Duration;
//! use socketserver::testing::TestServer;
//! use socketserver::{handler, Limit, ServerBuilder};
//!
//! let slow = handler(|conn| match conn.next_request() {
//!     Err(e) if Limit::of(&e) == Some(Limit::Idle) => conn.send_line("too slow"),
//!     other => Ok(other.map(drop)?),
//! });
//! let builder = ServerBuilder::new().idle_timeout(Duration::from_millis(20));
//! let server = TestServer::with(builder, slow);
//! assert_eq!(server.connect().line(), "too slow");
//! assert_eq!(server.stop().served, 1);
//! ```
// A failure here must fail the test.
#![allow(clippy::panic, clippy::expect_used)]

mod client;
mod converse;
mod server;

pub use crate::event_loop::TestLoop;
pub use crate::listen::{FailingListener, Failures};
pub use client::TestClient;
pub use converse::{converse, Conversation, Panicked};
pub use server::TestServer;
