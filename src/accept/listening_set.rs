//! One thread's wait in the accept loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::lifecycle::Core;
use crate::listen::Listener;
use crate::sys::process::Private;
use crate::sys::Epoll;

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
        epoll.add(&core.control.stop, STOP)?;
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
        Ok(match self.epoll.wait(timeout)? {
            None => Ready::Nothing,
            Some(STOP) => Ready::Stop,
            Some(RECALL) => Ready::Recall,
            Some(WATCHED) => Ready::Watched,
            Some(index) => Ready::Listener(index as usize),
        })
    }
}
