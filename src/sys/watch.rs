//! What the selectors wait with: epoll_wait, poll and select, over the numbers of descriptors.
//!
//! Numbers, and not borrowed descriptors: a registered one may have been closed, and each call has its way to
//! say so.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_int, epoll_event, fd_set, pollfd, timeval};
use nix::sys::time::{TimeVal, TimeValLike};

use super::event::whole_millis;
use super::events::Events;
use super::number::{clamped, LONGEST_WAIT};

/// `select` takes numbers below this one; its sets have no room for others.
pub(crate) const SELECT_LIMIT: RawFd = libc::FD_SETSIZE as RawFd;

/// The most descriptors that an `epoll_wait` reports. The kernel goes on with the others at the next.
const BATCH: usize = 1024;

/// What a call has told of one descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) fd: RawFd,
    /// Of the registration, where the kernel keeps it.
    pub(crate) serial: Option<u32>,
    /// Hang-ups and errors show as both, so the caller drops what was not asked for. Empty where it may be
    /// closed.
    pub(crate) events: Events,
}

/// An epoll set whose entries tell once, and then no more until they are armed again.
///
/// Arming fails where the number has not the file any more that it was added with. That is the one exact way
/// to learn of a descriptor that was closed. Its entry lives on while a duplicate is open, and is silent.
#[derive(Debug)]
pub(crate) struct OneShots {
    set: OwnedFd,
    batch: Vec<epoll_event>,
}

impl OneShots {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1 takes an integer.
        let fd = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { set: unsafe { OwnedFd::from_raw_fd(fd) }, batch: Vec::new() })
    }

    /// A descriptor that is told level-triggered and needs no arming.
    pub(crate) fn add_always(&self, fd: RawFd) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, 0)
    }

    pub(crate) fn add(&self, fd: RawFd, events: Events, serial: u32) -> Result<(), Errno> {
        match self.control(libc::EPOLL_CTL_ADD, fd, mask(events), serial) {
            // It was closed and forgotten while a duplicate kept the entry, and is now that duplicate's.
            Err(Errno::EEXIST) => self.arm(fd, events, serial),
            done => done,
        }
    }

    pub(crate) fn arm(&self, fd: RawFd, events: Events, serial: u32) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_MOD, fd, mask(events), serial)
    }

    pub(crate) fn remove(&self, fd: RawFd) {
        let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
    }

    fn control(&self, act: c_int, fd: RawFd, mask: c_int, serial: u32) -> Result<(), Errno> {
        let mut event = epoll_event { events: mask as u32, u64: u64::from(serial) << 32 | fd as u64 };
        // SAFETY: epoll_ctl reads one epoll_event through the pointer, which is valid for the call.
        let done = unsafe { libc::epoll_ctl(self.set.as_raw_fd(), act, fd, std::ptr::addr_of_mut!(event)) };
        Errno::result(done).map(drop)
    }

    /// Waits for entries that are armed, and reports at most `registered` of them.
    pub(crate) fn wait(
        &mut self,
        registered: usize,
        timeout: Option<Duration>,
        told: &mut Vec<Told>,
    ) -> io::Result<()> {
        self.batch.resize(registered.clamp(1, BATCH), epoll_event { events: 0, u64: 0 });
        let (room, millis) = (self.batch.len() as c_int, i32::from(whole_millis(timeout)));
        // SAFETY: epoll_wait writes at most `room` events into the batch, whose length that is.
        let n = unsafe { libc::epoll_wait(self.set.as_raw_fd(), self.batch.as_mut_ptr(), room, millis) };
        let n = ready(Errno::result(n))?;
        let tell = |event: &epoll_event| {
            let bits = event.events as c_int;
            let events = seen(bits, libc::EPOLLIN, libc::EPOLLOUT, libc::EPOLLHUP | libc::EPOLLERR);
            Told { fd: event.u64 as u32 as RawFd, serial: Some((event.u64 >> 32) as u32), events }
        };
        told.extend(self.batch[..n].iter().map(tell));
        Ok(())
    }
}

