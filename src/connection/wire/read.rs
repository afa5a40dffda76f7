//! Reading. Output goes out before a wait, and a stop ends a wait for a request.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;

use super::{check, would_wait, StopNotice, Wire};
use crate::connection::output::Output;
use crate::lifecycle::SlotState;
use crate::sys::socket;

/// Where in the input a read begins. It decides if a wait is idle, and where requests begin and end: see
/// [`Connection`](crate::Connection#requests).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum Place {
    /// Between two requests, as the handler has said by `next_request`.
    Request,
    /// Before a line or a frame, with nothing buffered.
    Piece,
    /// Somewhere in the bytes, with nothing buffered.
    Empty,
    /// Within a line or a frame, or behind buffered bytes.
    Within,
}

impl Wire {
    /// Reads once, and flushes before it waits.
    pub(in crate::connection) fn recv(
        &self,
        output: &RefCell<Output>,
        buf: &mut [u8],
        place: Place,
    ) -> io::Result<usize> {
        let progress = self.progress.get();
        if progress.ended {
            return Ok(0);
        }
        if self.is_ended_by_writer() {
            // What writers have queued comes before what the handler says at the end.
            return self.flush(&mut output.borrow_mut()).map(|()| 0);
        }
        // A handler that marks its requests knows best.
        let between = place == Place::Request || (place == Place::Piece && !progress.marks_requests);
        let may_be_idle = between || (place == Place::Empty && !progress.marks_requests);
        let read = match self.recv_ahead(output, buf) {
            Ok(None) => self.recv_waiting(output, buf, between, may_be_idle),
            Ok(Some(n)) => Ok(n),
            Err(e) => Err(e),
        };
        // After an error too, or the request limit would be off for good.
        if between {
            self.request_begins();
        }
        self.note_read(read?, buf.len())
    }

    /// Reads once without a wait, and without a flush; `None` if nothing has arrived. `idle` is true between two requests.
    pub(in crate::connection) fn try_recv(&self, buf: &mut [u8], idle: bool) -> io::Result<Option<usize>> {
        if self.progress.get().ended || self.is_ended_by_writer() {
            return Ok(Some(0));
        }
        self.recv_now(buf, idle)?.map(|n| self.note_read(n, buf.len())).transpose()
    }

    pub(super) fn note_read(&self, n: usize, room: usize) -> io::Result<usize> {
        // The cut has shut the socket. The handler must not take that for the peer's end.
        if n == 0 && self.control().is_cut() {
            return Err(self.drain_exceeded());
        }
        self.note(|p| {
            p.fresh &= n == 0;
            p.heard |= n > 0;
            p.read_full = n == room;
        });
        Ok(n)
    }

    /// Waits for input. The request limit does not run `between` two requests.
    fn recv_waiting(
        &self,
        output: &RefCell<Output>,
        buf: &mut [u8],
        between: bool,
        may_be_idle: bool,
    ) -> io::Result<usize> {
        if between {
            self.between_requests();
        }
        // Between two requests, or after an answer: a drain may end this wait.
        let idle = between || (may_be_idle && self.progress.get().fresh);
        // The watching path costs one more system call for each wait. So it is for those that need it.
        if self.notice == StopNotice::ByPolling || self.mailbox.get().is_some() {
            self.recv_watching(output, buf, idle)
        } else {
            self.recv_blocking(buf, idle)
        }
    }

    /// Flushes before a wait. A forgotten flush would be a deadlock: the client waits for the answer, and the
    /// handler for the next request. `Some` if input was there without a wait.
    fn recv_ahead(&self, output: &RefCell<Output>, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut output = output.borrow_mut();
        if !output.is_empty() {
            // The last read filled its buffer, so more has probably arrived. A look comes before the flush:
            // many pipelined requests are then answered in one write.
            if self.progress.get().read_full {
                if let Some(n) = self.recv_now(buf, false)? {
                    return Ok(Some(n));
                }
            }
            self.flush(&mut output)?;
        }
        Ok(None)
    }

