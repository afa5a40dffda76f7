//! The life of a server: its switch, its counters, its live connections, its end.

mod block;
mod control;
mod core;
mod drain;
mod handle;
mod registry;
#[cfg(feature = "testing")]
mod roll;
mod stats;
mod throttle;

pub(crate) use self::core::{AtGate, Core, InHandler};
pub(crate) use block::Block;
pub(crate) use control::Control;
pub(crate) use registry::{Slot, SlotState};
pub(crate) use stats::Counters;
pub(crate) use throttle::Kind;

pub use handle::ServerHandle;
pub use stats::{Report, Stats};
