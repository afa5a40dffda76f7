//! Writing: by the one thread that serves the connection, for the others too.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{check, would_wait, Deadline, StopNotice, Wire};
use crate::config::Limit;
use crate::connection::output::Output;
use crate::connection::writer::{self, ConnectionWriter, Messages};
use crate::sys::socket;

impl Wire {
    /// Sends both parts whole; waits for the peer as long as the write limit allows without progress.
    pub(in crate::connection) fn send_all(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
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
        match self.notice {
            StopNotice::ByPolling => self.wait(false, None, Some(self.as_fd()), deadline).map(|()| false),
            StopNotice::ByRegistry => self.arm(&self.armed_write, deadline, socket::set_write_timeout).map(|()| true),
        }
    }

    /// Sends the buffer, then what other threads have written.
    pub(in crate::connection) fn flush(&self, output: &mut Output) -> io::Result<()> {
        output.send(self)?;
        self.note(|p| p.fresh = true);
        self.flush_mailbox(output)
    }

    pub(in crate::connection) fn flush_mailbox(&self, output: &mut Output) -> io::Result<()> {
        let Some(mailbox) = self.mailbox.get() else { return Ok(()) };
        mailbox.clear_if_woken();
        while let Some(message) = writer::take(mailbox) {
            output.write(self, &message)?;
        }
        output.send(self)
    }

    pub(in crate::connection) fn writer(&self) -> io::Result<ConnectionWriter> {
        if self.mailbox.get().is_none() {
            let _ = self.mailbox.set(Arc::new(Messages::new()?));
        }
        let mailbox = self.mailbox.get().ok_or_else(|| io::Error::other("no mailbox"))?;
        Ok(ConnectionWriter::new(mailbox.clone(), self.server.core.settings.writer_capacity))
    }

    pub(in crate::connection) fn close_writers(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.close();
        }
    }
}
