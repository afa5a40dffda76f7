//! The socket of a connection, with its waits: who may end them, and when.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limits::{Limit, LimitExceeded, Limits};
use super::output::Output;
use super::socket::Socket;
use super::writer::{ConnectionWriter, Mailbox};
use crate::lifecycle::{Control, ServerHandle, Slot, SlotState};
use crate::listen::{Accepted, Addr};
use crate::strategy::forking::SlotRef;
use crate::sys::{self, socket};

/// Below this, what is left of a limit is armed whole, not by halves.
const FINE: Duration = Duration::from_millis(10);

/// How a wait of this connection learns that the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wakes {
    /// Another thread shuts the reading side of those who idle, and cuts all at the limit: plain blocking calls.
    Registered,
    /// Nobody else could: each wait watches the stop switch itself.
    Watches,
}

/// A wait may be broken off and begun again about this many times by a timeout that was armed for a shorter one.
const FEW: u32 = 8;

/// A deadline that knows which limit it comes from.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    why: LimitExceeded,
}

impl Deadline {
    /// `None`, as good as never, where the time cannot be told.
    fn new(since: Instant, limit: Limit, after: Duration) -> Option<Self> {
        Some(Self { at: since.checked_add(after)?, why: LimitExceeded { limit, after } })
    }

    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// All of a connection but its buffers. Both halves share it, on one thread.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    peer: Addr,
    server: ServerHandle,
    wakes: Wakes,
    slot: RefCell<Option<Arc<Slot>>>,
    limits: Cell<Limits>,
    /// When the request began; only kept where a limit asks for it.
    request_since: Cell<Option<Instant>>,
    /// Whether `next_request` waits, and so no request is under way.
    between: Cell<bool>,
    /// Nothing has been read since the last flush, or the start.
    fresh: Cell<bool>,
    /// Whether the last read left the kernel's queue probably not empty.
    read_full: Cell<bool>,
    /// Whether the peer has ended the stream.
    ended: Cell<bool>,
    /// Whether the stop has ended a wait for a request, so that nobody reads what the peer may still send.
    stopped: Cell<bool>,
    /// Whether sending has failed.
    broken: Cell<bool>,
    /// Whether reading has failed.
    failed: Cell<bool>,
    armed_read: Cell<Option<Duration>>,
    armed_write: Cell<Option<Duration>>,
    mailbox: OnceCell<Arc<Mailbox>>,
    /// In a forked child: where its parent reads when the request must have ended.
    told: OnceCell<SlotRef>,
    told_deadline: Cell<u64>,
}

impl Wire {
    pub(super) fn new(accepted: Accepted, server: ServerHandle, wakes: Wakes) -> Self {
        let limits = server.core.config.limits;
        let slot =
            (wakes == Wakes::Registered).then(|| server.core.registry.enter(accepted.socket.as_fd().as_raw_fd()));
        if server.core.control.is_cut() {
            let _ = socket::shut_both(accepted.socket.as_fd().as_raw_fd()); // it came too late to be cut with the rest
        }
        Self {
            socket: accepted.socket,
            peer: accepted.peer,
            wakes,
            slot: RefCell::new(slot),
            limits: Cell::new(limits),
            request_since: Cell::new(limits.request.map(|_| Instant::now())),
            between: Cell::new(false),
            fresh: Cell::new(true),
            read_full: Cell::new(false),
            ended: Cell::new(false),
            stopped: Cell::new(false),
            broken: Cell::new(false),
            failed: Cell::new(false),
            armed_read: Cell::new(None),
            armed_write: Cell::new(None),
            mailbox: OnceCell::new(),
            told: OnceCell::new(),
            told_deadline: Cell::new(0),
            server,
        }
    }

    pub(crate) fn peer(&self) -> &Addr {
        &self.peer
    }

    pub(super) fn local_addr(&self) -> io::Result<Addr> {
        self.socket.local_addr()
    }

    pub(crate) fn server(&self) -> &ServerHandle {
        &self.server
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }

    fn control(&self) -> &Control {
        &self.server.core.control
    }

