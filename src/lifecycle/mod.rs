//! The state of one server over its life, from `bind` to the end of the drain.
//!
//! [`Core`] holds its parts: [`Control`] (stop and pause), [`Admission`](admission::Admission) (permits),
//! `Registry` (live connections), `Run` (is it serving), `Hooks`, and the role of a worker process. [`Restarts`] are the
//! process's.
//! [`ServerHandle`] is what users hold of it. This folder accepts nothing, serves nothing and decides nothing
//! about connections: the folders above do.
//!
//! The walk of a stop: `ServerHandle::shutdown` → `Control::request_stop` → `raise_to` → each wait ends →
//! `Core::wake_idle` → `server::drain` → `Registry::cut_all` at the drain limit → `Serving::drop`.

mod admission;
mod control;
mod core;
mod handle;
mod hooks;
mod permits;
mod registry;
mod restart;
mod run;
mod scoreboard;
mod shared_state;
mod stop_calls;
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
pub(crate) use registry::{ConnectionSlot, SlotState};
pub(crate) use restart::Restarts;
pub(crate) use scoreboard::{check_count, of_a_master, LostWith, Scoreboard, WorkerSlot, MOST_WORKERS, OF_A_WORKER};
pub(crate) use stop_calls::StopCall;
pub(crate) use waiting::WakeAtCut;
pub(crate) use worker_role::{WorkerRole, READY};
