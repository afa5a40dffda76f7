//! One turn of the accept loop: wait, take a permit, accept, admit.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{failed_to_wait, Acceptor};
use crate::admit::Permit;
use crate::error::{Error, Result};
use crate::finish::{observe, refuse};
use crate::lifecycle::Core;
use crate::listen::{AcceptError, Listener};
use crate::server::AtLimit;
use crate::strategy::Request;
use crate::sys::{self, Epoll, Interest};

const STOP: u64 = u64::MAX;
const WATCHED: u64 = u64::MAX - 1;

/// How long accepting rests when the system lacks descriptors or memory, unless one of ours closes first.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What a turn of the accept loop has brought.
#[derive(Debug)]
#[non_exhaustive]
pub enum Turn {
    /// A connection, admitted: run it, or hand it to something that does.
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
}

/// An epoll set with all listeners, each waking one waiting thread only, and the stop switch.
#[derive(Debug)]
pub(super) struct ListeningSet {
    epoll: Epoll,
    core: Arc<Core>,
}

impl Drop for ListeningSet {
    fn drop(&mut self) {
        self.core.disown(&self.epoll);
    }
}

pub(super) fn listening_set(core: &Arc<Core>, listeners: &[Listener]) -> Result<ListeningSet> {
    let make = || -> io::Result<Epoll> {
        let set = Epoll::new()?;
        set.add(&core.control.stop, Interest::Read, STOP)?;
        for (token, listener) in (0..).zip(listeners) {
            set.add(listener, Interest::ReadExclusive, token)?;
        }
        Ok(set)
    };
    let epoll = make().map_err(failed_to_wait)?;
    core.own(&epoll);
    Ok(ListeningSet { epoll, core: core.clone() })
}

