//! The event loop's epoll set: many descriptors, each with a token, changed as its interest changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags};

use super::event::whole_millis;

/// Most events that one wait takes from the kernel; what is left shows at the next.
const BATCH: usize = 512;

/// What to watch a descriptor for, and what it is ready for. Hang-ups and errors always show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The connection is broken, or closed both ways.
    pub(crate) hangup: bool,
    /// The peer's stream has ended, behind what is still to be read. Shows with `edge` only.
    pub(crate) ended: bool,
    /// What comes is told once, instead of in every wait while it is there. What is there when the interest is set is
    /// told, also when it is set anew as it was.
    pub(crate) edge: bool,
}

/// An epoll set, level-triggered where nothing else is asked for.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: epoll::Epoll,
    events: Vec<EpollEvent>,
    ready: usize,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); BATCH], ready: 0 })
    }

    pub(crate) fn add(&self, fd: impl AsFd, wanted: Readiness, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(flags(wanted), token))?)
    }

    /// A listener that several processes may share: one of them is woken.
    pub(crate) fn add_exclusive(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token))?)
    }

    /// A bell that several loops hear, and nobody silences: each ring is told once to each (edge-triggered).
    pub(crate) fn add_edge(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, wanted: Readiness, token: u64) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags(wanted), token))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = self.epoll.delete(fd);
    }

    /// Waits up to `timeout`, for ever without one; how many events there are. A signal ends it with none.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.ready = match self.epoll.wait(&mut self.events, whole_millis(timeout)) {
            Err(Errno::EINTR) => 0,
            done => done?,
        };
        Ok(self.ready)
    }

    /// One of the events of the last wait.
    pub(crate) fn event(&self, place: usize) -> (u64, Readiness) {
        let event = self.events[..self.ready].get(place).copied().unwrap_or(EpollEvent::empty());
        let has = |flag| event.events().intersects(flag);
        let readiness = Readiness {
            read: has(EpollFlags::EPOLLIN),
            write: has(EpollFlags::EPOLLOUT),
            hangup: has(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
            ended: has(EpollFlags::EPOLLRDHUP),
            edge: false,
        };
        (event.data(), readiness)
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

fn flags(wanted: Readiness) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, wanted.read);
    flags.set(EpollFlags::EPOLLOUT, wanted.write);
    flags.set(EpollFlags::EPOLLRDHUP, wanted.read && wanted.edge);
    flags.set(EpollFlags::EPOLLET, wanted.edge);
    flags
}
