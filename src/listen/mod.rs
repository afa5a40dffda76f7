//! Stage 1: sockets that requests come to, and what `accept` or a receive answers.

mod address;
mod bind;
mod datagram;
#[cfg(feature = "testing")]
mod failing;
mod file;
mod listener;
mod spare;

pub use address::{Addr, Address};
pub(crate) use bind::{bind, resolve, BindOptions};
pub(crate) use datagram::{DatagramSocket, Packet, LONGEST_V4};
#[cfg(feature = "testing")]
pub use failing::{FailingListener, Failures};
pub(crate) use file::{Access, CHANGE_OWNER};
pub(crate) use listener::{AcceptError, Accepted, Arrival, Listener};
pub(crate) use spare::Spare;
