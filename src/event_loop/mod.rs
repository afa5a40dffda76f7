//! One thread, thousands of connections: protocols, as Twisted and asyncio have them, driven by readiness.

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
pub use engines::blocking::Blocking;
pub use engines::loops::EventLoops;
pub use primitives::group::Group;
pub use primitives::rate::RateLimit;
pub use primitives::slab::ConnId;
pub use primitives::timers::TimerId;
pub use reactor::handle::{ReactorGone, ReactorHandle};
pub use reactor::Reactor;
pub use receivers::framed::{Framed, FramedTransport};
pub use receivers::line_receiver::LineReceiver;
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
