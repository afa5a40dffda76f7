//! Stage 1: listening sockets, and what `accept` answers.

mod address;
mod bind;
#[cfg(feature = "testing")]
mod failing;
mod file;
mod listener;
mod spare;

pub use address::{Addr, Address};
pub(crate) use bind::{bind, resolve, BindOptions};
#[cfg(feature = "testing")]
pub use failing::{FailingListener, Failures};
pub(crate) use file::{Access, CHANGE_OWNER};
pub(crate) use listener::{AcceptError, Accepted, Listener};
pub(crate) use spare::Spare;
