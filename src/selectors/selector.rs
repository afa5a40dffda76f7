//! The selector.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::backend::{Backend, Waiting};
use super::error::{Error, Result};
use super::key::{Key, Ready};
use super::waker::Waker;
use crate::sys::watch::{Told, SELECT_LIMIT};
use crate::sys::Events;

/// Watches descriptors, and tells which are ready. See the [contract](super#contract), and the module for an example.
///
/// It has two descriptors of its own, which go when it is dropped; what is registered stays its owner's, who may close
/// it at any time.
pub struct Selector<T> {
    slots: BTreeMap<RawFd, Slot<T>>,
    waiting: Waiting,
    waker: Waker,
    told: Vec<Told>,
    serial: u32,
}

struct Slot<T> {
    key: Key<T>,
    /// Found closed: not watched any more.
    closed: bool,
}

impl<T> Selector<T> {
    /// With the best back end, which is epoll.
    ///
    /// # Errors
    /// [`Error::System`] where the process has no descriptors left (`EMFILE`, `ENFILE`) or the kernel no memory.
    pub fn new() -> Result<Self> {
        Self::with_backend(Backend::default())
    }

    /// With this back end.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::TooLarge`] for [`Backend::Select`] where all numbers below 1024 are taken.
    pub fn with_backend(backend: Backend) -> Result<Self> {
        let failed = Error::system;
        let waker = Waker::new().map_err(failed("make a selector"))?;
        check_number(backend, waker.fd())?;
        let waiting = Waiting::new(backend, waker.fd()).map_err(failed("make a selector"))?;
        Ok(Self { slots: BTreeMap::new(), waiting, waker, told: Vec::new(), serial: 0 })
    }

    /// The system call that it waits with.
    pub fn backend(&self) -> Backend {
        self.waiting.backend
    }

    /// Watches a descriptor for these events, with this data. To have a socket in its own data, share it:
    /// `register(&*socket, Events::READ, socket.clone())` with an [`Rc`](std::rc::Rc).
    ///
    /// # Errors
    /// [`Error::NoEvents`], [`Error::Registered`], [`Error::NotPollable`], [`Error::TooLarge`], and [`Error::System`]
    /// where the kernel lacks memory or allows no more (`ENOSPC`). None of them leaves a key.
    pub fn register(&mut self, fd: &impl AsFd, events: Events, data: T) -> Result<()> {
        let fd = fd.as_fd().as_raw_fd();
        check_events(fd, events)?;
        check_number(self.backend(), fd)?;
        if self.slots.contains_key(&fd) {
            return Err(Error::Registered { fd });
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.waiting.set.add(fd, events, serial).map_err(|e| Error::of_registering(fd, e))?;
        self.slots.insert(fd, Slot { key: Key { fd, events, data, serial }, closed: false });
        Ok(())
    }

    /// Changes what a descriptor is watched for, and its data; returns the key as it was.
    ///
    /// The same events again need no system call.
    ///
    /// # Errors
    /// As [`set_events`](Self::set_events); the old data, too, is then gone where the key is.
    pub fn modify(&mut self, fd: &impl AsRawFd, events: Events, data: T) -> Result<Key<T>> {
        let fd = fd.as_raw_fd();
        let before = self.get_key(&fd).ok_or(Error::NotRegistered { fd })?.events;
        self.set_events(&fd, events)?;
        let key = &mut self.slots.get_mut(&fd).ok_or(Error::NotRegistered { fd })?.key;
        Ok(Key { fd, events: before, data: std::mem::replace(&mut key.data, data), serial: key.serial })
    }

    /// Changes what a descriptor is watched for. The same events again need no system call.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::NoEvents`], which changes nothing; [`Error::Closed`] and [`Error::System`],
    /// after which it is registered no more.
    pub fn set_events(&mut self, fd: &impl AsRawFd, events: Events) -> Result<()> {
        let fd = fd.as_raw_fd();
        let slot = self.slots.get_mut(&fd).ok_or(Error::NotRegistered { fd })?;
        check_events(fd, events)?;
        if slot.key.events == events {
            return Ok(());
        }
        let changed = match self.waiting.set.arm(fd, events, slot.key.serial) {
            Err(errno) => Err(Error::of_modifying(fd, errno)),
            Ok(()) if slot.closed => Err(Error::Closed { fd }),
            Ok(()) => Ok(()),
        };
        slot.key.events = events;
        if changed.is_err() {
            drop(self.unregister(&fd));
        }
        changed
    }

    /// Watches it no more, and hands its key back. It may have been closed before, and its number may be another's.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub fn unregister(&mut self, fd: &impl AsRawFd) -> Result<Key<T>> {
        let fd = fd.as_raw_fd();
        let slot = self.slots.remove(&fd).ok_or(Error::NotRegistered { fd })?;
        self.waiting.set.remove(fd);
        Ok(slot.key)
    }

    /// The key of a descriptor; `None` where it is not registered.
    pub fn get_key(&self, fd: &impl AsRawFd) -> Option<&Key<T>> {
        self.slots.get(&fd.as_raw_fd()).map(|slot| &slot.key)
    }

