//! Sockets that requests come to, from the text of an address to `accept`, and what a failed `accept` means.

mod accept_error;
mod bind;
#[cfg(feature = "testing")]
mod failing;
mod file;
mod listener;
mod queued;
mod reserve;

pub(crate) use accept_error::{AcceptBackoff, AcceptError, LONGEST_REST, REST};
pub(crate) use bind::{bind, check_sockets, resolve, BindOptions};
#[cfg(feature = "testing")]
pub use failing::{FailingListener, Failures};
pub(crate) use file::Access;
pub(crate) use listener::Listener;
pub(crate) use queued::{QueueCounts, QueuedAtStop, LISTENERS};
pub(crate) use reserve::ReserveFd;
