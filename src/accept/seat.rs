//! One turn of the accept loop: wait, take a permit, accept, admit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::{after_failure, After};
use super::{failed_to_wait, Acceptor};
use crate::accept::Request;
use crate::admit::Permit;
use crate::config::AtLimit;
use crate::error::Result;
use crate::finish::refuse;
use crate::lifecycle::{Awaited, Core};
use crate::listen::{Listener, LONGEST_REST, REST};
use crate::sync::{now, MutexGuard};
use crate::sys::process::Private;
use crate::sys::{self, Epoll, Interest};

const STOP: u64 = u64::MAX;
const WATCHED: u64 = u64::MAX - 1;
const RECALL: u64 = u64::MAX - 2;

/// What a turn of the accept loop has brought.
#[derive(Debug)]
#[non_exhaustive]
pub enum Turn {
    /// A connection or a datagram, admitted: run it, or hand it to something that does.
    Request(Request),
    /// The watched descriptor is readable.
    Watched,
    /// Nothing came within the time.
    Timeout,
    /// The server stops, and the kernel's queue has been served: accept no more.
    Stopped,
}

/// What the wait for a permit has brought.
enum Gate {
    Permit(Permit),
    Full,
    Watched,
    Timeout,
    Stopped,
}

/// A thread's place in the accept loop, see [`Acceptor::seat`].
#[derive(Debug)]
pub struct Seat<'a> {
    acceptor: Acceptor,
    listeners: Arc<Vec<Listener>>,
    /// Taken out when the seat is dropped.
    set: Option<ListeningSet>,
    watched: Option<BorrowedFd<'a>>,
    /// Whether it was woken for a connection that it has not taken yet: the kernel has told nobody else.
    called: bool,
}

/// An epoll set with all listeners, each waking one waiting thread only, and the stop switch.
#[derive(Debug)]
pub(super) struct ListeningSet {
    epoll: Private<Epoll>,
}

pub(super) fn listening_set(core: &Arc<Core>, listeners: &[Listener]) -> Result<ListeningSet> {
    let make = || -> io::Result<Epoll> {
        let set = Epoll::new()?;
        set.add(&core.control.stop, Interest::Read, STOP)?;
        core.control.recall.iter().try_for_each(|recall| set.add(recall, Interest::Read, RECALL))?;
        for (token, listener) in (0..).zip(listeners).filter(|(_, listener)| !listener.is_lost()) {
            set.add(listener, Interest::ReadExclusive, token)?;
        }
        Ok(set)
    };
    let epoll = make().map_err(failed_to_wait)?;
    Ok(ListeningSet { epoll: Private::new(epoll) })
}

impl<'a> Seat<'a> {
    pub(super) fn new(acceptor: Acceptor, listeners: Arc<Vec<Listener>>, set: ListeningSet) -> Self {
        Self { acceptor, listeners, set: Some(set), watched: None, called: false }
    }

    pub(super) fn watch(mut self, fd: BorrowedFd<'a>) -> Result<Self> {
        self.watched = Some(fd);
        if let Some(set) = &self.set {
            set.epoll.add(fd, Interest::Read, WATCHED).map_err(failed_to_wait)?;
        }
        Ok(self)
    }

