//! Which system call waits.

use std::os::fd::RawFd;
use std::time::Duration;
use std::{fmt, io};

use crate::sys::watch::{self, OneShots, PollList, Told, Watched};
use crate::sys::Events;

/// The system call that a [`Selector`](super::Selector) waits with. All keep the same [contract](super#contract).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// `epoll_wait`: the cost of a wait grows with the descriptors that are ready, not with those that are registered.
    /// The default. Counts milliseconds.
    #[default]
    Epoll,
    /// `poll`: each wait looks at all registered descriptors. Counts milliseconds.
    Poll,
    /// `select`: as `poll`, for descriptors below 1024 (`FD_SETSIZE`); others are refused. Counts microseconds.
    Select,
}

/// The epoll set, which knows all registered files, and the means of the other calls.
///
/// Where `poll` or `select` waits, the set is never waited on: it refuses what cannot be waited for, and knows whether
/// a number still has the file that it was registered with, which neither of the two could find out.
pub(super) struct Waiting {
    pub(super) set: OneShots,
    pub(super) backend: Backend,
    list: PollList,
}

impl Waiting {
    pub(super) fn new(backend: Backend, waker: RawFd) -> io::Result<Self> {
        let set = OneShots::new()?;
        set.add_always(waker)?;
        Ok(Self { set, backend, list: PollList::default() })
    }

    /// One wait, which a signal may end early. `watched` is what there is besides the waker.
    pub(super) fn wait(
        &mut self,
        waker: RawFd,
        watched: impl Watched,
        registered: usize,
        timeout: Option<Duration>,
        told: &mut Vec<Told>,
    ) -> io::Result<()> {
        let all = [(waker, Events::READ)].into_iter().chain(watched);
        match self.backend {
            Backend::Epoll => self.set.wait(registered + 1, timeout, told),
            Backend::Poll => self.list.wait(all, timeout, told),
            Backend::Select => watch::select(all, timeout, told),
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}
