//! The model's kernel, for its waits. Descriptors are real. The model keeps which threads sleep, and the ready
//! lists of epoll sets.
//!
//! As in Linux, a set reports what is on its ready list. What comes onto the list depends on the threads that sleep
//! when the descriptor becomes ready. With `EPOLLEXCLUSIVE` the kernel walks the lists up to the first set in which a
//! thread sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{recv, MsgFlags};
use shuttle::rand::{thread_rng, Rng};

use crate::sync::model::{is_for_ever, now, Condvar, Mutex, MutexGuard};
use crate::sys::real::{self, Ready};

shuttle::lazy_static! {
    /// New for each schedule.
    static ref KERNEL: Mutex<Kernel> = Mutex::default();
}

#[derive(Debug, Default)]
struct Kernel {
    /// In the order in which they were made, which is that of the wake-ups.
    sets: Vec<Set>,
    next_set: usize,
    polling: Vec<(Vec<RawFd>, Arc<Sleeper>)>,
}

#[derive(Debug)]
struct Set {
    id: usize,
    items: Vec<Item>,
    /// In the order in which they fell asleep. Several threads may wait for one set.
    asleep: Vec<Arc<Sleeper>>,
}

#[derive(Debug)]
struct Item {
    fd: RawFd,
    token: u64,
    exclusive: bool,
    /// Whether it is reported once, and whether it may be now.
    once: bool,
    armed: bool,
    /// Whether it is on the ready list: to be looked at, it may not be ready any more.
    listed: bool,
}

impl Item {
    /// On the ready list, to be looked at once.
    fn new(fd: &impl AsFd, token: u64, exclusive: bool) -> Self {
        Self { fd: fd.as_fd().as_raw_fd(), token, exclusive, once: false, armed: true, listed: true }
    }
}

#[derive(Debug, Default)]
struct Sleeper {
    woken: AtomicBool,
    bell: Condvar,
}

impl Sleeper {
    /// `false` if it has been woken already.
    fn wake(&self) -> bool {
        let woken = !self.woken.swap(true, SeqCst);
        self.bell.notify_all();
        woken
    }

    /// Sleeps until woken; `false` if the time is over first.
    fn sleep(&self, kernel: &mut MutexGuard<'_, Kernel>, until: Option<Instant>) -> bool {
        while !self.woken.load(SeqCst) {
            match until {
                None => self.bell.wait(kernel),
                Some(until) if self.bell.wait_until(kernel, until).timed_out() => break,
                Some(_) => {}
            }
        }
        self.woken.load(SeqCst)
    }
}

impl Kernel {
    /// This descriptor has become ready.
    fn wake(&mut self, fd: RawFd) {
        for (_, sleeper) in self.polling.iter().filter(|(fds, _)| fds.contains(&fd)) {
            sleeper.wake();
        }
        let mut one_woken = false;
        for set in &mut self.sets {
            let Set { items, asleep, .. } = set;
            for item in items.iter_mut().filter(|item| item.fd == fd && item.armed) {
                if item.exclusive && one_woken {
                    continue;
                }
                item.listed = true;
                let woken = asleep.iter().any(|sleeper| sleeper.wake());
                one_woken |= item.exclusive && woken;
            }
        }
    }

    /// A client has done something: whatever it has made ready is found, and wakes.
    fn look_around(&mut self) {
        for (_, sleeper) in &self.polling {
            sleeper.wake();
        }
        for set in &mut self.sets {
            let Set { items, asleep, .. } = set;
            for item in items.iter_mut().filter(|item| item.once && item.armed && !item.listed && is_readable(item.fd))
            {
                item.listed = true;
                let _ = asleep.iter().any(|sleeper| sleeper.wake());
            }
        }
    }

    fn set(&mut self, id: usize) -> &mut Set {
        self.sets.iter_mut().find(|set| set.id == id).unwrap()
    }
}

impl Set {
    /// One of the ready list, which it stays on (level-triggered); what is not ready any more is struck off.
    fn ready(&mut self, inner: &real::Epoll) -> io::Result<Option<u64>> {
        let mut tokens = [0; 32];
        let ready = inner.ready(&mut tokens)?;
        self.items.iter_mut().for_each(|item| item.listed &= ready.contains(&item.token));
        let listed: Vec<_> = (0..self.items.len()).filter(|index| self.items[*index].listed).collect();
        if listed.is_empty() {
            return Ok(None);
        }
        let item = &mut self.items[listed[thread_rng().gen_range(0..listed.len())]];
        let token = item.token;
        if item.once {
            (item.armed, item.listed) = (false, false);
        }
        // As the kernel does: while more is ready, the next thread is woken for it.
        if self.items.iter().any(|item| item.listed) {
            let _ = self.asleep.iter().any(|sleeper| sleeper.wake());
        }
        Ok(Some(token))
    }
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.filter(|t| !is_for_ever(*t)).map(|t| now() + t)
}

/// See [`crate::sys::event`](real::EventFd).
#[derive(Debug)]
pub(crate) struct EventFd(real::EventFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        real::EventFd::new().map(Self)
    }

    pub(crate) fn set(&self) {
        let mut kernel = KERNEL.lock();
        self.0.set();
        kernel.wake(self.as_fd().as_raw_fd());
    }

    pub(crate) fn clear(&self) {
        let _kernel = KERNEL.lock();
        self.0.clear();
    }

    /// The model has one process.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.0.renew()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// As the real one, which knows what is ready; the model knows what is on the ready list.
