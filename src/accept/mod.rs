//! The accept loop: one turn of it is a value that any thread can call.

mod failure;
mod request;
mod seat;
mod strategy;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use crossbeam::queue::SegQueue;

use crate::error::{Error, Result};
use crate::hooks::Pace;
use crate::lifecycle::{Core, ServerHandle, WorkerRole};
use crate::listen::{Listener, QueuedAtStop};

pub(crate) use failure::{after_failure, After};
pub(crate) use request::{Accepting, Service, Work};
pub use request::{Rejected, Request};
pub use seat::{Seat, Turn};
pub use strategy::ServingStrategy;

/// What a [`ServingStrategy`] accepts with, during one run of the server. Clones are the same acceptor.
#[derive(Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    /// Not owned: a handler that is left running at the end must not keep the listeners open.
    listeners: Weak<Vec<Listener>>,
    service: Service,
    /// Epoll sets between two waits. A thread has one only while it waits.
    sets: SegQueue<seat::ListeningSet>,
    queued: QueuedAtStop,
}

impl Acceptor {
    pub(crate) fn new(core: &Arc<Core>, listeners: &Arc<Vec<Listener>>, service: impl Into<Service>) -> Self {
        let queued = QueuedAtStop::new(core.worker().map(WorkerRole::queue_counts));
        let (core, listeners, service) = (core.clone(), Arc::downgrade(listeners), service.into());
        Self { shared: Arc::new(Shared { core, listeners, service, sets: SegQueue::new(), queued }) }
    }

    /// A place to wait for a connection or a datagram. Take one, call [`Seat::next`], drop it before the request runs: it is used
    /// again by the next who waits.
    ///
    /// # Errors
    /// [`Error::System`] where the system has no descriptor left for it.
    pub fn seat(&self) -> Result<Seat<'static>> {
        let listeners = self.shared.listeners()?;
        let set = match self.shared.sets.pop() {
            Some(set) => set,
            None => seat::listening_set(&self.shared.core, &listeners)?,
        };
        self.report_ready();
        Ok(Seat::new(self.clone(), listeners, set))
    }

    /// Makes as many seats ready, so that their descriptors are not missing when connections have taken the rest.
    pub(crate) fn make_ready(&self, seats: usize) -> Result<()> {
        let listeners = self.shared.listeners()?;
        for _ in 0..seats {
            self.shared.sets.push(seat::listening_set(&self.shared.core, &listeners)?);
        }
        self.report_ready();
        Ok(())
    }

    /// From here on, what comes is heard of.
    fn report_ready(&self) {
        self.shared.core.worker().into_iter().for_each(|worker| worker.report_ready());
    }

    /// A seat whose turns end, as [`Turn::Watched`], also when this descriptor becomes readable.
    ///
    /// # Errors
    /// [`Error::System`] where the system has no descriptor left for it.
    pub fn seat_watching<'a>(&self, fd: BorrowedFd<'a>) -> Result<Seat<'a>> {
        let listeners = self.shared.listeners()?;
        let set = seat::listening_set(&self.shared.core, &listeners)?;
        self.report_ready();
        Seat::new(self.clone(), listeners, set).watch(fd)
    }

    /// A seat that also hears of what the strategy waits for.
    pub(crate) fn seat_for<'a, S: ServingStrategy + ?Sized>(&self, strategy: &'a S) -> Result<Seat<'a>> {
        match strategy.wake_fd() {
            Some(fd) => self.seat_watching(fd),
            None => self.seat(),
        }
    }

    /// Accepts on this thread until the server stops, and hands each request to the strategy.
    ///
    /// # Errors
    /// [`Error::Accept`] when the last listener fails for good.
    pub fn run<S: ServingStrategy + ?Sized>(&self, strategy: &S) -> Result<()> {
        let mut seat = self.seat_for(strategy)?;
        let mut actions = Pace::begin(self.core());
        loop {
            match seat.next(actions.left())? {
                Turn::Request(request) => {
                    if let Err(rejected) = strategy.process_request(request) {
                        let lacking = rejected.is_for_want_of_resources();
                        rejected.refuse();
                        if lacking {
                            seat.back_off()?;
                        }
                    }
                }
                Turn::Watched | Turn::Timeout => {}
                Turn::Stopped => return Ok(()),
            }
            strategy.service_actions();
            actions.act();
        }
    }

    /// The server's remote control.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.shared.core.clone() }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.shared.core
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("core", &self.shared.core).finish_non_exhaustive()
    }
}

impl Shared {
    fn listeners(&self) -> Result<Arc<Vec<Listener>>> {
        let gone = || failed_to_wait(std::io::Error::other("the server has been dropped"));
        self.listeners.upgrade().ok_or_else(gone)
    }

    /// Takes what has come from the kernel's queue: a connection, or a datagram.
    fn take(&self, listener: &Listener) -> io::Result<Work> {
        Ok(match &self.service {
            Service::Connections(handler) => Work::Connection(listener.accept()?, handler.clone()),
            Service::Datagrams(handler) => {
                let packet = listener.receive(self.core.settings.max_packet_size)?;
                Work::Datagram(Box::new(packet), handler.clone())
            }
        })
    }
}

fn failed_to_wait(source: std::io::Error) -> Error {
    Error::System { act: "wait for connections".into(), source }
}
