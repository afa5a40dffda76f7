//! Reading: what is buffered goes out before a wait, and a stop ends a wait for a request.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;

use super::{check, would_wait, StopNotice, Wire};
use crate::connection::output::Output;
use crate::lifecycle::SlotState;
use crate::sys::socket;

impl Wire {
    /// One read. Flushes before it waits. `empty`: whether the caller has nothing buffered.
    pub(in crate::connection) fn recv(
        &self,
        output: &RefCell<Output>,
        buf: &mut [u8],
        empty: bool,
    ) -> io::Result<usize> {
        if self.progress.get().ended {
            return Ok(0);
        }
        let n = match self.recv_ahead(output, buf)? {
            Some(n) => n,
            None => {
                let progress = self.progress.get();
                let idle = progress.between || (progress.fresh && empty);
                if self.notice == StopNotice::ByPolling || self.mailbox.get().is_some() {
                    self.recv_watching(output, buf, idle)?
                } else {
                    self.recv_blocking(buf, idle)?
                }
            }
        };
        if n == 0 && self.control().is_cut() {
            return Err(self.drain_exceeded());
        }
        self.note(|p| {
            p.fresh &= n == 0;
            p.heard |= n > 0;
            p.read_full = n == buf.len();
        });
        Ok(n)
    }

    /// Before a wait, what is buffered is flushed; where the last read left something behind, a look without a wait
    /// comes first, so that many requests are answered in one write.
    fn recv_ahead(&self, output: &RefCell<Output>, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut output = output.borrow_mut();
        if !output.is_empty() {
            if self.progress.get().read_full {
                if let Some(n) = self.recv_now(buf)? {
                    return Ok(Some(n));
                }
            }
            self.flush(&mut output)?;
        }
        Ok(None)
    }

    /// What has arrived, without a wait; `None` if that is nothing.
    pub(super) fn recv_now(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match socket::recv(self.fd(), buf, false) {
            Ok(n) => {
                self.note(|p| p.ended = n == 0);
                Ok(Some(n))
            }
            Err(e) if would_wait(&e) => Ok(None),
            Err(e) => Err(self.read_failed(e)),
        }
    }

    /// Instead of a wait for a request, when the server stops: a request that has arrived is still served.
    fn recv_last(&self, buf: &mut [u8]) -> io::Result<usize> {
        let arrived = self.recv_now(buf)?;
        self.note(|p| p.stopped = p.stopped || arrived.is_none());
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
            self.turn(idle, SlotState::Busy, self.waiting());
            if self.is_stopping_idle(idle) {
                self.turn(idle, self.waiting(), SlotState::Busy);
                continue;
            }
            let read = socket::recv(self.fd(), buf, true);
            if idle && !self.turn(idle, self.waiting(), SlotState::Busy) {
                self.note(|p| p.stopped = true); // and our reading side is shut
            }
            match read {
                Ok(n) => {
                    self.note(|p| p.ended = n == 0);
                    return Ok(n);
                }
                Err(e) if would_wait(&e) => check(deadline)?,
                Err(e) => return Err(self.read_failed(e)),
            }
        }
    }

    fn read_failed(&self, e: io::Error) -> io::Error {
        self.note(|p| p.failed = true);
        e
    }

    fn turn(&self, idle: bool, from: SlotState, to: SlotState) -> bool {
        !idle || self.slot.borrow().as_ref().is_some_and(|slot| slot.turn(from, to))
    }

    fn is_stopping_idle(&self, idle: bool) -> bool {
        idle && self.control().stopping() && !self.is_spared()
    }

    /// The watching path: polls the stop switch and the writers' mailbox besides.
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
            self.wait(idle, Some(self.as_fd()), None, deadline)?;
        }
    }
}