    /// The data of a descriptor, to be changed; `None` where it is not registered.
    pub fn data_mut(&mut self, fd: &impl AsRawFd) -> Option<&mut T> {
        self.slots.get_mut(&fd.as_raw_fd()).map(|slot| &mut slot.key.data)
    }

    /// The key that was told as ready; `None` where it has been unregistered since, whoever has its number now.
    pub fn key(&self, ready: &Ready) -> Option<&Key<T>> {
        self.get_key(ready).filter(|key| key.serial == ready.serial)
    }

    /// Whether this registration still stands; `false` also where its number has been registered anew.
    pub fn is_current(&self, key: &Key<T>) -> bool {
        self.get_key(key).is_some_and(|now| now.serial == key.serial)
    }

    /// The registered keys, in the order of their numbers.
    pub fn keys(&self) -> impl Iterator<Item = &Key<T>> {
        self.slots.values().map(|slot| &slot.key)
    }

    /// How many descriptors are registered.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is registered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What ends a wait of this selector from elsewhere.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The epoll descriptor, readable while a registered one is ready, so that it can be watched by another event
    /// loop; `None` with the other back ends, which have none (Python's `fileno`).
    pub fn epoll_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.backend() == Backend::Epoll).then(|| self.waiting.set.as_fd())
    }

    /// Waits until a descriptor is ready, the timeout has passed, or a [`Waker`] wakes it, and returns copies of the
    /// keys that are ready, each with what it is ready for; empty after a timeout.
    ///
    /// # Errors
    /// [`Error::System`] where the system call fails. A signal is no error, nor is a descriptor that was closed.
    pub fn select(&mut self, timeout: Option<Duration>) -> Result<Vec<(Key<T>, Events)>>
    where
        T: Clone,
    {
        let mut ready = Vec::new();
        self.select_into(&mut ready, timeout)?;
        Ok(ready.iter().filter_map(|r| Some((self.key(r)?.clone(), r.events))).collect())
    }

    /// As [`select`](Self::select), for any data and without an allocation once the list has grown: what was in it
    /// goes, and [`key`](Self::key) gives the keys of what is in it then.
    ///
    /// ```
    /// use std::{io::Write, os::unix::net::UnixStream, time::Duration};
    /// use socketserver::selectors::{Events, Selector};
    ///
    /// let (mut ours, theirs) = UnixStream::pair()?;
    /// let mut selector = Selector::new()?;
    /// selector.register(&theirs, Events::READ, "theirs".to_owned())?;
    /// ours.write_all(b"!")?;
    ///
    /// let mut ready = Vec::new();
    /// selector.select_into(&mut ready, Some(Duration::from_secs(10)))?;
    /// for one in &ready {
    ///     assert_eq!(selector.key(one).unwrap().data, "theirs");
    ///     selector.unregister(one)?;
    /// }
    /// assert_eq!(ready.len(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn select_into(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<()> {
        ready.clear();
        // A time beyond what the clock can tell is for ever.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let woken = self.wait_once(left, ready)?;
            if woken || !ready.is_empty() || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(());
            }
        }
    }

    /// One system call's wait; whether the waker has ended it.
    fn wait_once(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> Result<bool> {
        let mut all = std::mem::take(&mut self.told); // put back below, for its memory
        all.clear();
        let watched = self.slots.values().filter(|slot| !slot.closed).map(|slot| (slot.key.fd, slot.key.events));
        let waited = self.waiting.wait(self.waker.fd(), watched, self.slots.len(), timeout, &mut all);
        waited.map_err(Error::system("wait for descriptors"))?;
        let mut woken = false;
        for told in &all {
            if told.fd == self.waker.fd() {
                woken |= !told.events.is_empty();
            } else {
                ready.extend(self.confirm(told));
            }
        }
        self.told = all;
        if woken {
            self.waker.clear();
        }
        Ok(woken)
    }

    /// Arms what was told for the next wait; nothing where it is of an earlier registration, or the number has not its
    /// file any more.
    fn confirm(&mut self, told: &Told) -> Option<Ready> {
        let slot = self.slots.get_mut(&told.fd)?;
        let Key { fd, events, serial, .. } = slot.key;
        if told.serial.is_some_and(|s| s != serial) {
            return None;
        }
        slot.closed = self.waiting.set.arm(fd, events, serial).is_err();
        let events = told.events & events;
        (!slot.closed && !events.is_empty()).then_some(Ready { fd, events, serial })
    }
}

fn check_events(fd: RawFd, events: Events) -> Result<()> {
    if events.is_empty() {
        return Err(Error::NoEvents { fd });
    }
    Ok(())
}

fn check_number(backend: Backend, fd: RawFd) -> Result<()> {
    if backend == Backend::Select && fd >= SELECT_LIMIT {
        return Err(Error::TooLarge { fd });
    }
    Ok(())
}

impl<T: fmt::Debug> fmt::Debug for Selector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.keys().collect();
        f.debug_struct("Selector").field("backend", &self.backend()).field("keys", &keys).finish_non_exhaustive()
    }
}
