//! The accept loop. One turn of the loop is a value that any thread can call.
//!
//! [`Acceptor::run`] or a strategy's threads take a [`Seat`] and call [`Seat::next`]: wait, permit, `accept`.
//! The result is a [`Request`]. [`Request::run`] does the rest: verify, handler, close. This folder does not
//! know how a strategy runs requests: it knows only the trait [`ServingStrategy`].
//!
//! Threads that serve also accept (leader and followers). The kernel wakes one waiting thread, and that
//! thread accepts and serves. A thread that accepts for others would have to wake one of them for each
//! connection. For a short connection that wake-up is a large part of the cost.

mod failure;
mod listening_set;
mod lot;
mod request;
mod seat;
mod strategy;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

use crossbeam::queue::SegQueue;

use crate::error::{Error, Result};
use crate::hooks::Pace;
use crate::lifecycle::{Core, Restarts, ServerHandle, WorkerRole};
use crate::listen::{Listener, QueuedAtStop};
use crate::sys::process::Private;
use crate::sys::Epoll;

use listening_set::ListeningSet;
pub(crate) use lot::{Lot, OF_A_LOT};

pub(crate) use failure::{after_failure, NextStep};
pub(crate) use request::{Accepting, Kept, Service, Work};
pub use request::{Rejected, Request};
pub use seat::{AcceptEvent, Seat};
pub use strategy::ServingStrategy;

/// Accepts connections and datagrams for a [`ServingStrategy`], during one run of the server. All clones
/// share one state.
#[derive(Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

struct Shared {
    core: Arc<Core>,
    /// Weak: a handler that still runs after the server has ended must not keep the listeners open.
    listeners: Weak<Vec<Listener>>,
    service: Service,
    /// Epoll sets that no thread waits with. Each waiting thread needs a set of its own, so that
    /// `EPOLLEXCLUSIVE` can wake one thread. A thread puts its set back before the request runs, so there are
    /// as many sets as waiting threads, not as many as connections. In a lack of descriptors they are closed.
    sets: SegQueue<ListeningSet>,
    queued: QueuedAtStop,
    /// Where connections wait for their next request, if they do so without a thread.
    lot: Option<Arc<Lot>>,
}

impl Acceptor {
    pub(crate) fn new(core: &Arc<Core>, listeners: &Arc<Vec<Listener>>, service: impl Into<Service>) -> Self {
        Self::with(core, listeners, service.into(), None)
    }

    /// As [`new`](Self::new), with a lot where connections are parked, if the strategy and the handler allow it.
    pub(crate) fn for_strategy<S: ServingStrategy + ?Sized>(
        core: &Arc<Core>,
        listeners: &Arc<Vec<Listener>>,
        service: Service,
        strategy: &S,
    ) -> Result<Self> {
        let parks = strategy.parks() && service.is_per_request();
        let lot = parks.then(|| Lot::new(core, listeners)).transpose().map_err(failed_to_wait)?;
        Ok(Self::with(core, listeners, service, lot))
    }

    fn with(core: &Arc<Core>, listeners: &Arc<Vec<Listener>>, service: Service, lot: Option<Arc<Lot>>) -> Self {
        let queued = QueuedAtStop::new(core.worker().map(WorkerRole::queue_counts));
        let (core, listeners, sets) = (core.clone(), Arc::downgrade(listeners), SegQueue::new());
        Self { shared: Arc::new(Shared { core, listeners, service, sets, queued, lot }) }
    }

    pub(crate) fn lot(&self) -> Option<&Arc<Lot>> {
        self.shared.lot.as_ref()
    }

