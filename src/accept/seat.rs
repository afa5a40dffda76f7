//! One turn of the accept loop: reserve, wait, take a permit, accept, admit.
//!
//! The permit is taken after the wait and before `accept`. Before the wait, each thread that merely waits
//! would hold one. After `accept`, the server would have a connection in hand that it may not serve. In
//! between, the limit is exact: a connection beyond it stays in the kernel's queue, connected, and costs the
//! server nothing.

mod of_lot;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc::EMFILE;

use super::failure::{after_failure, NextStep};
use super::listening_set::{wait_without_a_set, ListeningSet, Ready};
use super::request::{Request, Work};
use super::{failed_to_wait, Acceptor};
use crate::admit::{Answer, Gate, Permit};
use crate::config::AtLimit;
use crate::error::Result;
use crate::finish::refuse;
use crate::lifecycle::{Awaited, Core};
use crate::listen::{Listener, LONGEST_REST, REST};
use crate::sync::{left, now};
use crate::sys;

/// The result of one turn of the accept loop.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcceptEvent {
    /// An admitted connection or datagram. Run it, or hand it to code that runs it.
    Request(Request),
    /// The watched descriptor is readable.
    Watched,
    /// The time is over, and nothing came.
    Timeout,
    /// The server stops, and the connections that were queued have been served. Accept no more.
    Stopped,
}

/// One thread's part in the accept loop, see [`Acceptor::seat`].
#[derive(Debug)]
pub struct Seat<'a> {
    acceptor: Acceptor,
    listeners: Arc<Vec<Listener>>,
    /// `None` while the system has no descriptor for it.
    set: Option<ListeningSet>,
    watched: Option<BorrowedFd<'a>>,
    /// True if the kernel has woken this thread for a connection that it has not accepted yet. No other
    /// thread was woken.
    called: bool,
}

impl<'a> Seat<'a> {
    pub(super) fn new(acceptor: Acceptor, listeners: Arc<Vec<Listener>>, watched: Option<BorrowedFd<'a>>) -> Self {
        Self { acceptor, listeners, set: None, watched, called: false }
    }

    /// Takes an epoll set for the waits, if the system has a descriptor for one, and nobody waits for that.
    pub(super) fn take_set(&mut self) {
        if self.acceptor.lot().is_some() || self.core().admission.permits.someone_lacks_a_descriptor() {
            return;
        }
        let new = || ListeningSet::new(self.acceptor.core(), &self.listeners).ok();
        self.set = match self.watched {
            // A set of an earlier wait saves the system calls that make one.
            None => self.acceptor.shared.sets.pop().or_else(new),
            // A set of its own: it watches `fd` too, so no other seat can use it later.
            Some(fd) => new().filter(|set| set.watch(fd).is_ok()),
        };
    }

    /// Closes this thread's epoll set for another thread, if that rests because there is no descriptor left.
    fn lend_set(&mut self) {
        if self.core().admission.permits.someone_lacks_a_descriptor() && self.set.take().is_some() {
            self.core().control.wake_gate();
        }
    }

    /// True if an epoll set was closed, so that an accept has one descriptor more. It was a set that no thread waits
    /// with, or this thread's own. So waits never take a descriptor that a connection needs.
    fn gives_up_a_set(&mut self) -> bool {
        self.acceptor.shared.sets.pop().or_else(|| self.set.take()).is_some()
    }

