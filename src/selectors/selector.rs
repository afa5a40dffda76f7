//! [`Selector`].

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

/// Watches descriptors, and returns those that are ready. See the [contract](super#contract), and the module
/// for an example.
///
/// It has two descriptors of its own, which its drop closes. A registered descriptor still belongs to its
/// owner, which may close it at any time.
pub struct Selector<T> {
    slots: BTreeMap<RawFd, Slot<T>>,
    waiting: Waiting,
    waker: Waker,
    told: Vec<Told>,
    serial: u32,
}

struct Slot<T> {
    key: Key<T>,
    /// True if it was found closed. It is no longer watched.
    closed: bool,
}

impl<T> Selector<T> {
    /// Makes a selector with the best back end, which is epoll.
    ///
    /// # Errors
    /// [`Error::System`] if the process has no descriptors left (`EMFILE`, `ENFILE`), or the kernel no
    /// memory.
    pub fn new() -> Result<Self> {
        Self::with_backend(Backend::default())
    }

    /// Makes a selector with this back end.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::TooLarge`] for [`Backend::Select`] if all numbers below 1024 are
    /// taken.
    pub fn with_backend(backend: Backend) -> Result<Self> {
        let failed = Error::system;
        let waker = Waker::new().map_err(failed("make a selector"))?;
        check_number(backend, waker.fd())?;
        let waiting = Waiting::new(backend, waker.fd()).map_err(failed("make a selector"))?;
        Ok(Self { slots: BTreeMap::new(), waiting, waker, told: Vec::new(), serial: 0 })
    }

    /// Returns the system call that it waits with.
    pub fn backend(&self) -> Backend {
        self.waiting.backend
    }

    /// Watches a descriptor for these events, with this data. To keep a socket in its own data, share it:
    /// `register(&*socket, Events::READ, socket.clone())` with an [`Rc`](std::rc::Rc).
    ///
    /// # Errors
    /// [`Error::NoEvents`], [`Error::Registered`], [`Error::NotPollable`], [`Error::TooLarge`];
    /// [`Error::System`] if the kernel lacks memory or allows no more (`ENOSPC`). None of them leaves a key.
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

    /// Changes the events and the data of a descriptor, and returns the former key. The same events need no
    /// system call.
    ///
    /// # Errors
    /// As [`set_events`](Self::set_events). If the descriptor is unregistered then, its data is dropped too.
    pub fn modify(&mut self, fd: &impl AsRawFd, events: Events, data: T) -> Result<Key<T>> {
        let fd = fd.as_raw_fd();
        let before = self.get_key(&fd).ok_or(Error::NotRegistered { fd })?.events;
        self.set_events(&fd, events)?;
        let key = &mut self.slots.get_mut(&fd).ok_or(Error::NotRegistered { fd })?.key;
        Ok(Key { fd, events: before, data: std::mem::replace(&mut key.data, data), serial: key.serial })
    }

    /// Changes the events of a descriptor. The same events need no system call.
    ///
    /// # Errors
    /// [`Error::NotRegistered`]; [`Error::NoEvents`], which changes nothing; [`Error::Closed`] and
    /// [`Error::System`], which leave it unregistered.
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

    /// Stops watching a descriptor, and returns its key. The descriptor may have been closed before, and
    /// another file may have its number.
    ///
    /// # Errors
    /// [`Error::NotRegistered`].
    pub fn unregister(&mut self, fd: &impl AsRawFd) -> Result<Key<T>> {
        let fd = fd.as_raw_fd();
        let slot = self.slots.remove(&fd).ok_or(Error::NotRegistered { fd })?;
        self.waiting.set.remove(fd);
        Ok(slot.key)
    }

    /// Returns the key of a descriptor. `None` if it is not registered.
    pub fn get_key(&self, fd: &impl AsRawFd) -> Option<&Key<T>> {
        self.slots.get(&fd.as_raw_fd()).map(|slot| &slot.key)
    }

    /// Returns the data of a descriptor, for a change. `None` if it is not registered.
    pub fn data_mut(&mut self, fd: &impl AsRawFd) -> Option<&mut T> {
        self.slots.get_mut(&fd.as_raw_fd()).map(|slot| &mut slot.key.data)
    }

    /// Returns the key of a ready descriptor. `None` if it has been unregistered since, even if another
    /// descriptor has its number now.
    pub fn key(&self, ready: &Ready) -> Option<&Key<T>> {
        self.get_key(ready).filter(|key| key.serial == ready.serial)
    }

    /// True if this registration still stands. False also if its number has been registered anew.
    pub fn is_current(&self, key: &Key<T>) -> bool {
        self.get_key(key).is_some_and(|now| now.serial == key.serial)
    }

    /// Returns the registered keys, in the order of their numbers.
    pub fn keys(&self) -> impl Iterator<Item = &Key<T>> {
        self.slots.values().map(|slot| &slot.key)
    }

    /// Returns the number of registered descriptors.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// True if no descriptor is registered.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns a handle with which another thread ends a wait of this selector.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns the epoll descriptor, for another event loop (Python's `fileno`). It is readable while a
    /// registered descriptor is ready. `None` with the other back ends.
    pub fn epoll_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.backend() == Backend::Epoll).then(|| self.waiting.set.as_fd())
    }

    /// Waits until a descriptor is ready, the timeout has passed, or a [`Waker`] wakes it. Returns copies of
    /// the ready keys, each with its events; an empty list after a timeout.
    ///
    /// # Errors
    /// [`Error::System`] if the system call fails. A signal is no error, nor is a closed descriptor.
    pub fn select(&mut self, timeout: Option<Duration>) -> Result<Vec<(Key<T>, Events)>>
    where
        T: Clone,
    {
        let mut ready = Vec::new();
        self.select_into(&mut ready, timeout)?;
        Ok(ready.iter().filter_map(|r| Some((self.key(r)?.clone(), r.events))).collect())
    }

    /// As [`select`](Self::select), also for data that cannot be cloned, and without an allocation once the list has
    /// grown. It replaces the contents of the list. [`key`](Self::key) returns the key of an entry.
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
    /// As [`select`](Self::select).
    pub fn select_into(&mut self, ready: &mut Vec<Ready>, timeout: Option<Duration>) -> Result<()> {
        ready.clear();
        // A time that the clock cannot count means for ever.
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            // A signal, or a report that was not confirmed, ends a wait early: go on with the time left.
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let woken = self.wait_once(left, ready)?;
            if woken || !ready.is_empty() || end.is_some_and(|end| end <= Instant::now()) {
                return Ok(());
            }
        }
    }

    /// Waits by one system call. True if the waker has ended the wait.
    fn wait_once(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> Result<bool> {
        // Put back below, so that its memory is used again.
        let mut all = std::mem::take(&mut self.told);
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

    /// Arms a reported entry for the next wait. `None` if the report is from an earlier registration, or if
    /// the number no longer has its file.
    fn confirm(&mut self, told: &Told) -> Option<Ready> {
        let slot = self.slots.get_mut(&told.fd)?;
        let Key { fd, events, serial, .. } = slot.key;
        if told.serial.is_some_and(|s| s != serial) {
            return None;
        }
        // Entries report once. So an entry that outlives its descriptor (a duplicate keeps the file open)
        // reports once and is silent then, and does not end every wait. Only a change of an entry knows
        // whether the number still has its file. Price: one system call for each reported descriptor.
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
