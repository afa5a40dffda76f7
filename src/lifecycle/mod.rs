//! The life of a server: its switch, its counters, its live connections, its end.

mod admission;
mod control;
mod core;
mod drain;
mod handle;
mod hooks;
mod permits;
mod registry;
mod run;
mod scoreboard;
mod shared_state;
mod waiting;
mod worker_role;

pub(crate) use self::core::Core;
pub(crate) use admission::AtGate;
pub(crate) use control::Control;
pub use handle::ServerHandle;
pub use hooks::Incoming;
#[cfg(all(test, not(shuttle)))]
pub(crate) use hooks::VERIFIERS;
pub(crate) use hooks::{Actions, Hooks};
pub(crate) use permits::Awaited;
pub(crate) use registry::{Slot, SlotState};
pub(crate) use scoreboard::{check_count, LostWith, Scoreboard, MOST_WORKERS};
pub(crate) use waiting::WakeAtCut;
pub(crate) use worker_role::{WorkerRole, READY};
