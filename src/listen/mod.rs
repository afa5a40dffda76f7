//! Stage 1: listening sockets, and what `accept` answers.

mod address;
mod bind;
mod listener;

pub use address::{Addr, Address};
pub(crate) use bind::{bind, BindOptions};
pub(crate) use listener::{AcceptError, Accepted, Listener};