    /// Reads without a wait. `None` if nothing has arrived.
    pub(super) fn recv_now(&self, buf: &mut [u8], idle: bool) -> io::Result<Option<usize>> {
        match self.recv_bytes(buf, false) {
            Ok(n) => {
                self.note(|p| p.ended = n == 0);
                Ok(Some(n))
            }
            Err(e) if would_wait(&e) => Ok(None),
            Err(e) if self.is_end_between(&e, idle) => Ok(Some(self.note_end())),
            Err(e) => Err(self.read_failed(e)),
        }
    }

    /// Reads without a wait when the server stops, in place of a wait for a request. A request that has
    /// arrived is still served.
    pub(super) fn recv_last(&self, buf: &mut [u8]) -> io::Result<usize> {
        let arrived = self.recv_now(buf, true)?;
        self.note(|p| p.stopped = p.stopped || arrived.is_none());
        Ok(arrived.unwrap_or(0))
    }

    /// Reads by a blocking call. The kernel's receive timeout ends it, or another thread's
    /// `shutdown(SHUT_RD)`.
    fn recv_blocking(&self, buf: &mut [u8], idle: bool) -> io::Result<usize> {
        let deadline = self.read_deadline(idle);
        loop {
            if self.is_stopping_idle(idle) {
                return self.recv_last(buf);
            }
            self.arm(&self.armed_read, deadline, socket::set_read_timeout)?;
            // First the note in the registry, then a second look at the stop. So either this thread sees the
            // stop, or the drain sees this wait: none is missed.
            self.turn(idle, SlotState::Busy, self.waiting());
            if self.is_stopping_idle(idle) {
                self.turn(idle, self.waiting(), SlotState::Busy);
                continue;
            }
            let read = self.recv_bytes(buf, true);
            // The drain has changed the note, and shut the reading side: this end of the stream is its doing.
            if idle && !self.turn(idle, self.waiting(), SlotState::Busy) {
                self.note(|p| p.stopped = true);
            }
            match read {
                Ok(n) => {
                    self.note(|p| p.ended = n == 0);
                    return Ok(n);
                }
                // The timeout may be shorter than the time left, or a signal has come: wait on. If the time
                // is over, a try without a wait comes first: a stopped process reads late what came in time.
                Err(e) if would_wait(&e) => {
                    if let Err(exceeded) = check(deadline) {
                        return self.recv_now(buf, idle)?.ok_or(exceeded);
                    }
                }
                Err(e) if self.is_end_between(&e, idle) => return Ok(self.note_end()),
                Err(e) => return Err(self.read_failed(e)),
            }
        }
    }

    /// Notes the end of the stream, which reads as 0 bytes.
    fn note_end(&self) -> usize {
        self.note(|p| p.ended = true);
        0
    }

    pub(super) fn read_failed(&self, e: io::Error) -> io::Error {
        self.note(|p| p.failed = true);
        // The cut has shut the socket, which a session takes for a stream that is cut off.
        if self.control().is_cut() && e.kind() == io::ErrorKind::UnexpectedEof {
            return self.drain_exceeded();
        }
        e
    }

    pub(super) fn turn(&self, idle: bool, from: SlotState, to: SlotState) -> bool {
        !idle || self.slot.borrow().as_ref().is_some_and(|slot| slot.turn(from, to))
    }

    pub(crate) fn is_stopping_idle(&self, idle: bool) -> bool {
        idle && self.control().stopping() && !self.is_spared()
    }

    /// Reads by polls that also watch the stop and the writers' mailbox.
    fn recv_watching(&self, output: &RefCell<Output>, buf: &mut [u8], idle: bool) -> io::Result<usize> {
        let deadline = self.read_deadline(idle);
        loop {
            // Messages of other threads go out before each wait.
            self.flush_mailbox(&mut output.borrow_mut())?;
            if self.is_ended_by_writer() {
                // Once more: the last messages may have come in between.
                return self.flush_mailbox(&mut output.borrow_mut()).map(|()| 0);
            }
            if self.is_stopping_idle(idle) {
                return self.recv_last(buf);
            }
            if let Some(n) = self.recv_now(buf, idle)? {
                return Ok(n);
            }
            self.check(deadline)?;
            // Also ends for a message or the stop: the next round finds out which.
            self.shared(output, || self.wait(idle, Some(self.as_fd()), None, deadline))?;
        }
    }
}
