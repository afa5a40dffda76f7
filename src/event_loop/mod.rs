//! One thread, thousands of connections: protocols, as Twisted and asyncio have them.
//!
//! The crate's root has the names of every event-driven program. [`EventLoop`] and [`EventLoops`] serve. You write a
//! [`Protocol`]; [`Transport`] and [`Context`] are lent to its callbacks. This module has the rest:
//!
//! - ids: [`ConnId`] of connections, [`TimerId`] of timers, [`ListeningPort`] and [`DatagramPort`] of sockets;
//! - factories: [`Factory`], with the [`Peer`] that it decides about;
//! - receivers of lines, of strings and of parsed items: [`LineReceiver`], [`StringReceiver`], [`ItemReceiver`], their
//!   [`FramedTransport`] (for lines [`LineTransport`]), and what [`lines()`], [`strings()`] and [`items()`] return;
//! - ends and failures: [`Lost`] says which connection ended and [`LostReason`] why; [`WriteError`], [`QueueFull`],
//!   [`BlockingError`], [`Eof`];
//! - clients: [`Connect`] (where to connect to), [`Connector`] (the attempt), [`ConnectorState`], [`Reconnect`] (when
//!   to try again), [`ConnectError`] and [`ConnectFailure`] (what went wrong);
//! - datagrams: [`DatagramProtocol`], [`DatagramTransport`];
//! - the loop by itself: [`Reactor`], with a [`ReactorHandle`] for other threads ([`ReactorGone`] once it is dropped);
//! - [`RateLimit`] of a connection; [`TransportStream`], which parsers read from and write to.
//!
//! [The guide](crate::guide::event_loop) walks through them.

// How the loop is built. Its folders are floors, and calls run down only, methods of `State` included:
//
//   `engines`, `test_loop`   Run loops: for a server, on several threads, for one blocking connection, in a test.
//   `reactor`                The loop as a value, and its handle for other threads.
//   `receivers`              Lines and strings, on top of `Protocol`.
//   `turn`                   The order of one turn: wait, events, timers, deferred calls, settle, drain.
//   `services`               What a callback can ask for: clients, datagrams, other loops, threads, files.
//   `conns`                  One connection: begin, read, call, send, settle, end.
//   `state`                  The data: `State`, `Conn`, `Protocol`, `Transport`, `Context`.
//   `clients`, `io`          Clients as data; bytes in and out.
//   `primitives`             Ids, timers, tokens, groups, rates: values that know no loop.
//
// The walk of bytes: `State::turn` → `handle_readiness` → `read` → `Io::recv` → `deliver_input` → `call` → the user's
// `Protocol` → `Transport::write` → `Outbox` → `settle_one` → `flush` → `Io::send`.
//
// The loop uses epoll itself, through `sys::Poller`, and not `Selector`. It needs more than that contract has. A
// paused connection is watched for a hang-up alone, readiness needs no call for each event, and tokens have 64 bits.
//
// Left out of Twisted: deferreds, because code that waits has threads. Interfaces and adapters: a trait with defaults
// is both. Event triggers: `run` returns. Limits as factories: limits are the server's. Processes and a resolver of
// its own. An exception for a second `stop` or `close`: once more is no mistake, and a `bool` says it.

mod clients;
mod conns;
mod engines;
mod io;
mod primitives;
mod reactor;
mod receivers;
mod services;
mod state;
#[cfg(feature = "testing")]
mod test_loop;
mod turn;

pub use clients::connect::{Connect, Connector, ConnectorState};
pub use clients::connect_error::{ConnectError, ConnectFailure};
pub use clients::reconnect::Reconnect;
pub use conns::stream::TransportStream;
pub use engines::blocking::Blocking;
pub use engines::loops::EventLoops;
pub use primitives::group::Group;
pub use primitives::rate::RateLimit;
pub use primitives::slab::ConnId;
pub use primitives::timers::TimerId;
pub use reactor::handle::{ReactorGone, ReactorHandle};
pub use reactor::Reactor;
pub use receivers::framed::{Framed, FramedTransport};
pub use receivers::item_receiver::{items, ItemReceiver, Items};
pub use receivers::line_receiver::{LineReceiver, LineTransport};
pub use receivers::lines::{lines, Lines};
pub use receivers::string_receiver::{strings, StringReceiver, Strings};
pub use services::offload::BlockingError;
pub use state::context::Context;
pub use state::datagram_protocol::{DatagramPort, DatagramProtocol, DatagramTransport};
pub use state::factory::{factory, Factory, Peer};
pub use state::lost::{Lost, LostReason, QueueFull, WriteError};
pub use state::ports::ListeningPort;
pub use state::protocol::{Eof, Protocol};
pub use state::settings::EventLoop;
pub use state::transport::Transport;
#[cfg(feature = "testing")]
pub use test_loop::TestLoop;
