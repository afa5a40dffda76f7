//! The life of a server: its switch, its counters, its live connections, its end.

mod block;
mod control;
mod core;
mod drain;
mod handle;
mod hooks;
pub(crate) mod monitor;
mod permits;
mod registry;
mod scoreboard;
mod waiting;
mod worker_role;

pub(crate) use self::core::{AtGate, Core, InHandler};
pub(crate) use block::Block;
pub(crate) use control::Control;
pub use handle::ServerHandle;
pub use hooks::Incoming;
#[cfg(all(test, not(shuttle)))]
pub(crate) use hooks::VERIFIERS;
pub(crate) use hooks::{Actions, Hooks};
pub(crate) use permits::{Awaited, Permits};
pub(crate) use registry::{Slot, SlotState};
pub(crate) use scoreboard::{check_count, DeskRef, Lost, Pool, LISTENERS, MOST_WORKERS};
pub(crate) use waiting::WakeAtCut;
pub(crate) use worker_role::{Post, READY};
