//! One turn of the accept loop: reserve, wait, take a permit, accept, admit.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::{after_failure, NextStep};
use super::listening_set::{ListeningSet, Ready};
use super::request::Request;
use super::{failed_to_wait, Acceptor};
use crate::admit::{Answer, Gate, Permit};
use crate::config::AtLimit;
use crate::error::Result;
use crate::finish::refuse;
use crate::lifecycle::Core;
use crate::listen::{Listener, LONGEST_REST, REST};
use crate::sync::{left, now};

/// What a turn of the accept loop has brought.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptEvent {
    /// A connection or a datagram, admitted: run it, or hand it to something that does.
    Request(Request),
    /// The watched descriptor is readable.
    Watched,
    /// Nothing came within the time.
    Timeout,
    /// The server stops, and the kernel's queue has been served: accept no more.
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
    /// True if the kernel has woken this thread for a connection that it has not taken yet, and woken nobody else.
    called: bool,
}

impl<'a> Seat<'a> {
    pub(super) fn new(acceptor: Acceptor, listeners: Arc<Vec<Listener>>, set: ListeningSet) -> Self {
        Self { acceptor, listeners, set: Some(set), watched: None, called: false }
    }

    pub(super) fn watch(mut self, fd: BorrowedFd<'a>) -> Result<Self> {
        self.watched = Some(fd);
        self.set.iter().try_for_each(|set| set.watch(fd)).map_err(failed_to_wait)?;
        Ok(self)
    }

