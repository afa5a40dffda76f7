//! Waiting: epoll sets, eventfds, and `ppoll` for a handful of descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{ppoll, PollFd, PollFlags};
use nix::sys::epoll::{self, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{self, EfdFlags};
use nix::sys::time::TimeSpec;

/// A counter that makes a descriptor readable. Of all ways to wake a thread, a signal handler has only this
/// one.
#[derive(Debug)]
pub(crate) struct EventFd(eventfd::EventFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(eventfd::EventFd::from_value_and_flags(0, flags)?))
    }

    /// Makes it readable. Async-signal-safe; a full counter is readable already.
    pub(crate) fn set(&self) {
        let _ = self.0.write(1);
    }

    /// Makes it unreadable again.
    pub(crate) fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What an [`Epoll`] watches a descriptor for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Readable, level-triggered.
    Read,
    /// Readable, and of all the sets that wait for it only one is woken (`EPOLLEXCLUSIVE`).
    ReadExclusive,
}

/// An epoll set that tells one ready descriptor at a time, by the token it was added with.
#[derive(Debug)]
pub(crate) struct Epoll(epoll::Epoll);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, interest: Interest, token: u64) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::ReadExclusive => EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE,
        };
        Ok(self.0.add(fd, EpollEvent::new(flags, token))?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = self.0.delete(fd);
    }

    /// The tokens of those that are ready now, without a wait.
    pub(crate) fn ready<'a>(&self, tokens: &'a mut [u64; 32]) -> io::Result<&'a [u64]> {
        let mut events = [EpollEvent::empty(); 32];
        let n = match self.0.wait(&mut events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            done => done?,
        };
        for (token, event) in tokens.iter_mut().zip(&events[..n]) {
            *token = event.data();
        }
        Ok(&tokens[..n])
    }

    #[cfg(not(all(test, shuttle)))] // the model has its own
    /// Waits for one ready descriptor; `None` after `timeout`, or when a signal came in between.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<u64>> {
        let mut event = [EpollEvent::empty()];
        match self.0.wait(&mut event, whole_millis(timeout)) {
            Ok(0) | Err(Errno::EINTR) => Ok(None),
            Ok(_) => Ok(Some(event[0].data())),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0 .0.as_fd()
    }
}

/// Reads once, if there is something to read now (or the end): for descriptors that may be blocking and shall
/// stay so.
pub(crate) fn read_if_ready(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    if poll([Some(fd)], None, Some(Duration::ZERO))?.none() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(nix::unistd::read(fd, buf)?)
}

/// epoll counts milliseconds. Rounded down, a wait would end before its deadline, find time left, and spin
/// through the last millisecond.
pub(super) fn whole_millis(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let millis = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::NONE)
}

/// Which of the polled descriptors has something to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready(u32);

impl Ready {
    /// True if the descriptor at this place in the list is ready, hung up or in error.
    pub(crate) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    /// True if the time ran out first.
    pub(crate) fn none(self) -> bool {
        self.0 == 0
    }
}

/// Waits until one of a few descriptors can be read (`None` is skipped), or `write` can be written to.
pub(crate) fn poll<const N: usize>(
    read: [Option<BorrowedFd<'_>>; N],
    write: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let mut places = Vec::with_capacity(N + 1);
    let mut fds = Vec::with_capacity(N + 1);
    let wanted = read.into_iter().map(|fd| (fd, PollFlags::POLLIN)).chain([(write, PollFlags::POLLOUT)]);
    for (place, (fd, flags)) in wanted.enumerate() {
        if let Some(fd) = fd {
            places.push(place);
            fds.push(PollFd::new(fd, flags));
        }
    }
    let timeout = timeout.map(|t| TimeSpec::from_duration(t.min(Duration::from_secs(1 << 31))));
    match ppoll(&mut fds, timeout, None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = fds.iter().zip(places).filter(|(fd, _)| fd.any().unwrap_or(true));
    Ok(Ready(ready.fold(0, |bits, (_, place)| bits | 1 << place)))
}