impl AsFd for OneShots {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

fn mask(events: Events) -> c_int {
    let bit = |event: Events, bit: c_int| if events.contains(event) { bit } else { 0 };
    bit(Events::READ, libc::EPOLLIN) | bit(Events::WRITE, libc::EPOLLOUT) | libc::EPOLLONESHOT
}

/// A hang-up or an error shows as both events: the read or the write then finds it.
fn seen(bits: c_int, readable: c_int, writable: c_int, broken: c_int) -> Events {
    let mut events = Events::empty();
    if bits & (readable | broken) != 0 {
        events |= Events::READ;
    }
    if bits & (writable | broken) != 0 {
        events |= Events::WRITE;
    }
    events
}

/// A signal has ended the wait: nothing was ready by then.
fn ready(n: Result<c_int, Errno>) -> io::Result<usize> {
    match n {
        Err(Errno::EINTR) => Ok(0),
        n => Ok(n? as usize),
    }
}

/// What is to be watched, in any order.
pub(crate) trait Watched: Iterator<Item = (RawFd, Events)> + Clone {}

impl<I: Iterator<Item = (RawFd, Events)> + Clone> Watched for I {}

/// The list that `poll` wants, kept for its memory.
#[derive(Default)]
pub(crate) struct PollList(Vec<pollfd>);

impl PollList {
    pub(crate) fn wait(
        &mut self,
        watched: impl Watched,
        timeout: Option<Duration>,
        told: &mut Vec<Told>,
    ) -> io::Result<()> {
        self.0.clear();
        self.0.extend(watched.map(|(fd, events)| {
            let bit = |event: Events, bit| if events.contains(event) { bit } else { 0 };
            let events = bit(Events::READ, libc::POLLIN) | bit(Events::WRITE, libc::POLLOUT);
            pollfd { fd, events, revents: 0 }
        }));
        let (list, length) = (self.0.as_mut_ptr(), self.0.len() as libc::nfds_t);
        // SAFETY: poll reads and writes `length` entries, the length of the list.
        let n = ready(Errno::result(unsafe { libc::poll(list, length, i32::from(whole_millis(timeout))) }))?;
        told.extend(self.0.iter().filter(|entry| n > 0 && entry.revents != 0).map(|entry| {
            let broken = c_int::from(libc::POLLHUP | libc::POLLERR);
            let bits = c_int::from(entry.revents);
            let events = seen(bits, libc::POLLIN.into(), libc::POLLOUT.into(), broken);
            Told { fd: entry.fd, serial: None, events }
        }));
        Ok(())
    }
}

/// Waits by `select`. It says that a descriptor is closed, but not which. Then all are told, with no events.
pub(crate) fn select(watched: impl Watched, timeout: Option<Duration>, told: &mut Vec<Told>) -> io::Result<()> {
    let (mut read, mut write, mut end) = (NumberSet::new(), NumberSet::new(), 0);
    for (fd, events) in watched.clone() {
        end = end.max(fd + 1);
        if events.contains(Events::READ) {
            read.insert(fd);
        }
        if events.contains(Events::WRITE) {
            write.insert(fd);
        }
    }
    let mut timeout = timeout.map(whole_micros);
    let limit = timeout.as_mut().map_or(null_mut(), std::ptr::from_mut);
    // SAFETY: select reads and writes both sets and the limit, which are valid for the call. `end` is not past their
    // size, since `insert` takes no such number.
    let n = Errno::result(unsafe { libc::select(end, &mut read.0, &mut write.0, null_mut(), limit) });
    let suspicious = n == Err(Errno::EBADF);
    if !suspicious && ready(n)? == 0 {
        return Ok(());
    }
    told.extend(watched.filter_map(|(fd, _)| {
        let mut events = Events::empty();
        if !suspicious {
            events |= if read.contains(fd) { Events::READ } else { Events::empty() };
            events |= if write.contains(fd) { Events::WRITE } else { Events::empty() };
        }
        (suspicious || !events.is_empty()).then_some(Told { fd, serial: None, events })
    }));
    Ok(())
}

/// The kernel counts microseconds here. Rounded up, so that a wait never ends before its time.
fn whole_micros(timeout: Duration) -> timeval {
    let micros = timeout.min(LONGEST_WAIT).as_nanos().div_ceil(1000);
    *TimeVal::microseconds(clamped(micros, i64::MAX)).as_ref()
}

struct NumberSet(fd_set);

impl NumberSet {
    fn new() -> Self {
        // SAFETY: fd_set is plain integers, for which all zeroes is a value: the empty set.
        Self(unsafe { std::mem::zeroed() })
    }

    /// Numbers that the set has no room for are refused when they are registered; here they are left out.
    fn insert(&mut self, fd: RawFd) {
        if (0..SELECT_LIMIT).contains(&fd) {
            // SAFETY: the number is within the set.
            unsafe { libc::FD_SET(fd, &mut self.0) };
        }
    }

    fn contains(&self, fd: RawFd) -> bool {
        // SAFETY: the number is within the set.
        (0..SELECT_LIMIT).contains(&fd) && unsafe { libc::FD_ISSET(fd, &self.0) }
    }
}