#[derive(Debug)]
pub(crate) struct Epoll {
    inner: real::Epoll,
    id: usize,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        let inner = real::Epoll::new()?;
        let mut kernel = KERNEL.lock();
        kernel.next_set += 1;
        let id = kernel.next_set;
        kernel.sets.push(Set { id, items: Vec::new(), asleep: Vec::new() });
        Ok(Self { inner, id })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut kernel = KERNEL.lock();
        self.inner.add(&fd, token)?;
        kernel.set(self.id).items.push(Item::new(&fd, token, false));
        Ok(())
    }

    pub(crate) fn add_exclusive(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut kernel = KERNEL.lock();
        self.inner.add_exclusive(&fd, token)?;
        kernel.set(self.id).items.push(Item::new(&fd, token, true));
        Ok(())
    }

    pub(crate) fn add_once(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut kernel = KERNEL.lock();
        self.inner.add(&fd, token)?;
        // An earlier descriptor with this number has been closed.
        let raw = fd.as_fd().as_raw_fd();
        kernel.set(self.id).items.retain(|item| item.fd != raw);
        kernel.set(self.id).items.push(Item { once: true, listed: false, ..Item::new(&fd, token, false) });
        kernel.look_around();
        Ok(())
    }

    pub(crate) fn arm(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let mut kernel = KERNEL.lock();
        let item = kernel.set(self.id).items.iter_mut().find(|item| item.token == token);
        item.into_iter().for_each(|item| item.armed = true);
        kernel.look_around();
        drop(fd);
        Ok(())
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let raw = fd.as_fd().as_raw_fd();
        KERNEL.lock().set(self.id).items.retain(|item| item.fd != raw);
        self.inner.remove(fd);
    }

    /// The model has one process.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.inner.renew()
    }

    pub(crate) fn ready<'a>(&self, tokens: &'a mut [u64; 32]) -> io::Result<&'a [u64]> {
        self.inner.ready(tokens)
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<u64>> {
        let until = deadline(timeout);
        let mut kernel = KERNEL.lock();
        loop {
            if let Some(token) = kernel.set(self.id).ready(&self.inner)? {
                return Ok(Some(token));
            }
            let sleeper = Arc::new(Sleeper::default());
            kernel.set(self.id).asleep.push(sleeper.clone());
            let woken = sleeper.sleep(&mut kernel, until);
            kernel.set(self.id).asleep.retain(|other| !Arc::ptr_eq(other, &sleeper));
            if !woken {
                return Ok(None);
            }
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        KERNEL.lock().sets.retain(|set| set.id != self.id);
    }
}

pub(crate) fn poll<const N: usize>(
    read: [Option<BorrowedFd<'_>>; N],
    write: Option<BorrowedFd<'_>>,
    timeout: Option<Duration>,
) -> io::Result<Ready> {
    let fds: Vec<_> = read.iter().chain([&write]).flatten().map(|fd| fd.as_raw_fd()).collect();
    let look = || real::poll(read, write, Some(Duration::ZERO)).map(|ready| (!ready.none()).then_some(ready));
    wait(&fds, timeout, look).map(Option::unwrap_or_default)
}

/// As the real one, but no time passes for it.
#[derive(Debug)]
pub(crate) struct Timer(real::EventFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        real::EventFd::new().map(Self)
    }

    pub(crate) fn set(&self, _after: Option<Duration>) {}
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Does what a client does to its socket, and wakes the threads that it is ready for.
pub(crate) fn act(client: impl FnOnce()) {
    let mut kernel = KERNEL.lock();
    client();
    kernel.look_around();
}

fn is_readable(fd: RawFd) -> bool {
    recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN)
}

/// For a blocking read.
pub(crate) fn wait_readable(fd: RawFd) -> io::Result<()> {
    wait(&[fd], None, || Ok(is_readable(fd).then_some(()))).map(drop)
}

/// Waits until `look` finds something, woken by changes of these descriptors. It looks once more when the
/// time is over.
fn wait<T>(
    fds: &[RawFd],
    timeout: Option<Duration>,
    look: impl Fn() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let until = deadline(timeout);
    let mut kernel = KERNEL.lock();
    loop {
        let found = look()?;
        if found.is_some() {
            return Ok(found);
        }
        let sleeper = Arc::new(Sleeper::default());
        kernel.polling.push((fds.to_vec(), sleeper.clone()));
        let woken = sleeper.sleep(&mut kernel, until);
        kernel.polling.retain(|(_, other)| !Arc::ptr_eq(other, &sleeper));
        if !woken {
            return look();
        }
    }
}

/// The socket has been shut.
pub(crate) fn changed(fd: RawFd) {
    KERNEL.lock().wake(fd);
}

/// A client comes to this listener.
pub(crate) fn connect(address: &SocketAddr, listener: RawFd) -> UnixStream {
    let mut kernel = KERNEL.lock();
    let client = UnixStream::connect_addr(address).unwrap();
    kernel.wake(listener);
    client
}