    /// Waits for the next event, for ever or up to `timeout`. At the connection limit it waits for a permit (or
    /// refuses, as the server is set); while accepting is paused it waits for the resume.
    ///
    /// For a connection the kernel wakes one of the waiting threads (`EPOLLEXCLUSIVE`). So a seat whose turn has ended
    /// while it waited for a permit may be the only one to know of a connection: go on with it, as long as others wait.
    ///
    /// # Errors
    /// [`Error::Accept`](crate::Error::Accept) when the last listener fails for good. Passing failures
    /// (`ECONNABORTED`, `EMFILE` and the like) are waited out here.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<AcceptEvent> {
        let deadline = timeout.and_then(|t| now().checked_add(t));
        loop {
            if self.core().control.stopping() {
                return self.next_at_stop(deadline);
            }

            // A worker process reserves its permit before it waits. The kernel wakes only one waiter for a connection;
            // without a permit that one could not accept, although another worker is free. Price: an idle waiter counts
            // against the limit. With `AtLimit::Refuse` nothing is reserved: a thread must be free to refuse.
            let mut reserved = None;
            if self.core().is_worker() && !self.refuses_at_limit() {
                match self.gate().permit(None, deadline).map_err(failed_to_wait)? {
                    Answer::Permit(permit) => reserved = Some(permit),
                    Answer::Watched => return Ok(AcceptEvent::Watched),
                    Answer::Timeout => return Ok(AcceptEvent::Timeout),
                    Answer::Full | Answer::Stopped => return self.next_at_stop(deadline),
                }
            }

            let ready = self.wait(deadline)?;
            if self.core().control.stopping() {
                if let Some(request) = self.accept_beside_the_stop(ready, reserved)? {
                    return Ok(AcceptEvent::Request(request));
                }
                return self.next_at_stop(deadline);
            }
            let listener = match ready {
                Ready::Nothing if left(deadline) == Some(Duration::ZERO) => return Ok(AcceptEvent::Timeout),
                Ready::Nothing | Ready::Stop => continue,
                Ready::Watched => return Ok(AcceptEvent::Watched),
                Ready::Recall => {
                    self.give_back(reserved);
                    continue;
                }
                Ready::Listener(listener) => listener,
            };

            // Another thread has found that the system lacks something: an accept now would fail as well.
            if self.core().admission.permits.someone_rests() {
                drop(self.core().admission.gate.try_lock_for(LONGEST_REST));
                continue;
            }

            self.called = true;
            match self.gate().permit(reserved, deadline).map_err(failed_to_wait)? {
                Answer::Permit(permit) => {
                    if let Some(request) = self.accept(listener, permit)? {
                        self.called = false;
                        return Ok(AcceptEvent::Request(request));
                    }
                }
                Answer::Full => self.refuse_one(listener)?,
                Answer::Watched => return Ok(AcceptEvent::Watched),
                Answer::Timeout => return Ok(AcceptEvent::Timeout),
                Answer::Stopped => return self.next_at_stop(deadline),
            }
            self.called = false;
        }
    }

    /// True if a connection waits that no other thread may know of.
    pub(crate) fn is_called(&self) -> bool {
        self.called
    }

    fn gate(&self) -> Gate<'_> {
        Gate::new(self.core(), self.watched)
    }

    fn refuses_at_limit(&self) -> bool {
        matches!(self.core().settings.at_limit, AtLimit::Refuse(_))
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Ready> {
        let Some(set) = &self.set else { return Ok(Ready::Nothing) };
        set.wait(left(deadline)).map_err(failed_to_wait)
    }

    /// The master has lowered the limit: the reserved permit goes back, and the recall is over once enough have.
    fn give_back(&self, reserved: Option<Permit>) {
        reserved.into_iter().for_each(Permit::give_back_unused);
        let core = self.core();
        // Cleared before the look, so that a limit that is lowered in between is recalled again.
        core.control.recall_permits(false);
        core.control.recall_permits(core.admission.permits.exceeded());
    }

    /// The stop has come while this thread waited. Where a worker ends alone, a connection that has come at the same
    /// time is served: the kernel has woken no other worker for it.
    fn accept_beside_the_stop(&self, ready: Ready, reserved: Option<Permit>) -> Result<Option<Request>> {
        let core = self.core();
        let listener = match ready {
            Ready::Listener(listener) if core.ends_alone() && !core.control.paused() => listener,
            _ => return Ok(None),
        };
        match reserved.or_else(|| Permit::reserve(core)) {
            Some(permit) => self.accept(listener, permit),
            None => self.refuse_one(listener).map(|()| None),
        }
    }

    /// After the request to stop: what the kernel's queue held then is still served, within the drain limit.
    fn next_at_stop(&mut self, deadline: Option<Instant>) -> Result<AcceptEvent> {
        let core = self.core();
        let queued = &self.acceptor.shared.queued;
        core.wake_idle(); // idle connections may hold the permits that the queue waits for
        queued.count(&self.listeners, core.settings.backlog);
        while !core.control.paused() && !queued.is_empty() {
            match self.gate().permit_at_stop(deadline).map_err(failed_to_wait)? {
                Answer::Permit(permit) => {
                    if let Some(request) = self.accept_queued(permit)? {
                        return Ok(AcceptEvent::Request(request));
                    }
                }
                Answer::Watched => return Ok(AcceptEvent::Watched),
                Answer::Timeout => return Ok(AcceptEvent::Timeout),
                Answer::Full | Answer::Stopped => break,
            }
        }
        Ok(AcceptEvent::Stopped)
    }

    fn accept(&self, listener: usize, mut permit: Permit) -> Result<Option<Request>> {
        let Some(listener) = self.listeners.get(listener) else { return Ok(None) };
        match self.acceptor.shared.take(listener) {
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

    /// One connection that was in the queue at the stop, unless all are gone meanwhile.
    fn accept_queued(&self, mut permit: Permit) -> Result<Option<Request>> {
        let shared = &self.acceptor.shared;
        for (index, listener) in self.listeners.iter().enumerate() {
            if !shared.queued.take(index) {
                continue;
            }
            match shared.take(listener) {
                Ok(work) => {
                    permit.engage();
                    return Ok(Some(Request::new(work, permit)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => shared.queued.clear(index),
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
            NextStep::GoOn => Ok(()),
            NextStep::Rest(time) => self.rest(time),
            NextStep::Lost(error) if self.listeners.iter().all(Listener::is_lost) => Err(error),
            NextStep::Lost(_) => {
                self.set.iter().for_each(|set| set.remove(listener));
                Ok(())
            }
        }
    }

    /// Rests for want of threads or processes.
    pub(crate) fn back_off(&self) -> Result<()> {
        self.rest(REST)
    }

    /// Rests until one of our connections ends, the server stops, or the time is over.
    fn rest(&self, time: Duration) -> Result<()> {
        // Sets that no thread waits with are descriptors that connections can have.
        while self.acceptor.shared.sets.pop().is_some() {}
        self.gate().rest(time).map_err(failed_to_wait)
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
