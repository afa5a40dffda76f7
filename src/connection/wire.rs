//! [`Wire`]: the socket of a connection, its limits and its waits.

mod bytes;
mod event;
mod parked;
mod read;
#[cfg(test)]
mod tests;
mod told;
mod write;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) use event::Buffered;
pub(crate) use parked::{Heard, Look, Patience};
pub(super) use read::Place;
pub(crate) use told::{ParentDeadline, Told};

use super::writer::Messages;
use crate::config::{Limit, LimitExceeded, Limits};
use crate::lifecycle::{ConnectionSlot, Control, ServerHandle, SlotState};
use crate::net::{Accepted, Addr, Birth, Moved, PeerCredentials, Socket};
use crate::proxy::ProxyHeader;
use crate::sync::left;
use crate::sys::shared::SharedRef;
use crate::sys::{self, socket, Ready};
use crate::tls::Session;

/// Below this time, the rest of a limit is armed whole, not by halves.
const FINE: Duration = Duration::from_millis(10);

/// How a wait of this connection learns that the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopNotice {
    /// Another thread shuts the reading side of idle connections, and cuts all at the drain limit. Waits are
    /// plain blocking calls.
    ByRegistry,
    /// No other thread could: each wait polls the stop itself, at the price of one system call.
    ByPolling,
}

/// How a connection is closed. An event loop may ask for more than the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Usual,
    /// Input was read and thrown away, and more may be on its way.
    LeavesUnread,
    /// By a reset.
    Reset,
}

/// What has happened on a connection so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// True while a wait between two requests: no request is under way.
    between: bool,
    /// True if the handler marks its requests itself, by `next_request`.
    marks_requests: bool,
    /// True if nothing has been read since the last flush, or since the start.
    fresh: bool,
    /// True if anything has been read at all.
    pub(super) heard: bool,
    /// True if the last read filled its buffer: the kernel's queue is probably not empty.
    read_full: bool,
    /// True if the peer has ended the stream.
    pub(super) ended: bool,
    /// True if the stop has ended a wait for a request: later input is not read any more.
    pub(super) stopped: bool,
    /// True if sending has failed.
    pub(super) broken: bool,
    /// True if reading has failed.
    pub(super) failed: bool,
    pub(super) ending: Ending,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            between: false,
            marks_requests: false,
            fresh: true,
            heard: false,
            read_full: false,
            ended: false,
            stopped: false,
            broken: false,
            failed: false,
            ending: Ending::Usual,
        }
    }
}

/// A timeout that was armed for a shorter limit may end a wait early. That may happen about this many times
/// in one wait.
const FEW: u32 = 8;

/// A deadline, and the limit that it comes from.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    at: Instant,
    why: LimitExceeded,
}

