//! Reading and writing without a wait, for a loop that waits itself. The loop has the limits, the queue and
//! the stop. The server closes the connection afterwards, as any other.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::{would_wait, Ending, Wire};
use crate::config::Limits;
use crate::sys::socket;

impl Wire {
    /// Reads what has arrived. [`io::ErrorKind::WouldBlock`] if nothing has. For a parent, input begins a
    /// request; the loop tells more when it has handled it.
    pub(crate) fn recv_direct(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.recv_now(buf) {
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            // The cut has shut the socket: that is not the peer's end.
            Ok(Some(0)) | Err(_) if self.control().is_cut() => Err(self.drain_exceeded()),
            Ok(Some(n)) => {
                self.note(|p| p.heard = p.heard || n > 0);
                if n > 0 && self.progress.get().between {
                    self.request_begins();
                }
                Ok(n)
            }
            Err(e) => Err(e),
        }
    }

    /// Sends as much as the kernel takes.
    pub(crate) fn send_direct(&self, bytes: &[u8]) -> io::Result<usize> {
        self.note_sent(socket::send(self.fd(), bytes, &[], false))
    }

    /// Sends many parts in one call.
    pub(crate) fn send_parts_direct(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.note_sent(socket::send_parts(self.fd(), parts))
    }

    fn note_sent(&self, sent: io::Result<usize>) -> io::Result<usize> {
        sent.map_err(|e| {
            self.note(|p| p.broken = p.broken || !would_wait(&e));
            if self.progress.get().broken && self.control().is_cut() {
                return self.drain_exceeded();
            }
            e
        })
    }

    /// Returns why the connection is broken after a hang-up, if it is. `shut` is true if the writing half was
    /// shut.
    pub(crate) fn hang_up(&self, shut: bool) -> Option<io::Error> {
        let broken = self.socket.hang_up(shut)?;
        self.note(|p| p.failed = true);
        Some(if self.control().is_cut() { self.drain_exceeded() } else { broken })
    }

    pub(crate) fn has_unread(&self) -> bool {
        socket::unread(self.as_fd()).is_ok_and(|n| n > 0)
    }

    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        self.socket.set_no_delay(on)
    }

    pub(crate) fn set_keep_alive(&self, time: Option<Duration>) -> io::Result<()> {
        self.socket.set_keep_alive(time)
    }

    pub(crate) fn shut_write(&self) {
        let _ = socket::shut_write(self.fd());
    }

    /// Makes the close a reset.
    pub(crate) fn reset_at_close(&self) {
        let _ = socket::reset_at_close(self.as_fd());
        self.note(|p| p.ending = Ending::Reset);
    }

    /// Notes that input was thrown away. The connection is then closed as if it were still unread.
    pub(crate) fn leaves_unread(&self) {
        if self.progress.get().ending == Ending::Usual {
            self.note(|p| p.ending = Ending::LeavesUnread);
        }
    }

    /// Notes that the stop has ended the connection. Later input is not read.
    pub(crate) fn is_ended_by_the_stop(&self) {
        self.note(|p| p.stopped = true);
    }

    /// Tells the parent of this child when the loop's present request began, and how long it may take.
    pub(crate) fn tell_request(&self, since: Option<Instant>, limit: Option<Duration>) {
        if self.shared_deadline.get().is_none() {
            return;
        }
        let mut limits = self.limits.get();
        limits.request = limit;
        self.limits.set(limits);
        self.request_since.set(since);
        self.note(|p| p.between = since.is_none());
        self.share_deadline();
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits.get()
    }
}
