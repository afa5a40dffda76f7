//! Listening sockets, from the text of an address to `accept`, and the meaning of a failed `accept`.
//!
//! The walk: [`bind()`] → `resolve` → `bind_at` (Unix files) → [`Listener`] → [`Listener::accept`] or
//! [`Listener::receive`] → on failure [`AcceptError::of`] → [`AcceptBackoff::rest_after`]. [`QueuedAtStop`]
//! counts the kernel's queues at a stop. [`accepted()`] takes a connection that another program has accepted; `handover` the
//! sockets of a former process. This folder does not wait and does not know permits: `accept` and
//! `admit` do.

mod accept_error;
mod accepted;
mod bind;
#[cfg(feature = "testing")]
mod failing;
mod file;
mod handover;
mod inherited;
mod listener;
mod lock;
mod queued;
mod reserve;

pub(crate) use accept_error::{AcceptBackoff, AcceptError, LONGEST_REST, REST};
pub(crate) use accepted::accepted;
pub(crate) use bind::{bind, check_sockets, resolve, BindOptions};
#[cfg(feature = "testing")]
pub use failing::{FailingListener, Failures};
pub(crate) use file::Access;
pub(crate) use handover::{describe, is_followed, note_served};
pub(crate) use listener::Listener;
pub(crate) use queued::{QueueCounts, QueuedAtStop, LISTENERS};
pub(crate) use reserve::ReserveFd;
