//! One thread's wait in the accept loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::lifecycle::Core;
use crate::listen::Listener;
use crate::sys::process::Private;
use crate::sys::{Epoll, Poller, Readiness};

const STOP: u64 = u64::MAX;
const WATCHED: u64 = u64::MAX - 1;
const RECALL: u64 = u64::MAX - 2;

/// An epoll set for one waiting thread: all listeners, the stop, and the recall of reserved permits.
#[derive(Debug)]
pub(super) struct ListeningSet {
    epoll: Private<Epoll>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ready {
    Nothing,
    Stop,
    /// The limit was lowered: more permits are reserved than it allows.
    Recall,
    Watched,
    /// A connection or a datagram is queued at this listener.
    Listener(usize),
}

impl ListeningSet {
    pub(super) fn new(core: &Core, listeners: &[Listener]) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(core.control.stop_fd(), STOP)?;
        core.control.recall.iter().try_for_each(|recall| epoll.add(recall, RECALL))?;
        // `EPOLLEXCLUSIVE` wakes one of the sets that watch a listener, seldom more, never all. The watch is
        // level-triggered: while connections are queued, the next waiting thread is woken for the next one.
        // Edge-triggered, one thread would have to accept until `EAGAIN`, and could serve only one of them.
        for (index, listener) in (0..).zip(listeners).filter(|(_, listener)| !listener.is_lost()) {
            epoll.add_exclusive(listener, index)?;
        }
        Ok(Self { epoll: Private::new(epoll) })
    }

    pub(super) fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.epoll.add(fd, WATCHED)
    }

    pub(super) fn remove(&self, listener: &Listener) {
        self.epoll.remove(listener.as_fd());
    }

    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<Ready> {
        Ok(self.epoll.wait(timeout)?.map_or(Ready::Nothing, Ready::of))
    }
}

impl Ready {
    fn of(token: u64) -> Self {
        match token {
            STOP => Self::Stop,
            RECALL => Self::Recall,
            WATCHED => Self::Watched,
            index => Self::Listener(index as usize),
        }
    }
}

/// Waits as a set does, and needs no descriptor for it. Price: a connection wakes every thread that waits so. It is
/// for a lack of descriptors.
pub(super) fn wait_without_a_set(
    core: &Core,
    listeners: &[Listener],
    watched: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let mut poller = Poller::few();
    poller.add(core.control.stop_fd(), Readiness::READABLE, STOP)?;
    core.control.recall.iter().try_for_each(|recall| poller.add(recall, Readiness::READABLE, RECALL))?;
    watched.map_or(Ok(()), |fd| poller.add(fd, Readiness::READABLE, WATCHED))?;
    for (index, listener) in (0..).zip(listeners).filter(|(_, listener)| !listener.is_lost()) {
        poller.add(listener, Readiness::READABLE, index)?;
    }
    let is_ready = poller.wait(timeout)? > 0;
    Ok(if is_ready { Ready::of(poller.event(0).0) } else { Ready::Nothing })
}