impl<'a> Seat<'a> {
    pub(super) fn new(acceptor: Acceptor, listeners: Arc<Vec<Listener>>, set: ListeningSet) -> Self {
        Self { acceptor, listeners, set: Some(set), watched: None }
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
    /// # Errors
    /// [`Error::Accept`] when a listener fails for good. Passing failures (`ECONNABORTED`, `EMFILE` and the like)
    /// are waited out here.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Turn> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let ready = self.wait(deadline)?;
            if self.core().control.stopping() {
                return self.next_at_stop(deadline);
            }
            let listener = match ready {
                None if left(deadline) == Some(Duration::ZERO) => return Ok(Turn::Timeout),
                None | Some(STOP) => continue,
                Some(WATCHED) => return Ok(Turn::Watched),
                Some(token) => token as usize,
            };
            match self.permit(deadline)? {
                Gate::Permit(permit) => {
                    if let Some(request) = self.accept(listener, permit)? {
                        return Ok(Turn::Request(request));
                    }
                }
                Gate::Full => self.refuse_one(listener)?,
                Gate::Watched => return Ok(Turn::Watched),
                Gate::Timeout => return Ok(Turn::Timeout),
                Gate::Stopped => return self.next_at_stop(deadline),
            }
        }
    }

    /// After the request to stop: what the kernel's queue held then is still served, within the drain limit.
    fn next_at_stop(&mut self, deadline: Option<Instant>) -> Result<Turn> {
        let core = self.core();
        core.wake_idle(); // they may hold the permits that the queue waits for
        let drain = core.control.drain_deadline(core.config.drain_timeout);
        let over = left(drain) == Some(Duration::ZERO) || core.control.paused();
        if over || !self.acceptor.shared.has_last(&self.listeners) {
            return Ok(Turn::Stopped);
        }
        match self.wait_for_permit(drain.into_iter().chain(deadline).min(), true)? {
            Gate::Permit(permit) if self.acceptor.shared.take_last(&self.listeners) => {
                Ok(self.accept_any(permit).map_or(Turn::Stopped, Turn::Request))
            }
            Gate::Watched => Ok(Turn::Watched),
            _ if left(deadline) == Some(Duration::ZERO) => Ok(Turn::Timeout),
            _ => Ok(Turn::Stopped),
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Option<u64>> {
        let Some(set) = &self.set else { return Ok(None) };
        set.epoll.wait(left(deadline)).map_err(failed_to_wait)
    }

    /// A permit: at once, as a rule; otherwise as the policy at the limit says.
    fn permit(&self, deadline: Option<Instant>) -> Result<Gate> {
        let core = self.core();
        if !core.control.paused() {
            if let Some(permit) = Permit::take(core) {
                return Ok(Gate::Permit(permit));
            }
            if matches!(core.config.at_limit, AtLimit::Refuse(_)) {
                return Ok(Gate::Full);
            }
        }
        self.wait_for_permit(deadline, false)
    }

    /// One thread at a time waits here, for a descriptor, since a signal can ring nothing else.
    fn wait_for_permit(&self, deadline: Option<Instant>, stopping: bool) -> Result<Gate> {
        let core = self.core();
        let _gate = match deadline {
            None => core.gate.lock(),
            Some(deadline) => match core.gate.try_lock_until(deadline) {
                Some(gate) => gate,
                None => return Ok(Gate::Timeout),
            },
        };
        let _awaited = Awaited::mark(core);
        loop {
            core.control.gate.clear();
            if core.control.stopping() != stopping {
                return Ok(Gate::Stopped);
            }
            if !core.control.paused() {
                if let Some(permit) = Permit::take(core) {
                    return Ok(Gate::Permit(permit));
                }
            }
            let stop = (!stopping).then(|| core.control.stop.as_fd());
            let wait = [Some(core.control.gate.as_fd()), stop, self.watched];
            let ready = sys::poll(wait, None, left(deadline)).map_err(failed_to_wait)?;
            if ready.has(2) {
                return Ok(Gate::Watched);
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(Gate::Timeout);
            }
        }
    }

    fn accept(&self, listener: usize, permit: Permit) -> Result<Option<Request>> {
        let shared = &self.acceptor.shared;
        let Some(listener) = self.listeners.get(listener) else { return Ok(None) };
        match listener.accept() {
            Ok(accepted) => Ok(Some(Request::new(accepted, permit, shared.handler.clone()))),
            Err(e) => {
                drop(permit);
                self.after_failure(listener, e).map(|()| None)
            }
        }
    }

    fn accept_any(&self, permit: Permit) -> Option<Request> {
        let shared = &self.acceptor.shared;
        let accepted = self.listeners.iter().find_map(|l| l.accept().ok())?;
        Some(Request::new(accepted, permit, shared.handler.clone()))
    }

    fn refuse_one(&self, listener: usize) -> Result<()> {
        let Some(listener) = self.listeners.get(listener) else { return Ok(()) };
        match listener.accept() {
            Ok(accepted) => {
                refuse(self.core(), accepted, &io::Error::other("the connection limit is reached"));
                Ok(())
            }
            Err(e) => self.after_failure(listener, e),
        }
    }

    fn after_failure(&self, listener: &Listener, e: io::Error) -> Result<()> {
        match AcceptError::of(&e) {
            AcceptError::Retry => Ok(()),
            AcceptError::BackOff => {
                observe::accept_failed(self.core(), listener.local_addr(), &e);
                self.back_off().map_err(failed_to_wait)
            }
            AcceptError::Fatal => Err(Error::Accept { address: listener.local_addr().to_string(), source: e }),
        }
    }

    /// Rests until one of our connections closes, the server stops, or the time is over. Sets that nobody waits with
    /// are descriptors that connections can have.
    pub(super) fn back_off(&self) -> io::Result<()> {
        let core = self.core();
        while self.acceptor.shared.sets.pop().is_some() {}
        let Some(_gate) = core.gate.try_lock() else {
            drop(core.gate.try_lock_for(BACK_OFF)); // another one rests already: as long as that one
            return Ok(());
        };
        let _awaited = Awaited::mark(core);
        core.control.gate.clear();
        let wait = [Some(core.control.gate.as_fd()), Some(core.control.stop.as_fd())];
        sys::poll(wait, None, Some(BACK_OFF)).map(drop)
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

/// While it lives, whoever gives a permit back rings the gate.
struct Awaited<'a>(&'a Core);

impl<'a> Awaited<'a> {
    fn mark(core: &'a Core) -> Self {
        core.permits().await_return(true);
        Self(core)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.permits().await_return(false);
    }
}

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|d| d.saturating_duration_since(Instant::now()))
}
