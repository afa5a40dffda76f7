//! A descriptor that is no socket, read without a wait.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{self, Poller, Readiness};

/// A descriptor to read from. Other processes may share its file, so it is never made non-blocking. It is polled before
/// each read.
#[derive(Debug)]
pub(crate) struct Input {
    fd: OwnedFd,
    /// True for regular files and `/dev/null`. epoll refuses them, and they are always readable.
    pub(crate) is_always_ready: bool,
}

impl Input {
    pub(crate) fn new(fd: OwnedFd, poller: &Poller) -> io::Result<Self> {
        // A try shows if epoll takes it.
        let is_always_ready = match poller.add(&fd, Readiness::default(), 0) {
            Err(e) if e.raw_os_error() == Some(nix::libc::EPERM) => true,
            added => added.map(|()| false)?,
        };
        poller.remove(&fd);
        Ok(Self { fd, is_always_ready })
    }

    /// Returns the descriptor to register with epoll.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd()).filter(|_| !self.is_always_ready)
    }

    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        sys::read_if_ready(self.fd.as_fd(), buf)
    }
}