impl Deadline {
    /// Makes a deadline. `None`, which means never, if the time is too far to be counted.
    fn new(since: Instant, limit: Limit, after: Duration) -> Option<Self> {
        Some(Self { at: since.checked_add(after)?, why: LimitExceeded { limit, after } })
    }

    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// A connection without its buffers. Both halves share it, on one thread.
#[derive(Debug)]
pub(crate) struct Wire {
    /// `None` while an event loop has it: nobody can ask then, since the loop's caller holds the connection.
    pub(super) socket: Option<Socket>,
    peer: Addr,
    pub(super) proxy: Option<Arc<ProxyHeader>>,
    server: ServerHandle,
    notice: StopNotice,
    slot: RefCell<Option<Arc<ConnectionSlot>>>,
    /// The connection's own limits. Few have any; the others have the server's.
    own_limits: OnceCell<Box<Cell<Limits>>>,
    /// The start of the request. Without a request limit it is not kept: that saves reading the clock.
    request_since: Cell<Option<Instant>>,
    progress: Cell<Progress>,
    /// The kernel's receive and send timeouts (`SO_RCVTIMEO`, `SO_SNDTIMEO`) as they are set now.
    armed_read: Cell<Option<Duration>>,
    armed_write: Cell<Option<Duration>>,
    /// Made at the first call of `writer`: only then do waits pay for it.
    mailbox: OnceCell<Arc<Messages>>,
    /// Made at the first call of `waker`, `wait` or `detach`.
    waits: OnceCell<Box<event::Waits>>,
    pub(super) parent_deadline: OnceCell<ParentDeadline>,
    /// The session of TLS above the socket.
    pub(super) tls: OnceCell<Session>,
    pub(super) birth: Birth,
    pub(super) moved: Cell<Moved>,
}

impl Wire {
    pub(super) fn new(accepted: Accepted, server: ServerHandle, notice: StopNotice) -> Self {
        let limits = server.core.settings.limits;
        let slot =
            (notice == StopNotice::ByRegistry).then(|| server.core.registry.enter(accepted.socket.as_fd().as_raw_fd()));
        // The cut may have come before the entry above, and then has missed this connection.
        if server.core.control.is_cut() {
            let _ = socket::shut_both(accepted.socket.as_fd().as_raw_fd());
        }
        Self {
            socket: Some(accepted.socket),
            peer: accepted.peer,
            proxy: accepted.proxy,
            notice,
            slot: RefCell::new(slot),
            own_limits: OnceCell::new(),
            request_since: Cell::new(limits.request.map(|_| Instant::now())),
            progress: Cell::default(),
            armed_read: Cell::new(None),
            armed_write: Cell::new(None),
            mailbox: OnceCell::new(),
            waits: OnceCell::new(),
            parent_deadline: OnceCell::new(),
            tls: accepted.tls.map_or_else(OnceCell::new, OnceCell::from),
            birth: accepted.birth,
            moved: Cell::default(),
            server,
        }
    }

    pub(crate) fn peer(&self) -> &Addr {
        &self.peer
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.socket.as_ref().map_or(Ok(None), Socket::peer_credentials)
    }