    fn fd(&self) -> i32 {
        self.socket.as_fd().as_raw_fd()
    }

    /// Whether the peer has ended the stream.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Whether the peer has ended the stream, or vanished.
    pub(crate) fn has_lost_peer(&self) -> bool {
        self.ended.get() || self.broken.get() || self.failed.get()
    }

    /// Whether the stop has ended a wait for a request.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Whether sending has failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Gives up the place in the registry; before the socket is closed.
    pub(super) fn leave(&self) {
        if let Some(slot) = self.slot.take() {
            self.server.core.registry.leave(slot);
        }
    }

    // Requests and limits.

    pub(super) fn set_limit(&self, limit: Limit, value: Option<Duration>) {
        let mut limits = self.limits.get();
        limits.set(limit, value);
        self.limits.set(limits);
        if limits.request.is_some() && self.request_since.get().is_none() {
            self.request_since.set(Some(Instant::now()));
        }
        self.tell_deadline();
    }

    /// Tells the parent of this child, from now on, when the request must have ended.
    pub(crate) fn tell_deadlines(&self, slot: SlotRef) {
        self.told_deadline.set(u64::from(self.limits.get().request.is_some())); // what the parent has put there differs
        let _ = self.told.set(slot);
        self.tell_deadline();
    }

    /// The request is over; what is left has limits of its own.
    pub(crate) fn tell_no_deadline(&self) {
        self.between.set(true);
        self.tell_deadline();
    }

    fn tell_deadline(&self) {
        let Some(slot) = self.told.get() else { return };
        let deadline = self.request_deadline().map_or(0, |d| self.control().millis(d.at).max(1));
        if deadline != self.told_deadline.replace(deadline) {
            slot.set_deadline(deadline);
        }
    }

    pub(super) fn between_requests(&self) {
        self.between.set(true);
        self.tell_deadline();
    }

    pub(super) fn request_begins(&self) {
        self.between.set(false);
        self.fresh.set(false);
        self.request_since.set(self.limits.get().request.map(|_| Instant::now()));
        self.tell_deadline();
    }

    /// The first limit to end a wait for this: `own`, counted from now, or the request's, counted from its start.
    fn deadline(&self, limit: Limit, own: Option<Duration>) -> Option<Deadline> {
        let own = own.and_then(|after| Deadline::new(Instant::now(), limit, after));
        own.into_iter().chain(self.request_deadline()).min_by_key(|d| d.at)
    }

    fn request_deadline(&self) -> Option<Deadline> {
        match (self.limits.get().request, self.request_since.get()) {
            (Some(after), Some(since)) if !self.between.get() => Deadline::new(since, Limit::Request, after),
            _ => None,
        }
    }

    fn read_deadline(&self, idle: bool) -> Option<Deadline> {
        let limits = self.limits.get();
        if idle {
            self.deadline(Limit::Idle, limits.idle)
        } else {
            self.deadline(Limit::Read, limits.read)
        }
    }

    // Reading.

    /// One read. Flushes before it waits. `empty`: whether the caller has nothing buffered.
    pub(super) fn recv(&self, output: &RefCell<Output>, buf: &mut [u8], empty: bool) -> io::Result<usize> {
        if self.ended.get() {
            return Ok(0);
        }
        let n = match self.recv_ahead(output, buf)? {
            Some(n) => n,
            None => {
                let idle = self.between.get() || (self.fresh.get() && empty);
                if self.wakes == Wakes::Watches || self.mailbox.get().is_some() {
                    self.recv_watching(output, buf, idle)?
                } else {
                    self.recv_blocking(buf, idle)?
                }
            }
        };
        if n == 0 && self.control().is_cut() {
            return Err(self.drain_exceeded());
        }
        self.fresh.set(self.fresh.get() && n == 0);
        self.read_full.set(n == buf.len());
        Ok(n)
    }

