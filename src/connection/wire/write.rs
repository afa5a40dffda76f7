//! Writing. The thread that serves the connection writes; it also sends the messages of other threads.
//!
//! If any thread wrote to the socket, a slow peer would block a sender that serves another client. So other threads queue
//! whole messages. Only while this thread waits for its peer do they write themselves, without a wait: see `Shortcut`.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use super::{check, would_wait, Deadline, StopNotice, Wire};
use crate::config::Limit;
use crate::connection::output::Output;
use crate::connection::writer::{ConnectionWriter, Messages, Poke};
use crate::sys::socket;

impl Wire {
    /// Sends both parts whole. It waits for a peer that takes nothing, up to the write limit.
    pub(in crate::connection) fn send_all(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        // How much the peer has received is not known. More output would land at a wrong place.
        if self.progress.get().broken {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write has failed"));
        }
        self.send_parts(first, second).map_err(|e| {
            self.note(|p| p.broken = true);
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
            match self.send_bytes(first, second, waits) {
                Ok(n) => {
                    stalled = None;
                    waits = false;
                    let of_first = n.min(first.len());
                    first = &first[of_first..];
                    second = &second[n - of_first..];
                }
                // The wait is over, and the peer may have taken something at last: try without one.
                Err(e) if would_wait(&e) && waits => waits = false,
                Err(e) if would_wait(&e) => {
                    // The write limit counts from the last progress, over any number of waits. A peer that
                    // takes a little now and then makes progress for ever: the request limit ends that.
                    let limit = self.limits().write;
                    let deadline = *stalled.get_or_insert_with(|| self.deadline(Limit::Write, limit));
                    waits = self.may_wait_to_send(deadline)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Checks the limits, then waits for a peer that takes no more. True if the next call is to wait itself, with the
    /// kernel's timeout. False if this call has waited.
    pub(super) fn may_wait_to_send(&self, deadline: Option<Deadline>) -> io::Result<bool> {
        match self.notice {
            StopNotice::ByPolling => {
                self.check(deadline)?;
                self.wait(false, None, Some(self.as_fd()), deadline).map(|()| false)
            }
            StopNotice::ByRegistry => {
                check(deadline)?;
                self.arm(&self.armed_write, deadline, socket::set_write_timeout).map(|()| true)
            }
        }
    }

    /// Sends the buffer, then the messages of other threads. So a message never lands within output of the
    /// handler.
    pub(in crate::connection) fn flush(&self, output: &mut Output) -> io::Result<()> {
        output.send(self)?;
        self.note(|p| p.fresh = true);
        self.flush_mailbox(output)
    }

    pub(in crate::connection) fn flush_mailbox(&self, output: &mut Output) -> io::Result<()> {
        let Some(mailbox) = self.mailbox.get() else { return Ok(()) };
        mailbox.clear_if_woken();
        while let Some(message) = mailbox.take() {
            output.write(self, &message)?;
        }
        output.send(self)
    }

    /// Waits for the peer, and lets writers write to the socket meanwhile. Call it with nothing to send.
    ///
    /// Not under TLS: only this thread has the session.
    pub(super) fn shared<T>(&self, output: &RefCell<Output>, wait: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let messages = self.mailbox.get().filter(|_| self.tls.get().is_none() && !self.progress.get().broken);
        let Some(messages) = messages else { return wait() };
        let open = messages.shortcut.open(self.fd());
        let waited = wait();
        // What is left of a message goes before all that the handler writes.
        let written = messages.close_shortcut(open, output.borrow_mut().rest());
        self.count(0, written as usize);
        waited
    }

    pub(in crate::connection) fn writer(&self) -> io::Result<ConnectionWriter> {
        if self.mailbox.get().is_none() {
            let _ = self.mailbox.set(Arc::new(Messages::new()?));
        }
        let mailbox = self.mailbox.get().ok_or_else(|| io::Error::other("no mailbox"))?;
        Ok(ConnectionWriter::new(mailbox.clone(), self.server.core.settings.writer_capacity))
    }

    pub(in crate::connection) fn poke_by(&self, lot: impl FnOnce() -> Weak<dyn Poke>) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.poke_by(lot, self.fd());
        }
    }

    pub(in crate::connection) fn has_messages(&self) -> bool {
        self.mailbox.get().is_some_and(|mailbox| mailbox.is_woken())
    }

    pub(in crate::connection) fn close_writers(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.close();
        }
    }
}