    /// Waits for the next event, for at most `timeout` if there is one. At the connection limit it waits for
    /// a permit, or refuses, as the server is set. While accepting is paused it waits for the resume.
    ///
    /// The kernel wakes one of the waiting threads for a connection (`EPOLLEXCLUSIVE`). A seat that ends its
    /// turn while it waits for a permit may be the only one that was woken. So call `next` again soon, or the
    /// connection may wait.
    ///
    /// # Errors
    /// [`Error::Accept`](crate::Error::Accept) if the last listener fails for good,
    /// [`Error::System`](crate::Error::System) if the thread cannot wait. Passing failures (`ECONNABORTED`,
    /// `EMFILE` and the like) are no error: `next` rests and tries again.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<AcceptEvent> {
        let deadline = timeout.and_then(|t| now().checked_add(t));
        if let Some(lot) = self.acceptor.lot().cloned() {
            return self.next_of(&lot, deadline);
        }
        loop {
            // A stop may have come while no thread waited: look before each wait.
            if self.core().control.stopping() {
                return self.next_at_stop(deadline);
            }

            // A worker process reserves its permit before it waits. The kernel wakes only one waiter for a
            // connection; without a permit it could not accept, although another worker is free. Price: an
            // idle waiter counts against the limit. With `AtLimit::Refuse` a thread must stay free to refuse.
            let mut reserved = None;
            if self.core().is_worker() && !self.refuses_at_limit() {
                match self.gate().permit(None, deadline).map_err(failed_to_wait)? {
                    Answer::Permit(permit) => reserved = Some(permit),
                    Answer::Watched => return Ok(AcceptEvent::Watched),
                    Answer::Timeout => return Ok(AcceptEvent::Timeout),
                    Answer::Full | Answer::Stopped => return self.next_at_stop(deadline),
                }
            }

            // No connection yet, so nothing is held but the reserve. The wait ends for a stop and a recall
            // too.
            let patience = left(deadline);
            let ready = self.wait(patience)?;
            if self.core().control.stopping() {
                if let Some(request) = self.accept_beside_the_stop(ready, reserved)? {
                    return Ok(AcceptEvent::Request(request));
                }
                return self.next_at_stop(deadline);
            }
            let listener = match ready {
                // A look without a wait has found nothing. Before, a signal may have ended the wait late.
                Ready::Nothing if patience == Some(Duration::ZERO) => return Ok(AcceptEvent::Timeout),
                Ready::Nothing | Ready::Stop => continue,
                Ready::Watched => return Ok(AcceptEvent::Watched),
                Ready::Recall => {
                    self.give_back(reserved);
                    continue;
                }
                Ready::Listener(listener) => listener,
            };

            // Another thread rests because the system lacks something. An accept now would fail as well.
            if self.core().admission.permits.someone_rests() {
                self.lend_set();
                drop(self.core().admission.gate.try_lock_for(LONGEST_REST));
                continue;
            }

            // Alone in its process, a thread takes its permit now. No other thread knows of the connection.
            self.called = true;
            match self.gate().permit(reserved, deadline).map_err(failed_to_wait)? {
                Answer::Permit(permit) => {
                    let accepted = self.accept(listener, permit)?;
                    self.called = false;
                    if let Some(request) = accepted {
                        return Ok(AcceptEvent::Request(request));
                    }
                    if let Some(event) = self.event_beside_a_lack(deadline)? {
                        return Ok(event);
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

    /// True if a connection may wait for this seat alone, because the kernel has woken no other thread.
    pub(crate) fn is_called(&self) -> bool {
        self.called
    }

    fn gate(&self) -> Gate<'_> {
        Gate::new(self.core(), self.watched)
    }

    fn refuses_at_limit(&self) -> bool {
        matches!(self.core().settings.at_limit, AtLimit::Refuse(_))
    }

    fn wait(&mut self, patience: Option<Duration>) -> Result<Ready> {
        if self.set.is_none() {
            self.take_set();
        }
        let ready = match &self.set {
            Some(set) => set.wait(patience),
            None => wait_without_a_set(self.core(), &self.listeners, self.watched, patience),
        };
        ready.map_err(failed_to_wait)
    }

    /// Gives the reserved permit back, because the master has lowered the limit. Once enough permits are
    /// back, the recall ends.
    fn give_back(&self, reserved: Option<Permit>) {
        reserved.into_iter().for_each(Permit::give_back_unused);
        let core = self.core();
        // Cleared before the look: if the limit is lowered in between, it is recalled again.
        core.control.recall_permits(false);
        core.control.recall_permits(core.admission.permits.exceeded());
    }

    /// Accepts a connection that came together with the stop, where other processes go on to accept. The kernel
    /// has woken none of them for it.
    fn accept_beside_the_stop(&mut self, ready: Ready, reserved: Option<Permit>) -> Result<Option<Request>> {
        let core = self.core();
        let listener = match ready {
            Ready::Listener(listener) if core.spares_newcomers() && !core.control.paused() => listener,
            _ => return Ok(None),
        };
        match reserved.or_else(|| Permit::reserve(core)) {
            Some(permit) => self.accept(listener, permit),
            None if self.refuses_at_limit() => self.refuse_one(listener).map(|()| None),
            // It waits for a permit with those that were queued at the stop.
            None => {
                let queued = &self.acceptor.shared.queued;
                queued.count(&self.listeners, core.settings.backlog);
                queued.put_back(listener);
                Ok(None)
            }
        }
    }

    /// Serves the connections that were queued at the stop, within the drain limit. They are connected
    /// already, and a close would reset them. Connections that come later are not served, or a busy server
    /// would never stop.
    fn next_at_stop(&mut self, deadline: Option<Instant>) -> Result<AcceptEvent> {
        let (core, acceptor) = (self.core().clone(), self.acceptor.clone());
        let queued = &acceptor.shared.queued;
        // It waits no more, so the queue may have its descriptor.
        self.set = None;
        // Idle connections may hold the permits that the queue waits for.
        core.wake_idle();
        // The first thread counts, for all of them.
        queued.count(&self.listeners, core.settings.backlog);
        // A paused server accepts nothing, at a stop neither.
        while !core.control.paused() && !queued.is_empty() {
            match self.gate().permit_at_stop(deadline).map_err(failed_to_wait)? {
                Answer::Permit(permit) => {
                    if let Some(request) = self.accept_queued(permit)? {
                        return Ok(AcceptEvent::Request(request));
                    }
                    if let Some(event) = self.event_beside_a_lack(deadline)? {
                        return Ok(event);
                    }
                }
                Answer::Watched => return Ok(AcceptEvent::Watched),
                Answer::Timeout => return Ok(AcceptEvent::Timeout),
                Answer::Full | Answer::Stopped => break,
            }
        }
        Ok(AcceptEvent::Stopped)
    }

    /// Looks for another event after an accept that has failed. In a lack, each wait ends for the same connection.
    fn event_beside_a_lack(&self, deadline: Option<Instant>) -> Result<Option<AcceptEvent>> {
        if self.watched.is_some() {
            let ready = sys::poll([self.watched], None, Some(Duration::ZERO)).map_err(failed_to_wait)?;
            if !ready.none() {
                return Ok(Some(AcceptEvent::Watched));
            }
        }
        Ok((left(deadline) == Some(Duration::ZERO)).then_some(AcceptEvent::Timeout))
    }

    /// Takes a connection or a datagram from the queue of this listener.
    fn take(&mut self, listener: usize) -> io::Result<Work> {
        loop {
            match self.acceptor.shared.take(&self.listeners[listener]) {
                Err(e) if e.raw_os_error() == Some(EMFILE) && self.gives_up_a_set() => {
                    let local = self.listeners[listener].local_addr();
                    self.core().monitor.report_accept_error(local, &e, false);
                }
                taken => return taken,
            }
        }
    }

    fn accept(&mut self, listener: usize, mut permit: Permit) -> Result<Option<Request>> {
        match self.take(listener) {
            Ok(work) => {
                // An accept has worked: the next failure begins with the shortest rest again.
                self.core().backoff.is_over();
                permit.engage();
                Ok(Request::admit(work, permit))
            }
            Err(e) => {
                permit.give_back_unused();
                self.after_failure(listener, e).map(|()| None)
            }
        }
    }

    /// Accepts one connection that was queued at the stop. `None` if none is left, or it was refused for its source.
    fn accept_queued(&mut self, mut permit: Permit) -> Result<Option<Request>> {
        for index in 0..self.listeners.len() {
            if !self.acceptor.shared.queued.take(index) {
                continue;
            }
            match self.take(index) {
                Ok(work) => {
                    permit.engage();
                    return Ok(Request::admit(work, permit));
                }
                Err(e) => {
                    self.acceptor.shared.queued.note_failure(index, &e);
                    if e.kind() == io::ErrorKind::WouldBlock {
                        continue;
                    }
                    permit.give_back_unused();
                    return self.after_failure(index, e).map(|()| None);
                }
            }
        }
        Ok(None)
    }

    fn refuse_one(&mut self, listener: usize) -> Result<()> {
        match self.take(listener) {
            Ok(work) => {
                refuse_at_limit(self.core(), work);
                Ok(())
            }
            Err(e) => self.after_failure(listener, e),
        }
    }

    fn after_failure(&self, listener: usize, e: io::Error) -> Result<()> {
        let Some(listener) = self.listeners.get(listener) else { return Ok(()) };
        let lacks_a_descriptor = e.raw_os_error() == Some(EMFILE);
        match after_failure(self.core(), listener, e) {
            NextStep::GoOn => Ok(()),
            NextStep::Rest(time) if lacks_a_descriptor => self.rest(time, Awaited::Descriptor),
            NextStep::Rest(time) => self.rest(time, Awaited::End),
            // The server goes on while one listener is left.
            NextStep::Lost(error) if self.listeners.iter().all(Listener::is_lost) => Err(error),
            NextStep::Lost(_) => {
                self.set.iter().for_each(|set| set.remove(listener));
                Ok(())
            }
        }
    }

    /// Rests because the system has given no thread or no process.
    pub(crate) fn back_off(&self) -> Result<()> {
        self.rest(REST, Awaited::End)
    }

    /// Rests until one of our connections ends, the server stops, or the time is over.
    fn rest(&self, time: Duration, awaited: Awaited) -> Result<()> {
        self.gate().rest(time, awaited).map_err(failed_to_wait)
    }

    fn core(&self) -> &Arc<Core> {
        self.acceptor.core()
    }
}

fn refuse_at_limit(core: &Arc<Core>, work: Work) {
    refuse(core, work, &io::Error::other("the connection limit is reached"));
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.core().admission.permits.someone_lacks_a_descriptor() {
            return self.lend_set();
        }
        // A set that watches a strategy's descriptor is of no use to other seats: it is closed.
        if let (Some(set), None) = (self.set.take(), self.watched) {
            self.acceptor.shared.sets.push(set);
        }
    }
}
