//! Network servers without an async runtime: write one small handler, name in one word how connections are served.
// What is public is meant to be.
#![warn(unreachable_pub)]
// rust-version is linted, since only one toolchain is tested.
#![deny(clippy::incompatible_msrv)]
// Nothing that a peer, a file or the system does makes the library panic.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
// It never prints either: `eprintln!` panics when its reader is gone.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(target_os = "linux"))]
compile_error!("socketserver runs on Linux only: it is built on epoll, eventfd and pidfd");

// In the order of a connection's way.
mod accept;
mod admit;
mod connection;
mod finish;
mod handler;
mod listen;
mod strategy;

mod error;
mod lifecycle;
mod server;
#[allow(unsafe_code)] // the only place, see its head
mod sys;

pub use accept::{Acceptor, Seat, Turn};
pub use connection::{Connection, ConnectionWriter, Limit, LimitExceeded, LineTooLong, ReadHalf, SendError, WriteHalf};
pub use error::{Error, Result};
pub use finish::{Failure, LingeringClose};
pub use handler::{
    handler, per_connection, HandlerFn, HandlerResult, PerConnection, StreamRequestHandler, StreamRequestHandlerMut,
};
pub use lifecycle::{Report, ServerHandle, Stats};
pub use listen::{Addr, Address};
pub use server::{AtLimit, Bound, Engine, ListeningSocket, ServerBuilder, TcpServer};
pub use strategy::{Rejected, Request, Sequential, ServingStrategy, ThreadPool, Threading};
