//! The parked connections, by descriptor.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::{Lot, Visit};
use crate::listen::Listener;
use crate::sync::atomic::{AtomicU64, Ordering::SeqCst};
use crate::sync::{now, Mutex, MutexGuard};

/// Threads that park different connections seldom meet at one lock.
const SHARDS: usize = 16;

/// Limits of parked connections are looked at no more often than this. Connections with close limits then cost one
/// look together.
const GRAIN: u64 = 20;

const NEVER: u64 = u64::MAX;

/// A place for the connection with one descriptor.
#[derive(Debug)]
pub(super) struct Place {
    /// The time at which a limit ends its wait, in milliseconds of the server.
    until: u64,
    visit: Option<Box<Visit>>,
}

#[derive(Debug, Default)]
pub(super) struct Places([CachePadded<Mutex<Vec<Place>>>; SHARDS]);

/// Why a connection is not parked.
pub(super) enum NotParked {
    /// Another thread has sent a message through it, or the stop ends it.
    Wanted,
    /// The run is over: nobody would take it up.
    Over,
    /// The system refuses.
    Failed(io::Error),
}

impl Places {
    fn shard(&self, fd: RawFd) -> (MutexGuard<'_, Vec<Place>>, usize) {
        let fd = usize::try_from(fd).unwrap_or(0);
        (self.0[fd % SHARDS].lock(), fd / SHARDS)
    }

    /// True if a connection is parked there, and nobody else has had it taken up.
    pub(super) fn mark_poked(&self, fd: RawFd) -> bool {
        let (mut shard, index) = self.shard(fd);
        shard.get_mut(index).and_then(|place| place.visit.as_mut()).is_some_and(|visit| visit.mark_poked())
    }

    /// Calls `each` with each parked connection of one shard: its descriptor, and its limit.
    fn for_each(&self, number: usize, mut each: impl FnMut(RawFd, &mut Place)) {
        for (index, place) in self.0[number].lock().iter_mut().enumerate().filter(|(_, place)| place.visit.is_some()) {
            each((index * SHARDS + number) as RawFd, place);
        }
    }
}

impl Lot {
    /// Leaves a connection here until something comes.
    pub(super) fn park(self: &Arc<Self>, visit: Box<Visit>) -> Result<(), (Box<Visit>, NotParked)> {
        let fd = visit.fd();
        visit.connection().poke_by(|| {
            let lot: Weak<Self> = Arc::downgrade(self);
            lot
        });
        let until = visit.until().map_or(NEVER, |at| self.core.control.millis(at) + 1);
        let (mut shard, index) = self.places.shard(fd);
        // Under the lock: a sender queues first, and looks here then. So do a stop, and the end of the run.
        if visit.connection().has_messages() {
            return Err((visit, NotParked::Wanted));
        }
        if self.is_over.load(SeqCst) {
            return Err((visit, NotParked::Over));
        }
        if visit.is_stopping() {
            return Err((visit, NotParked::Wanted));
        }
        if shard.len() <= index {
            shard.resize_with(index + 1, || Place { until: NEVER, visit: None });
        }
        self.core.admission.permits.park();
        let place = &mut shard[index];
        place.until = until;
        let visit = place.visit.insert(visit);
        // Under the lock too: the thread that takes the connection up may close its descriptor.
        if let Err(e) = visit.watch(&self.set, fd as u64) {
            self.core.admission.permits.unpark();
            return place.visit.take().map_or(Ok(()), |visit| Err((visit, NotParked::Failed(e))));
        }
        drop(shard);
        self.clock.wake_at(until, self);
        Ok(())
    }

    /// Takes a connection up.
    pub(super) fn take(&self, fd: RawFd) -> Option<Box<Visit>> {
        let (mut shard, index) = self.places.shard(fd);
        let visit = shard.get_mut(index)?.visit.take()?;
        drop(shard);
        self.note_taken();
        Some(visit)
    }

    fn note_taken(&self) {
        if self.core.admission.permits.unpark() && self.core.control.stopping() {
            self.leave.set();
        }
    }

    /// Takes the parked connections of one shard for which this is true.
    #[allow(clippy::vec_box)] // they are boxed already, and a move would copy them
    pub(super) fn take_if(&self, shard: usize, mut taken: impl FnMut(&Visit) -> bool) -> Vec<Box<Visit>> {
        let mut all = Vec::new();
        self.places.for_each(shard, |_, place| {
            if place.visit.as_deref().is_some_and(&mut taken) {
                all.extend(place.visit.take());
            }
        });
        all.iter().for_each(|_| self.note_taken());
        all
    }

    pub(super) fn shards() -> std::ops::Range<usize> {
        0..SHARDS
    }

    /// Has the connections taken up whose limit is over. Each tries once more, then fails: what has come in time is
    /// served, although the process was stopped meanwhile.
    pub(super) fn look_at_limits(&self, listeners: &[Listener]) {
        let _looking = self.clock.looking.lock();
        self.clock.earliest.store(NEVER, SeqCst);
        self.timer.set(None);
        let now = self.now();
        let mut next = self.end_rests(now, listeners);
        for shard in Self::shards() {
            self.places.for_each(shard, |fd, place| {
                if place.until > now {
                    next = next.min(place.until);
                } else if place.visit.as_mut().is_some_and(|visit| visit.mark_poked()) {
                    self.ring_for(fd);
                }
            });
        }
        if next != NEVER {
            self.set_timer(next.max(now + GRAIN));
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.core.control.millis(now())
    }

    /// Sets the timer, under the lock of the clock.
    fn set_timer(&self, at: u64) {
        self.clock.earliest.store(at, SeqCst);
        self.timer.set(Some(Duration::from_millis(at.saturating_sub(self.now()))));
    }
}

/// The time for which the timer is set.
#[derive(Debug)]
pub(super) struct Clock {
    earliest: AtomicU64,
    looking: Mutex<()>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { earliest: AtomicU64::new(NEVER), looking: Mutex::default() }
    }
}

impl Clock {
    /// Sets the timer to `at`, if it is set for later.
    pub(super) fn wake_at(&self, at: u64, lot: &Lot) {
        if at < self.earliest.load(SeqCst) {
            let _looking = self.looking.lock();
            if at < self.earliest.load(SeqCst) {
                lot.set_timer(at);
            }
        }
    }
}
