//! Waiting: eventfds, and `ppoll` for a handful of descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::EpollTimeout;
use nix::sys::eventfd::{self, EfdFlags};
use nix::sys::time::TimeSpec;
#[cfg(not(all(test, shuttle)))]
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::number::LONGEST_WAIT;

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

    /// Replaces it, at the same number, by one that no other process has.
    pub(crate) fn renew(&self) -> io::Result<()> {
        replace(self.as_fd(), Self::new()?.as_fd())
    }
}

#[cfg(not(all(test, shuttle)))] // the model has its own
/// A descriptor that becomes readable at a time.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

#[cfg(not(all(test, shuttle)))]
impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Makes it unreadable, and readable after this time; `None`: never.
    pub(crate) fn set(&self, after: Option<Duration>) {
        let _ = match after {
            Some(after) => {
                // Zero would mean never.
                let after = TimeSpec::from_duration(after.clamp(Duration::from_nanos(1), LONGEST_WAIT));
                self.0.set(Expiration::OneShot(after), TimerSetTimeFlags::empty())
            }
            None => self.0.unset(),
        };
    }
}

#[cfg(not(all(test, shuttle)))]
impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a descriptor mean another file, at the same number.
pub(super) fn replace(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: dup3 takes three integers. The number stays open, and its owner closes it.
    Errno::result(unsafe { libc::dup3(by.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads once, if there is something to read now, or the end. It works for descriptors in blocking mode, and leaves
/// them so.
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

/// No wait is for as many descriptors.
const MOST_POLLED: usize = 8;

/// Waits until one of a few descriptors can be read (`None` is skipped), or `write` can be written to.
pub(crate) fn poll<const N: usize>(
    read: [Option<BorrowedFd<'_>>; N],
    write: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    const { assert!(N < MOST_POLLED) };
    // On the stack: a thread comes here for each message that it waits for. poll(2) skips the descriptor -1.
    let mut list = [libc::pollfd { fd: -1, events: 0, revents: 0 }; MOST_POLLED];
    for (entry, fd) in list.iter_mut().zip(read) {
        (entry.fd, entry.events) = (fd.map_or(-1, |fd| fd.as_raw_fd()), libc::POLLIN);
    }
    (list[N].fd, list[N].events) = (write.map_or(-1, |fd| fd.as_raw_fd()), libc::POLLOUT);
    let timeout = timeout.map(|t| TimeSpec::from_duration(t.min(LONGEST_WAIT)));
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| std::ptr::from_ref(timeout.as_ref()));
    // SAFETY: the list has more than N entries, and both it and the timeout outlive the call.
    match Errno::result(unsafe { libc::ppoll(list.as_mut_ptr(), N as libc::nfds_t + 1, timeout, std::ptr::null()) }) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = list.iter().enumerate().filter(|(_, entry)| entry.revents != 0);
    Ok(Ready(ready.fold(0, |bits, (place, _)| bits | 1 << place)))
}
