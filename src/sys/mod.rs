//! The system calls, and the only place where `unsafe` is allowed.
//!
//! Required items: [`Epoll`] and [`EventFd`] (readiness and wake-ups), [`poll`] (waits for a few descriptors),
//! [`Poller`] (the event loop's set), [`socket`] (sockets, options, counts
//! of queued bytes), [`datagram`] (datagrams and their addresses), [`limits`] (descriptor limits), [`process`] (fork, pidfds),
//! [`shared`] (memory in common with children), [`signal`] (handlers), [`stop_switch`] (what they turn), [`worker`] (signals of worker
//! processes and their master, and the pipe that tells of its death) and [`watch`] (what the selectors wait with).

pub(crate) mod datagram;
mod event;
mod events;
pub(crate) mod limits;
mod poller;
pub(crate) mod process;
pub(crate) mod shared;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod stop_switch;
pub(crate) mod watch;
pub(crate) mod worker;

#[cfg(all(test, shuttle))]
pub(crate) mod model;
#[cfg(all(test, shuttle))]
pub(crate) mod real {
    pub(crate) use super::event::{poll, Epoll, EventFd, Ready};
}
#[cfg(not(all(test, shuttle)))]
pub(crate) use event::{poll, Epoll, EventFd};
pub(crate) use event::{read_if_ready, Interest};
pub use events::Events;
#[cfg(all(test, shuttle))]
pub(crate) use model::{poll, Epoll, EventFd};
pub(crate) use poller::{Poller, Readiness};
