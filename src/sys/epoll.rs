//! [`Epoll`]: descriptors by their tokens. [`Poller`](super::Poller) waits by it for many, a thread for one at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags};

use super::event::{replace, whole_millis};

#[cfg(not(all(test, shuttle)))]
const ONCE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLONESHOT);

/// An epoll set.
#[derive(Debug)]
pub(crate) struct Epoll(epoll::Epoll);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Replaces it, at the same number, by an empty set that no other process has.
    pub(crate) fn renew(&self) -> io::Result<()> {
        replace(self.as_fd(), Self::new()?.as_fd())
    }

    /// Watches a descriptor for input, level-triggered.
    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.add_for(fd, EpollFlags::EPOLLIN, token)
    }

    /// Watches a descriptor for input. Of all the sets that watch it like this, only one is woken (`EPOLLEXCLUSIVE`).
    pub(crate) fn add_exclusive(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.add_for(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE, token)
    }

    #[cfg(not(all(test, shuttle)))] // the model has its own
    /// Watches a descriptor for input, or for its peer's end, and reports it once (`EPOLLONESHOT`). One thread has it to
    /// itself then, until it [arms](Self::arm) the descriptor again.
    pub(crate) fn add_once(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.add_for(fd, ONCE, token)
    }

    #[cfg(not(all(test, shuttle)))]
    /// Watches a descriptor that was [added](Self::add_once) once more. If it is ready already, it is reported.
    pub(crate) fn arm(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        self.modify(fd, ONCE, token)
    }

    pub(super) fn add_for(&self, fd: impl AsFd, flags: EpollFlags, token: u64) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(flags, token))?)
    }

    pub(super) fn modify(&self, fd: impl AsFd, flags: EpollFlags, token: u64) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = self.0.delete(fd);
    }

    /// Waits for as many events as there is room for, and returns how many came. A signal ends the wait with none.
    pub(super) fn wait_for(&self, events: &mut [EpollEvent], timeout: Option<Duration>) -> io::Result<usize> {
        match self.0.wait(events, whole_millis(timeout)) {
            Err(Errno::EINTR) => Ok(0),
            done => Ok(done?),
        }
    }

    /// Returns the tokens of the descriptors that are ready now, without a wait.
    pub(crate) fn ready<'a>(&self, tokens: &'a mut [u64; 32]) -> io::Result<&'a [u64]> {
        let mut events = [EpollEvent::empty(); 32];
        let n = self.wait_for(&mut events, Some(Duration::ZERO))?;
        for (token, event) in tokens.iter_mut().zip(&events[..n]) {
            *token = event.data();
        }
        Ok(&tokens[..n])
    }

    #[cfg(not(all(test, shuttle)))] // the model has its own
    /// Waits for one ready descriptor; `None` after `timeout`, or when a signal came in between.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<u64>> {
        let mut event = [EpollEvent::empty()];
        let n = self.wait_for(&mut event, timeout)?;
        Ok((n > 0).then(|| event[0].data()))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0 .0.as_fd()
    }
}