    /// Waits for the next event, for ever or up to `timeout`. At the connection limit it waits for a place (or
    /// refuses, as the server is set); while paused for the resume.
    ///
    /// For a connection the kernel wakes one of those who wait (`EPOLLEXCLUSIVE`). So a seat whose turn has ended while
    /// it waited for a place may be the only one to know of a connection: go on with it, as long as others wait.
    ///
    /// # Errors
    /// [`Error::Accept`](crate::Error::Accept) when the last listener fails for good. Passing failures
    /// (`ECONNABORTED`, `EMFILE` and the like) are waited out here.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Turn> {
        let deadline = timeout.and_then(|t| now().checked_add(t));
        loop {
            if self.core().control.stopping() {
                return self.next_at_stop(deadline);
            }
            let place = match self.keep_a_place(deadline)? {
                None => None,
                Some(Gate::Permit(place)) => Some(place),
                Some(Gate::Watched) => return Ok(Turn::Watched),
                Some(Gate::Timeout) => return Ok(Turn::Timeout),
                Some(Gate::Full | Gate::Stopped) => return self.next_at_stop(deadline),
            };
            let ready = self.wait(deadline)?;
            let core = self.core();
            if core.control.stopping() {
                return self.stopped_in_the_wait(ready, place, deadline);
            }
            let listener = match ready {
                None if left(deadline) == Some(Duration::ZERO) => return Ok(Turn::Timeout),
                None | Some(STOP) => continue,
                Some(WATCHED) => return Ok(Turn::Watched),
                Some(RECALL) => {
                    place.into_iter().for_each(Permit::give_back_unused);
                    core.control.recall_places(false);
                    core.control.recall_places(core.admission.permits.exceeded());
                    continue;
                }
                Some(token) => token as usize,
            };
            if core.admission.permits.someone_rests() {
                drop(core.admission.gate.try_lock_for(LONGEST_REST)); // who tried now would fail as well
                continue;
            }
            self.called = true;
            match self.permit(place, deadline)? {
                Gate::Permit(permit) => {
                    if let Some(request) = self.accept(listener, permit)? {
                        self.called = false;
                        return Ok(Turn::Request(request));
                    }
                }
                Gate::Full => self.refuse_one(listener)?,
                Gate::Watched => return Ok(Turn::Watched),
                Gate::Timeout => return Ok(Turn::Timeout),
                Gate::Stopped => return self.next_at_stop(deadline),
            }
            self.called = false;
        }
    }

    /// Whether a connection waits that nobody else may know of.
    pub(crate) fn is_called(&self) -> bool {
        self.called
    }

    /// The stop has come while this thread waited. Where a worker ends alone, a connection that has come at the same
    /// time is served: the kernel has told no other worker of it.
    fn stopped_in_the_wait(
        &mut self,
        ready: Option<u64>,
        place: Option<Permit>,
        deadline: Option<Instant>,
    ) -> Result<Turn> {
        let core = self.core();
        let called = ready.filter(|token| *token < RECALL && core.ends_alone() && !core.control.paused());
        match (called, place.or_else(|| called.and_then(|_| Permit::reserve(core)))) {
            (Some(listener), Some(permit)) => {
                if let Some(request) = self.accept(listener as usize, permit)? {
                    return Ok(Turn::Request(request));
                }
            }
            (Some(listener), None) => self.refuse_one(listener as usize)?,
            (None, place) => drop(place),
        }
        self.next_at_stop(deadline)
    }

    /// After the request to stop: what the kernel's queue held then is still served, within the drain limit.
    fn next_at_stop(&mut self, deadline: Option<Instant>) -> Result<Turn> {
        let core = self.core();
        core.wake_idle(); // they may hold the permits that the queue waits for
        self.acceptor.shared.queued.count(&self.listeners, core.settings.backlog);
        while !core.control.paused() && !self.acceptor.shared.queued.is_empty() {
            match self.wait_for_permit(None, deadline, true)? {
                Gate::Permit(permit) => match self.accept_last(permit)? {
                    Some(request) => return Ok(Turn::Request(request)),
                    None => continue,
                },
                Gate::Watched => return Ok(Turn::Watched),
                Gate::Timeout => return Ok(Turn::Timeout),
                Gate::Full | Gate::Stopped => break,
            }
        }
        Ok(Turn::Stopped)
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Option<u64>> {
        let Some(set) = &self.set else { return Ok(None) };
        set.epoll.wait(left(deadline)).map_err(failed_to_wait)
    }

    /// In a worker process, who waits has a place already: the connection that wakes it is told to no other worker,
    /// although one may have a place when this one has none. Not where somebody must always be there to refuse.
    fn keep_a_place(&self, deadline: Option<Instant>) -> Result<Option<Gate>> {
        let core = self.core();
        if !core.is_worker() || matches!(core.settings.at_limit, AtLimit::Refuse(_)) {
            return Ok(None);
        }
        self.permit(None, deadline).map(Some)
    }

    /// A permit: at once, as a rule; otherwise as the policy at the limit says.
    fn permit(&self, mut place: Option<Permit>, deadline: Option<Instant>) -> Result<Gate> {
        let core = self.core();
        if !core.control.paused() {
            if let Some(permit) = place.take().or_else(|| Permit::reserve(core)) {
                return Ok(Gate::Permit(permit));
            }
            if matches!(core.settings.at_limit, AtLimit::Refuse(_)) {
                return Ok(Gate::Full);
            }
        }
        self.wait_for_permit(place, deadline, false)
    }

    /// One thread at a time waits here, for a descriptor, since a signal can ring nothing else; for the resume only,
    /// if it has a `place`. While `stopping`, until the drain is over.
    fn wait_for_permit(&self, mut place: Option<Permit>, deadline: Option<Instant>, stopping: bool) -> Result<Gate> {
        let core = self.core();
        let drain = || core.drain_deadline().filter(|_| stopping);
        let until = || drain().into_iter().chain(deadline).min();
        let gate = match until() {
            None => Some(core.admission.gate.lock()),
            Some(until) => core.admission.gate.try_lock_until(until),
        };
        let over =
            || core.control.stopping() != stopping || core.control.is_cut() || left(drain()) == Some(Duration::ZERO);
        // Only who has the gate may touch its bell: another one would take the ring from the one who waits for it.
        let Some(gate) = gate else { return Ok(if over() { Gate::Stopped } else { Gate::Timeout }) };
        let _awaited = Awaiting::mark(core, gate, Awaited::Permit);
        loop {
            core.control.gate.clear();
            if over() {
                return Ok(Gate::Stopped);
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(Gate::Timeout);
            }
            if !core.control.paused() {
                if let Some(permit) = place.take().or_else(|| Permit::reserve(core)) {
                    return Ok(Gate::Permit(permit));
                }
            }
            let switch = if stopping { &core.control.now } else { &core.control.stop };
            let wait = [Some(core.control.gate.as_fd()), Some(switch.as_fd()), self.watched];
            let ready = sys::poll(wait, None, left(until())).map_err(failed_to_wait)?;
            if ready.has(2) {
                return Ok(Gate::Watched);
            }
        }
    }

    fn accept(&self, listener: usize, mut permit: Permit) -> Result<Option<Request>> {
        let shared = &self.acceptor.shared;
        let Some(listener) = self.listeners.get(listener) else { return Ok(None) };
        match shared.take(listener) {
            Ok(work) => {
                self.core().backoff.is_over();
                permit.engage();
                Ok(Some(Request::new(work, permit)))
            }
            Err(e) => {
                permit.give_back_unused();
                self.after_failure(listener, e).map(|()| None)
            }
        }
    }

    /// One of those that were in the queue at the stop, unless they are gone meanwhile.
    fn accept_last(&self, mut permit: Permit) -> Result<Option<Request>> {
        let shared = &self.acceptor.shared;
        for (place, listener) in self.listeners.iter().enumerate() {
            if !shared.queued.take(place) {
                continue;
            }
            match shared.take(listener) {
                Ok(work) => {
                    permit.engage();
                    return Ok(Some(Request::new(work, permit)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => shared.queued.clear(place),
                Err(e) => {
                    permit.give_back_unused();
                    return self.after_failure(listener, e).map(|()| None);
                }
            }
        }
        Ok(None)
    }

    fn refuse_one(&self, listener: usize) -> Result<()> {
        let Some(listener) = self.listeners.get(listener) else { return Ok(()) };
        match self.acceptor.shared.take(listener) {
            Ok(work) => {
                refuse(self.core(), work, &io::Error::other("the connection limit is reached"));
                Ok(())
            }
            Err(e) => self.after_failure(listener, e),
        }
    }

    fn after_failure(&self, listener: &Listener, e: io::Error) -> Result<()> {
        match after_failure(self.core(), listener, e) {
            After::GoOn => Ok(()),
            After::Rest(time) => self.rest(time).map_err(failed_to_wait),
            After::Lost(error) if self.listeners.iter().all(Listener::is_lost) => Err(error),
            After::Lost(_) => {
                self.set.iter().for_each(|set| set.epoll.remove(listener));
                Ok(())
            }
        }
    }

    /// Rests for want of threads or processes.
    pub(crate) fn back_off(&self) -> Result<()> {
        self.rest(REST).map_err(failed_to_wait)
    }

    /// Rests until one of our connections ends, the server stops, or the time is over. Sets that nobody waits with
    /// are descriptors that connections can have.
    fn rest(&self, time: Duration) -> io::Result<()> {
        let core = self.core();
        while self.acceptor.shared.sets.pop().is_some() {}
        let Some(gate) = core.admission.gate.try_lock() else {
            drop(core.admission.gate.try_lock_for(time)); // another one rests already: as long as that one
            return Ok(());
        };
        let _awaited = Awaiting::mark(core, gate, Awaited::End);
        core.control.gate.clear();
        let wait = [Some(core.control.gate.as_fd()), Some(core.control.stop.as_fd())];
        sys::poll(wait, None, Some(time)).map(drop)
    }

    fn core(&self) -> &Arc<Core> {
        self.acceptor.core()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if let (Some(set), None) = (self.set.take(), self.watched) {
            self.acceptor.shared.sets.push(set);
        }
    }
}

/// While it lives, whoever gives a permit back rings the gate. It keeps the gate to its end.
struct Awaiting<'a> {
    core: &'a Core,
    _gate: MutexGuard<'a, ()>,
}

impl<'a> Awaiting<'a> {
    fn mark(core: &'a Core, gate: MutexGuard<'a, ()>, awaited: Awaited) -> Self {
        core.admission.permits.await_return(awaited);
        Self { core, _gate: gate }
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.core.admission.permits.await_return(Awaited::Nothing);
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|d| d.saturating_duration_since(now()))
}
