//! [`Backend`]: the system call that a selector waits with.

use std::os::fd::RawFd;
use std::time::Duration;
use std::{fmt, io};

use crate::sys::watch::{self, OneShots, PollList, Told, Watched};
use crate::sys::Events;

/// The system call that a [`Selector`](super::Selector) waits with. All of them keep the same
/// [contract](super#contract). `poll` and `select` are for comparison, and for few descriptors; no program
/// needs to choose them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// `epoll_wait`: the cost of a wait grows with the ready descriptors, not with the registered ones. The
    /// default. It counts milliseconds.
    #[default]
    Epoll,
    /// `poll`: each wait looks at all registered descriptors. It counts milliseconds.
    Poll,
    /// `select`: as `poll`, for descriptors below 1024 (`FD_SETSIZE`). Others are refused. It counts
    /// microseconds.
    Select,
}

/// An epoll set with all registered files, and the data of the other calls.
///
/// The set is there with every back end. It refuses files that cannot be waited for. And it knows whether a
/// number still has the file that it was registered with: a change of an entry fails if not. `poll` and
/// `select` cannot find that out.
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

    /// Waits once. A signal may end the wait early. `watched` are the descriptors without the waker.
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