    pub(crate) fn local_addr(&self) -> io::Result<Addr> {
        self.socket.as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), Socket::local_addr)
    }

    pub(crate) fn server(&self) -> &ServerHandle {
        &self.server
    }

    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self.socket, Some(Socket::Tcp(_)))
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress.get();
        change(&mut progress);
        self.progress.set(progress);
    }

    fn control(&self) -> &Control {
        &self.server.core.control
    }

    fn fd(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }

    /// True if there is input that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        self.tls.get().is_some_and(Session::has_plaintext) || socket::unread(self.as_fd()).is_ok_and(|n| n > 0)
    }

    /// True if the peer has ended the stream.
    pub(crate) fn has_ended(&self) -> bool {
        self.progress.get().ended
    }

    /// True if the peer has ended the stream or has vanished, or a writer has ended the connection. An error of the
    /// handler after that is not its fault.
    pub(crate) fn has_lost_peer(&self) -> bool {
        let progress = self.progress.get();
        progress.ended || progress.broken || progress.failed || self.is_ended_by_writer()
    }

    /// True if another thread has ended the connection, by `ConnectionWriter::close`.
    fn is_ended_by_writer(&self) -> bool {
        self.mailbox.get().is_some_and(|messages| messages.is_ended())
    }

    /// True if the stop has ended a wait for a request.
    pub(crate) fn is_stopped(&self) -> bool {
        self.progress.get().stopped
    }

    pub(crate) fn ending(&self) -> Ending {
        self.progress.get().ending
    }

    /// True if sending has failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.progress.get().broken
    }

    #[cfg(test)]
    pub(super) fn is_registered(&self) -> bool {
        self.slot.borrow().is_some()
    }

    /// Takes the entry in the registry, for a connection that leaves its handler.
    pub(super) fn take_slot(&self) -> Option<Arc<ConnectionSlot>> {
        self.slot.take()
    }

    /// Takes what observers are told of the beginning. The number stays.
    pub(super) fn take_birth(&mut self) -> Birth {
        Birth { id: self.birth.id, record: self.birth.record.take() }
    }

    /// Leaves the registry. Call it before the socket is closed.
    pub(super) fn leave(&self) {
        if let Some(slot) = self.slot.take() {
            self.server.core.registry.leave(slot);
        }
    }

    // Requests and limits.

    pub(super) fn limits(&self) -> Limits {
        self.own_limits.get().map_or(self.server.core.settings.limits, |own| own.get())
    }

    pub(super) fn set_limit(&self, limit: Limit, value: Option<Duration>) {
        let mut limits = self.limits();
        limits.set(limit, value);
        self.own_limits.get_or_init(Box::default).set(limits);
        if limits.request.is_some() && self.request_since.get().is_none() {
            self.request_since.set(Some(Instant::now()));
        }
        self.share_deadline();
    }

    /// From now on, writes for the parent of this child when the request must have ended. The parent can then
    /// end a child that spins, and leave one alone that waits for its next request.
    pub(crate) fn share_deadlines(&self, told: SharedRef<Told>) {
        // Not the value that the parent has put there, so that the first deadline is written.
        let last = Cell::new(u64::from(self.limits().request.is_some()));
        let _ = self.parent_deadline.set(ParentDeadline { place: told, last });
        self.share_deadline();
    }

    /// Tells the parent that the request is over. The close has limits of its own.
    pub(crate) fn share_no_deadline(&self) {
        self.note(|p| p.between = true);
        self.share_deadline();
    }

    fn share_deadline(&self) {
        let Some(parent) = self.parent_deadline.get() else { return };
        parent.set(self.request_deadline().map_or(0, |d| self.control().millis(d.at).max(1)));
    }

    pub(super) fn between_requests(&self) {
        self.note(|p| p.between = true);
        self.share_deadline();
    }

    /// Notes that from now on only `next_request` ends a request, and no line or frame.
    pub(super) fn mark_requests(&self) {
        self.note(|p| p.marks_requests = true);
    }

    /// Notes that a line or a frame begins in the buffer.
    pub(super) fn piece_begins(&self) {
        if !self.progress.get().marks_requests {
            self.request_begins();
        }
    }

    pub(super) fn request_begins(&self) {
        self.note(|p| (p.between, p.fresh) = (false, false));
        self.request_since.set(self.limits().request.map(|_| Instant::now()));
        self.share_deadline();
    }

    /// Returns the earlier of two deadlines: `own`, counted from now, and the request limit, counted from the
    /// start of the request.
    fn deadline(&self, limit: Limit, own: Option<Duration>) -> Option<Deadline> {
        let own = own.and_then(|after| Deadline::new(Instant::now(), limit, after));
        own.into_iter().chain(self.request_deadline()).min_by_key(|d| d.at)
    }

    fn request_deadline(&self) -> Option<Deadline> {
        match (self.limits().request, self.request_since.get()) {
            (Some(after), Some(since)) if !self.progress.get().between => Deadline::new(since, Limit::Request, after),
            _ => None,
        }
    }

    fn read_deadline(&self, idle: bool) -> Option<Deadline> {
        let limits = self.limits();
        let (limit, after) = if idle { limits.of_idle_wait() } else { (Limit::Read, limits.read) };
        self.deadline(limit, after)
    }

    // Waiting.

    /// Waits for the socket, the stop and the mailbox, until the first deadline. After a stop, an `idle` wait
    /// returns at once.
    ///
    /// A deadline that has passed is no error here. The process may have been stopped (SIGSTOP, a frozen
    /// container), and what the wait was for may have come meanwhile. So each caller tries, then
    /// [checks](Self::check), then waits.
    fn wait(
        &self,
        idle: bool,
        read: Option<BorrowedFd<'_>>,
        write: Option<BorrowedFd<'_>>,
        by: Option<Deadline>,
    ) -> io::Result<()> {
        self.wait_for(idle, [read, None], write, by.map(|d| d.at)).map(drop)
    }

    /// As [`wait`](Self::wait), for another descriptor too. Returns which of the two is ready, by its place.
    fn wait_for(
        &self,
        idle: bool,
        [read, other]: [Option<BorrowedFd<'_>>; 2],
        write: Option<BorrowedFd<'_>>,
        by: Option<Instant>,
    ) -> io::Result<Ready> {
        let control = self.control();
        let drain = self.server.core.drain_deadline();
        let stop = match drain {
            None => Some(control.stop_fd()).filter(|_| !control.has_lost_parent()),
            // After the stop `stop` stays readable. An idle wait ends; any other watches for the urgent stop.
            Some(_) if idle && !self.is_spared() => return Ok(Ready::default()),
            Some(_) if idle => self.server.core.end_of_grace(),
            Some(at) => control.urgent().filter(|_| at > Instant::now()),
        };
        let messages = self.mailbox.get().map(|m| m.as_fd()).filter(|_| write.is_none());
        let until = by.into_iter().chain(drain).min();
        let left = left(until).into_iter().chain(self.beat()).min();
        let ready = sys::poll([read, other, stop, messages], write, left)?;
        if ready.has(2) && drain.is_none() {
            control.note_lost_parent();
        }
        if ready.has(3) {
            // The caller takes the messages next.
            self.mailbox.get().into_iter().for_each(|m| m.clear());
        }
        Ok(ready)
    }

    /// Fails if the deadline has passed, or the drain limit. Call it after a try without a wait.
    fn check(&self, by: Option<Deadline>) -> io::Result<()> {
        check(by)?;
        if self.server.core.drain_deadline().is_some_and(|at| at <= Instant::now()) {
            // This thread is the one that drains. Not so in a child, whose parent cuts the others by itself.
            if !self.control().in_child() {
                self.control().cut();
            }
            return Err(self.drain_exceeded());
        }
        Ok(())
    }

    /// Returns the registry state of a wait for a request.
    fn waiting(&self) -> SlotState {
        if self.progress.get().heard {
            SlotState::Idle
        } else {
            SlotState::New
        }
    }

    /// True if the stop does not end this wait for a request: it is the connection's first, and another process
    /// goes on with the sockets.
    fn is_spared(&self) -> bool {
        self.waiting() == SlotState::New && self.server.core.spares_newcomers()
    }

    /// Notes a heartbeat if the serving thread of a worker process waits here. Returns how long it may wait
    /// until the next heartbeat.
    pub(crate) fn beat(&self) -> Option<Duration> {
        // A child of a worker is not the worker: its heart says nothing of the worker's.
        let is_here = self.notice == StopNotice::ByPolling && !self.control().in_child();
        let worker = self.server.core.worker().filter(|_| is_here)?;
        worker.beat();
        worker.beats_every()
    }

    pub(crate) fn drain_exceeded(&self) -> io::Error {
        LimitExceeded { limit: Limit::Drain, after: self.server.core.settings.drain_timeout }.into()
    }

    /// Sets the kernel's timeout, if the present one does not fit. A blocking call with a timeout is one
    /// system call; a `poll` before each read would make it two.
    fn arm(
        &self,
        armed: &Cell<Option<Duration>>,
        deadline: Option<Deadline>,
        set: fn(BorrowedFd<'_>, Option<Duration>) -> io::Result<()>,
    ) -> io::Result<()> {
        // Zero would mean for ever, so the shortest timeout is a microsecond.
        let wanted = match (deadline.map(|d| d.left().max(Duration::from_micros(1))), armed.get()) {
            (None, None) => return Ok(()),
            // It ends in time, and a little early at worst: the caller finds time left and waits again.
            (Some(left), Some(now)) if now <= left && now >= left / FEW => return Ok(()),
            // It was armed for a much shorter limit, and would end the wait early again and again.
            (Some(left), Some(now)) if now < left => Some(left),
            // It is too long. The time left shrinks with every read, so half of it is armed. Then the number
            // of calls grows with the logarithm of the limit, not with the bytes of a slow peer.
            (Some(left), Some(_)) if left > FINE => Some(left / 2),
            (left, _) => left,
        };
        armed.set(wanted);
        set(self.as_fd(), wanted)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Some(socket) => socket.as_fd(),
            // Some descriptor that outlives the call; on this one every act of a socket fails.
            None => self.control().stop_fd(),
        }
    }
}

/// True if the call would have to wait. An armed timeout and an interrupting signal also show like this.
fn would_wait(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn check(deadline: Option<Deadline>) -> io::Result<()> {
    match deadline {
        Some(d) if d.at <= Instant::now() => Err(d.why.into()),
        _ => Ok(()),
    }
}
