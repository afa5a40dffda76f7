//! The system calls, and the only place for unsafe acts, so that they can be read in one sitting.
//!
//! Each unsafe block has its note on why it is sound. Nothing here knows a type of a higher folder. A signal handler
//! or a child gets a switch, a flag or a descriptor.
//!
//! - waits: [`Epoll`], [`EventFd`] and [`Timer`], [`poll`] for a few descriptors, [`Poller`] for the event loop's many,
//!   [`watch`] for the selectors;
//! - sockets: [`socket`] (options, sends, counts of queued bytes), [`datagram`], [`queue`] (their lengths);
//! - calls without the C library: [`raw`];
//! - processes: [`process`] (pidfds, [`Private`](process::Private) descriptors), [`fork`] (which process this is),
//!   [`successor`], [`ends`] of children, a parent's books ([`wiped`], [`unforked`]);
//! - memory in common with children: [`shared`], [`window`] (each sees a part of it), [`wishes`] (what children ask for);
//! - descriptors: their [`limits`], and [`inherited`] ones;
//! - signals: [`stop_switch`] (what handlers turn), [`signal`] (SIGINT and SIGTERM), [`worker`] (those of
//!   worker processes), [`master`] (those of their master), [`restart`] (SIGUSR2).

pub(crate) mod datagram;
pub(crate) mod ends;
mod epoll;
mod event;
mod events;
pub(crate) mod fork;
pub(crate) mod inherited;
pub(crate) mod limits;
pub(crate) mod master;
mod number;
mod poller;
pub(crate) mod process;
pub(crate) mod queue;
mod raw;
pub(crate) mod restart;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod stop_switch;
pub(crate) mod successor;
pub(crate) mod unforked;
pub(crate) mod watch;
pub(crate) mod window;
mod wiped;
pub(crate) mod wishes;
pub(crate) mod worker;

#[cfg(all(test, shuttle))]
pub(crate) mod model;
#[cfg(all(test, shuttle))]
pub(crate) mod real {
    pub(crate) use super::epoll::Epoll;
    pub(crate) use super::event::{poll, EventFd, Ready};
}
#[cfg(not(all(test, shuttle)))]
pub(crate) use epoll::Epoll;
#[cfg(not(all(test, shuttle)))]
pub(crate) use event::{poll, EventFd, Timer};
pub(crate) use event::{read_if_ready, Ready};
pub use events::Events;
#[cfg(all(test, shuttle))]
pub(crate) use model::{poll, Epoll, EventFd, Timer};
pub(crate) use number::clamped;
pub(crate) use poller::{Poller, Readiness};
pub(crate) use raw::close;