    /// Before a wait, what is buffered is flushed; where the last read left something behind, a look without a wait
    /// comes first, so that many requests are answered in one write.
    fn recv_ahead(&self, output: &RefCell<Output>, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut output = output.borrow_mut();
        if !output.is_empty() {
            if self.read_full.get() {
                if let Some(n) = self.recv_now(buf)? {
                    return Ok(Some(n));
                }
            }
            self.flush(&mut output)?;
        }
        Ok(None)
    }

    /// What has arrived, without a wait; `None` if that is nothing.
    fn recv_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match socket::recv(self.fd(), buf, false) {
            Ok(n) => {
                self.ended.set(n == 0);
                Ok(Some(n))
            }
            Err(e) if would_wait(&e) => Ok(None),
            Err(e) => Err(self.read_failed(e)),
        }
    }

    /// Instead of a wait for a request, when the server stops: a request that has arrived is still served.
    fn recv_last(&self, buf: &mut [u8]) -> io::Result<usize> {
        let arrived = self.recv_now(buf)?;
        self.stopped.set(self.stopped.get() || arrived.is_none());
        Ok(arrived.unwrap_or(0))
    }

    /// The plain path: a blocking call, which the kernel's receive timeout or another thread's `shutdown` ends.
    fn recv_blocking(&self, buf: &mut [u8], idle: bool) -> io::Result<usize> {
        let deadline = self.read_deadline(idle);
        loop {
            if self.is_stopping_idle(idle) {
                return self.recv_last(buf);
            }
            self.arm(&self.armed_read, deadline, socket::set_read_timeout)?;
            self.turn(idle, SlotState::Busy, SlotState::Idle);
            if self.is_stopping_idle(idle) {
                self.turn(idle, SlotState::Idle, SlotState::Busy);
                continue;
            }
            let read = socket::recv(self.fd(), buf, true);
            if idle && !self.turn(idle, SlotState::Idle, SlotState::Busy) {
                self.stopped.set(true); // and our reading side is shut
            }
            match read {
                Ok(n) => {
                    self.ended.set(n == 0);
                    return Ok(n);
                }
                Err(e) if would_wait(&e) => check(deadline)?,
                Err(e) => return Err(self.read_failed(e)),
            }
        }
    }

    fn read_failed(&self, e: io::Error) -> io::Error {
        self.failed.set(true);
        e
    }

    fn turn(&self, idle: bool, from: SlotState, to: SlotState) -> bool {
        !idle || self.slot.borrow().as_ref().is_some_and(|slot| slot.turn(from, to))
    }

    fn is_stopping_idle(&self, idle: bool) -> bool {
        idle && self.control().stopping()
    }

    /// The watching path: polls the stop switch and the writers' bell besides.
    fn recv_watching(&self, output: &RefCell<Output>, buf: &mut [u8], idle: bool) -> io::Result<usize> {
        let deadline = self.read_deadline(idle);
        loop {
            self.flush_mailbox(&mut output.borrow_mut())?;
            if self.is_stopping_idle(idle) {
                return self.recv_last(buf);
            }
            if let Some(n) = self.recv_now(buf)? {
                return Ok(n);
            }
            self.wait(Some(self.as_fd()), None, deadline)?;
        }
    }

    /// Waits for the socket, the stop and the bell, until the first deadline.
    fn wait(
        &self,
        read: Option<BorrowedFd<'_>>,
        write: Option<BorrowedFd<'_>>,
        by: Option<Deadline>,
    ) -> io::Result<()> {
        let control = self.control();
        let drain = control.drain_deadline(self.server.core.config.drain_timeout);
        let stop = match drain {
            None => Some(control.stop.as_fd()),
            Some(at) => control.urgent().filter(|_| at > Instant::now()),
        };
        let bell = self.mailbox.get().map(|m| m.bell.as_fd()).filter(|_| write.is_none());
        let until = by.map(|d| d.at).into_iter().chain(drain).min();
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let ready = sys::poll([read, stop, bell], write, left)?;
        if ready.has(2) {
            self.mailbox.get().into_iter().for_each(|m| m.answer()); // the caller looks into the queue next
        }
        if ready.none() {
            check(by)?;
            if drain.is_some_and(|at| at <= Instant::now()) {
                control.cut();
                return Err(self.drain_exceeded());
            }
        }
        Ok(())
    }

    fn drain_exceeded(&self) -> io::Error {
        LimitExceeded { limit: Limit::Drain, after: self.server.core.config.drain_timeout }.into()
    }

    // Writing.

    /// Sends both parts whole; waits for the peer as long as the write limit allows without progress.
    pub(super) fn send_all(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write has failed"));
        }
        self.send_parts(first, second).map_err(|e| {
            self.broken.set(true);
            if self.control().is_cut() && Limit::of(&e).is_none() {
                return self.drain_exceeded();
            }
            e
        })
    }

    fn send_parts(&self, mut first: &[u8], mut second: &[u8]) -> io::Result<()> {
        let mut waits = false;
        let mut stalled: Option<Option<Deadline>> = None;
        while !(first.is_empty() && second.is_empty()) {
            match socket::send(self.fd(), first, second, waits) {
                Ok(n) => {
                    stalled = None;
                    waits = false;
                    if n < first.len() + second.len() {
                        check(self.request_deadline())?; // progress is no excuse
                    }
                    let of_first = n.min(first.len());
                    first = &first[of_first..];
                    second = &second[n - of_first..];
                }
                Err(e) if would_wait(&e) => {
                    let limit = self.limits.get().write;
                    let deadline = *stalled.get_or_insert_with(|| self.deadline(Limit::Write, limit));
                    check(deadline)?;
                    waits = self.may_wait_to_send(deadline)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The peer takes no more for now. Waits here, or arms the kernel's timeout and says that the next call may wait.
    fn may_wait_to_send(&self, deadline: Option<Deadline>) -> io::Result<bool> {
        match self.wakes {
            Wakes::Watches => self.wait(None, Some(self.as_fd()), deadline).map(|()| false),
            Wakes::Registered => self.arm(&self.armed_write, deadline, socket::set_write_timeout).map(|()| true),
        }
    }

    /// Sends the buffer, then what other threads have written.
    pub(super) fn flush(&self, output: &mut Output) -> io::Result<()> {
        output.send(self)?;
        self.fresh.set(true);
        self.flush_mailbox(output)
    }

    fn flush_mailbox(&self, output: &mut Output) -> io::Result<()> {
        let Some(mailbox) = self.mailbox.get() else { return Ok(()) };
        mailbox.hush();
        while let Some(message) = mailbox.take() {
            output.write(self, &message)?;
        }
        output.send(self)
    }

    pub(super) fn writer(&self) -> io::Result<ConnectionWriter> {
        if self.mailbox.get().is_none() {
            let mailbox = Mailbox::new(self.server.core.config.writer_capacity)?;
            let _ = self.mailbox.set(Arc::new(mailbox));
        }
        let mailbox = self.mailbox.get().ok_or_else(|| io::Error::other("no mailbox"))?;
        Ok(ConnectionWriter::new(mailbox.clone()))
    }

    pub(super) fn close_writers(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.close();
        }
    }

    /// Sets the kernel's timeout, lazily: before the first wait, and again when it is longer than the time left, then
    /// to half of that, so that a peer who trickles costs a few calls in all; or when it is so short that the wait
    /// would be broken off many times.
    fn arm(
        &self,
        armed: &Cell<Option<Duration>>,
        deadline: Option<Deadline>,
        set: fn(BorrowedFd<'_>, Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        let wanted = match (deadline.map(|d| d.left().max(Duration::from_micros(1))), armed.get()) {
            (None, None) => return Ok(()),
            (Some(left), Some(now)) if now <= left && now >= left / FEW => return Ok(()),
            (Some(left), Some(now)) if now < left => Some(left),
            (Some(left), Some(_)) if left > FINE => Some(left / 2),
            (left, _) => left,
        };
        armed.set(wanted);
        set(self.as_fd(), wanted)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Nothing to be had now: also what an armed timeout answers, and what a signal's handler leaves behind.
fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn check(deadline: Option<Deadline>) -> io::Result<()> {
    match deadline {
        Some(d) if d.at <= Instant::now() => Err(d.why.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
