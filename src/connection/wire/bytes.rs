//! The bytes of a connection: the kernel's, or those of a TLS session above it, which answers alike.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
#[cfg(feature = "__tls")]
use std::time::Instant;

#[cfg(feature = "__tls")]
use super::Deadline;
use super::{would_wait, Wire};
use crate::config::Limit;
use crate::net::Moved;
use crate::sys::socket;
#[cfg(feature = "__tls")]
use crate::tls::{Session, TlsInfo};

impl Wire {
    /// Reads once. With `wait`, it waits as long as the socket's timeout says.
    pub(super) fn recv_bytes(&self, buf: &mut [u8], wait: bool) -> io::Result<usize> {
        let read = match self.tls.get() {
            None => socket::recv(self.fd(), buf, wait),
            Some(tls) => tls.recv(&self.as_fd(), buf, wait),
        };
        if let Ok(n) = read {
            self.count(n, 0);
        }
        read
    }

    /// Writes both parts once, or begins to.
    pub(super) fn send_bytes(&self, first: &[u8], second: &[u8], wait: bool) -> io::Result<usize> {
        let sent = match self.tls.get() {
            None => socket::send(self.fd(), first, second, wait),
            Some(tls) => tls.send(&self.as_fd(), &[IoSlice::new(first), IoSlice::new(second)], wait),
        };
        if let Ok(n) = sent {
            self.count(0, n);
        }
        sent
    }

    pub(super) fn count(&self, read: usize, written: usize) {
        let Moved { read: before, written: sent } = self.moved.get();
        self.set_moved(Moved { read: before + read as u64, written: sent + written as u64 });
    }

    pub(in crate::connection) fn set_moved(&self, moved: Moved) {
        self.moved.set(moved);
        self.parent_deadline.get().into_iter().for_each(|parent| parent.set_moved(moved));
    }

    /// True if a stream that ended without TLS's close_notify counts as ended in order: `idle` is true between two
    /// requests. Many clients just close then, as Python's do, and nothing can be missing. Within a request it may be
    /// an attack that cuts the rest off.
    pub(super) fn is_end_between(&self, e: &io::Error, idle: bool) -> bool {
        idle && self.tls.get().is_some() && e.kind() == io::ErrorKind::UnexpectedEof
    }

    #[cfg(feature = "__tls")]
    pub(in crate::connection) fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.get().map(Session::info)
    }

    /// Sends close_notify after the last output, and waits for a peer that takes nothing, up to the write limit. An
    /// error is none of the handler's: all its output is sent.
    pub(in crate::connection) fn close_tls(&self) {
        let Some(tls) = self.tls.get().filter(|_| !self.progress.get().broken) else { return };
        tls.queue_close_notify();
        let mut deadline = None;
        let mut waits = false;
        while let Err(e) = tls.push(&self.as_fd(), waits) {
            let limit = self.limits().write;
            let by = *deadline.get_or_insert_with(|| self.deadline(Limit::Write, limit));
            let more = if would_wait(&e) { self.check(by).and_then(|()| self.may_wait_to_send(by)) } else { Err(e) };
            match more {
                Ok(wait) => waits = wait,
                Err(_) => return,
            }
        }
    }

    /// Shakes hands on a connection in conversation, under the handshake limit. A stop ends it, as it ends any wait for a request.
    #[cfg(feature = "__tls")]
    pub(in crate::connection) fn shake_hands(&self, session: Session) -> io::Result<()> {
        let after = self.server.core.settings.handshake_timeout;
        let by = Deadline::new(Instant::now(), Limit::Handshake, after);
        // The request limit begins when the handler can read.
        self.between_requests();
        while let Err(e) = session.handshake(&self.as_fd()) {
            if !would_wait(&e) {
                return Err(self.read_failed(e));
            }
            self.check(by)?;
            if self.is_stopping_idle(true) {
                self.note(|p| p.stopped = true);
                return Err(io::Error::other("the server stops"));
            }
            let socket = Some(self.as_fd());
            let (read, write) = if session.wants_write() { (None, socket) } else { (socket, None) };
            self.wait(true, read, write, by)?;
        }
        let _ = self.tls.set(session);
        self.request_begins();
        self.note(|p| p.fresh = true);
        Ok(())
    }
}