    /// Gives the calling thread a seat: a wait for a connection or a datagram. Call [`Seat::next`], and drop
    /// the seat before the request runs. The next waiting thread then uses its descriptor again.
    ///
    /// A seat takes one descriptor. It gives it back if a connection needs it, and waits without one while the
    /// system has none.
    ///
    /// # Errors
    /// [`Error::System`] if the server has been dropped.
    pub fn seat(&self) -> Result<Seat<'static>> {
        self.seat_that_watches(None)
    }

    /// Opens the epoll sets for this number of seats, before the first connection.
    pub(crate) fn make_ready(&self, seats: usize) -> Result<()> {
        let listeners = self.shared.listeners()?;
        // With a lot, all threads share its set.
        let seats = if self.lot().is_some() { 0 } else { seats };
        let sets = (0..seats).map_while(|_| ListeningSet::new(self.core(), &listeners).ok());
        sets.for_each(|set| self.shared.sets.push(set));
        self.core().report_ready();
        Ok(())
    }

    /// Gives a seat that also watches `fd`. When `fd` becomes readable, [`Seat::next`] returns
    /// [`AcceptEvent::Watched`].
    ///
    /// # Errors
    /// [`Error::System`] if the server has been dropped.
    pub fn seat_watching<'a>(&self, fd: BorrowedFd<'a>) -> Result<Seat<'a>> {
        self.seat_that_watches(Some(fd))
    }

    fn seat_that_watches<'a>(&self, fd: Option<BorrowedFd<'a>>) -> Result<Seat<'a>> {
        let mut seat = Seat::new(self.clone(), self.shared.listeners()?, fd);
        seat.take_set();
        self.core().report_ready();
        Ok(seat)
    }

    /// Gives a seat that also watches the strategy's [`wake_fd`](ServingStrategy::wake_fd).
    pub(crate) fn seat_for<'a, S: ServingStrategy + ?Sized>(&self, strategy: &'a S) -> Result<Seat<'a>> {
        match strategy.wake_fd() {
            Some(fd) => self.seat_watching(fd),
            None => self.seat(),
        }
    }

    /// Accepts on this thread until the server stops, and hands each request to the strategy.
    ///
    /// # Errors
    /// [`Error::Accept`] if the last listener fails for good, [`Error::System`] if the thread cannot wait.
    #[inline(never)] // a small frame: each page of the stack that is written costs a fault after each fork
    pub fn run<S: ServingStrategy + ?Sized>(&self, strategy: &S) -> Result<()> {
        let beside = self.beside(strategy).map_err(failed_to_wait)?;
        let restarts = self.core().restarts();
        let mut seat = match (&beside, restarts) {
            (Some(set), _) => self.seat_watching(set.as_fd())?,
            (None, Some(restarts)) => self.seat_watching(restarts.watch())?,
            (None, None) => self.seat_for(strategy)?,
        };
        let mut actions = Pace::begin(self.core());
        loop {
            match seat.next(actions.left())? {
                AcceptEvent::Request(request) => {
                    if let Err(rejected) = strategy.process_request(request) {
                        let lacking = rejected.is_for_want_of_resources();
                        rejected.refuse();
                        // The next request would fail in the same way. A rest lets a connection end first.
                        if lacking {
                            seat.back_off()?;
                        }
                    }
                }
                AcceptEvent::Watched if beside.as_ref().is_some_and(|set| !has_restart(set)) => {}
                AcceptEvent::Watched => restarts.into_iter().for_each(Restarts::step),
                AcceptEvent::Timeout => {}
                AcceptEvent::Stopped => return Ok(()),
            }
            // After every turn, whatever ended it: `Forking` reaps its children here.
            strategy.service_actions();
            actions.act();
        }
    }

    /// Makes a set of the restarts and the strategy's descriptor, if there are both. A seat watches one descriptor
    /// beside the listeners.
    fn beside<S: ServingStrategy + ?Sized>(&self, strategy: &S) -> io::Result<Option<Private<Epoll>>> {
        let (Some(restarts), Some(fd)) = (self.core().restarts(), strategy.wake_fd()) else { return Ok(None) };
        let set = Private::new(Epoll::new()?);
        set.add(restarts.watch(), OF_RESTARTS)?;
        set.add(fd, OF_THE_STRATEGY)?;
        Ok(Some(set))
    }

    /// Returns the server's handle.
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

/// The tokens of a set that watches both.
const OF_RESTARTS: u64 = 0;
const OF_THE_STRATEGY: u64 = 1;

/// True if the restarts have something to do.
fn has_restart(beside: &Epoll) -> bool {
    beside.ready(&mut [0; 32]).map_or(true, |ready| ready.contains(&OF_RESTARTS))
}

impl Shared {
    fn listeners(&self) -> Result<Arc<Vec<Listener>>> {
        let gone = || failed_to_wait(std::io::Error::other("the server has been dropped"));
        self.listeners.upgrade().ok_or_else(gone)
    }

    /// Takes a connection or a datagram from the kernel's queue. This is the one step that differs between
    /// the two.
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
