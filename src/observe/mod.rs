//! What is counted and told of a server: counters, log lines, and the hook `handle_error`.
//!
//! The rest of the crate tells a [`Monitor`] of events; it counts them, writes the line by [`log_line`], and calls the
//! hook. Nothing here decides what becomes of a connection.

mod failure;
mod inside;
mod line;
mod monitor;
mod outcome;
#[cfg(feature = "testing")]
mod roll;
mod stats;
mod throttle;

pub(crate) use failure::ErrorHook;
pub use failure::Failure;
pub(crate) use inside::{InHandler, ServerId};
pub(crate) use line::log_line;
pub(crate) use monitor::{ChildEnd, Monitor, StopPhase};
pub(crate) use outcome::{contain, Cause, NotServed, Outcome};
pub(crate) use stats::Counters;
pub use stats::{Report, Stats};
