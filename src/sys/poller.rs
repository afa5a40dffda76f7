//! The event loop's set: many descriptors, each with a token, changed as its interest changes.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, pollfd};
use nix::sys::epoll::{EpollEvent, EpollFlags};

use super::epoll::Epoll;
use super::event::whole_millis;

/// The most events that a wait takes from the kernel. The next wait takes the others.
const BATCH: usize = 512;

/// What to watch a descriptor for, and what it is ready for. Hang-ups and errors always show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Readiness {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// The connection is broken, or closed both ways.
    pub(crate) hangup: bool,
    /// After the next read, however short, there is more: the end of the stream, or data behind urgent data, at which
    /// TCP's reads stop. Set only with `edge`.
    pub(crate) more: bool,
    /// What comes is told once, instead of in every wait while it is there. What is there when the interest
    /// is set is told, also when it is set anew as it was.
    pub(crate) edge: bool,
}

impl Readiness {
    /// To be told as long as there is input.
    pub(crate) const READABLE: Self = Self { read: true, write: false, hangup: false, more: false, edge: false };
}

/// A set of descriptors, level-triggered where nothing else is asked for.
#[derive(Debug)]
pub(crate) struct Poller {
    set: Set,
    events: Vec<EpollEvent>,
    ready: usize,
}

#[derive(Debug)]
enum Set {
    /// For any number of them.
    Epoll(Epoll),
    /// For a handful: it costs no descriptor, and no call for a change.
    Few(RefCell<PollSet>),
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { set: Set::Epoll(Epoll::new()?), events: vec![EpollEvent::empty(); BATCH], ready: 0 })
    }

    /// Makes a poller of a handful of descriptors. Each is removed or forgotten before it is closed.
    pub(crate) fn few() -> Self {
        Self { set: Set::Few(RefCell::default()), events: Vec::new(), ready: 0 }
    }

    /// Empties the set, in a process that was forked since it was made. The other processes keep theirs.
    pub(crate) fn renew(&self) -> io::Result<()> {
        match &self.set {
            Set::Epoll(epoll) => epoll.renew(),
            Set::Few(few) => {
                few.take();
                Ok(())
            }
        }
    }

    pub(crate) fn add(&self, fd: impl AsFd, wanted: Readiness, token: u64) -> io::Result<()> {
        match &self.set {
            Set::Epoll(epoll) => epoll.add_for(fd, flags(wanted), token),
            Set::Few(few) => few.borrow_mut().add(&fd, wanted, token),
        }
    }

    /// A listener that several processes may share: one of them is woken.
    pub(crate) fn add_exclusive(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        match &self.set {
            Set::Epoll(epoll) => epoll.add_exclusive(fd, token),
            Set::Few(few) => few.borrow_mut().add(&fd, Readiness::READABLE, token),
        }
    }

    pub(crate) fn modify(&self, fd: impl AsFd, wanted: Readiness, token: u64) -> io::Result<()> {
        match &self.set {
            Set::Epoll(epoll) => epoll.modify(fd, flags(wanted), token),
            Set::Few(few) => few.borrow_mut().add(&fd, wanted, token),
        }
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        match &self.set {
            Set::Epoll(epoll) => epoll.remove(fd),
            Set::Few(few) => few.borrow_mut().remove(&fd),
        }
    }

    /// It is about to be closed, and open nowhere else: epoll then removes it by itself.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        if let Set::Few(few) = &self.set {
            few.borrow_mut().remove(&fd);
        }
    }

    /// Waits up to `timeout`, for ever without one; how many events there are. A signal ends it with none.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        self.ready = match &self.set {
            Set::Epoll(epoll) => epoll.wait_for(&mut self.events, timeout)?,
            Set::Few(few) => few.borrow_mut().wait(timeout, &mut self.events)?,
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
            more: has(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI),
            edge: false,
        };
        (event.data(), readiness)
    }
}

fn flags(wanted: Readiness) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, wanted.read);
    flags.set(EpollFlags::EPOLLOUT, wanted.write);
    flags.set(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLPRI, wanted.read && wanted.edge);
    flags.set(EpollFlags::EPOLLET, wanted.edge);
    flags
}

/// The list that `poll` wants, and the token of each place in it.
#[derive(Debug, Default)]
struct PollSet {
    list: Vec<pollfd>,
    tokens: Vec<u64>,
}

impl PollSet {
    /// Never fails.
    fn add(&mut self, fd: &impl AsFd, wanted: Readiness, token: u64) -> io::Result<()> {
        self.remove(fd);
        let bit = |wanted, bit| if wanted { bit } else { 0 };
        let events = bit(wanted.read, libc::POLLIN) | bit(wanted.write, libc::POLLOUT);
        self.list.push(pollfd { fd: fd.as_fd().as_raw_fd(), events, revents: 0 });
        self.tokens.push(token);
        Ok(())
    }

    fn remove(&mut self, fd: &impl AsFd) {
        let fd = fd.as_fd().as_raw_fd();
        if let Some(place) = self.list.iter().position(|entry| entry.fd == fd) {
            self.list.remove(place);
            self.tokens.remove(place);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<EpollEvent>) -> io::Result<usize> {
        events.clear();
        let (list, length) = (self.list.as_mut_ptr(), self.list.len() as libc::nfds_t);
        // SAFETY: poll reads and writes `length` entries, the length of the list.
        match Errno::result(unsafe { libc::poll(list, length, i32::from(whole_millis(timeout))) }) {
            Err(Errno::EINTR) => return Ok(0),
            done => done?,
        };
        let ready = self.list.iter().zip(&self.tokens).filter(|(entry, _)| entry.revents != 0);
        events.extend(ready.map(|(entry, token)| EpollEvent::new(told(entry.revents), *token)));
        Ok(events.len())
    }
}

fn told(bits: libc::c_short) -> EpollFlags {
    let mut flags = EpollFlags::empty();
    flags.set(EpollFlags::EPOLLIN, bits & libc::POLLIN != 0);
    flags.set(EpollFlags::EPOLLOUT, bits & libc::POLLOUT != 0);
    flags.set(EpollFlags::EPOLLHUP, bits & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0);
    flags
}
