//! One thread, thousands of connections: protocols, as Twisted and asyncio have them, driven by readiness.

mod aside;
mod clock;
mod conn;
mod context;
mod dispatch;
mod drain;
mod end;
mod engine;
mod factory;
mod framed;
mod group;
mod handle;
mod io;
mod lent;
mod line_receiver;
mod lines;
mod lost;
#[cfg(feature = "testing")]
mod memory;
mod outbox;
mod port;
mod protocol;
mod reactor;
mod slab;
mod state;
mod string_receiver;
#[cfg(feature = "testing")]
mod test_loop;
mod timers;
mod transport;
mod turn;

use std::time::Duration;

pub use context::Context;
pub use engine::EventLoop;
pub use factory::{factory, Factory, Peer};
pub use group::Group;
pub use handle::{ReactorGone, ReactorHandle};
pub use lent::Blocking;
pub use line_receiver::{LineReceiver, LineTransport};
pub use lines::{lines, Lines};
pub use lost::{Lost, LostReason, QueueFull, WriteError};
pub use port::ListeningPort;
pub use protocol::{BoxError, Eof, Protocol};
pub use reactor::Reactor;
pub use slab::ConnId;
pub use string_receiver::{strings, StringReceiver, StringTransport, Strings};
#[cfg(feature = "testing")]
pub use test_loop::TestLoop;
pub use timers::TimerId;
pub use transport::Transport;

/// What a loop is set to.
#[derive(Debug, Clone, Copy)]
struct Settings {
    high_water: usize,
    low_water: usize,
    max_queued: usize,
    slow_callback: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            high_water: 64 << 10,
            low_water: 16 << 10,
            max_queued: 8 << 20,
            slow_callback: Duration::from_millis(100),
        }
    }
}
