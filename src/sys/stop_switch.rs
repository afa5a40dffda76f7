//! The stop of a server, as far as a signal handler turns it: atomics, a clock, and eventfds that wake threads.
//!
//! Whatever is called from a handler stands here, and says so: no lock, no allocation, nothing that could panic.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::process::Private;
use super::shared::SharedRef;
use super::EventFd;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::SeqCst};
use crate::sync::now;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const NOW: u8 = 2;

/// How far the stop is. It lies in memory that forked children see too.
#[derive(Debug, Default)]
pub(crate) struct StopLevel {
    level: AtomicU8,
    /// The time of the first request to stop: nanoseconds after the switch's epoch, plus one. Zero before a request.
    stopped_at: AtomicU64,
}

impl StopLevel {
    /// Back to the run.
    pub(crate) fn clear(&self) {
        self.level.store(RUN, SeqCst);
        self.stopped_at.store(0, SeqCst);
    }
}

/// Requests a stop, and wakes the threads that wait. Each eventfd wakes other threads.
#[derive(Debug)]
pub(crate) struct StopSwitch {
    level: SharedRef<StopLevel>,
    /// The moment that times in shared memory are counted from.
    pub(crate) epoch: Instant,
    /// True if this is a forked child, which keeps `stop` alone of the descriptors below.
    in_child: AtomicBool,
    /// Readable from the request to stop until the next run, for all threads. Every wait includes it.
    pub(crate) stop: Private<EventFd>,
    /// Readable from the urgent stop until the next run. Threads that know of the stop already wait for it.
    pub(crate) now: Private<EventFd>,
    /// Set for the thread that supervises or drains: a connection or a worker ended, the limit was changed, or the stop
    /// became urgent.
    pub(crate) events: Private<EventFd>,
}

impl StopSwitch {
    pub(crate) fn new(level: SharedRef<StopLevel>, epoch: Instant) -> io::Result<Self> {
        let event_fd = || EventFd::new().map(Private::new);
        let (stop, now, events) = (event_fd()?, event_fd()?, event_fd()?);
        Ok(Self { level, epoch, in_child: AtomicBool::new(false), stop, now, events })
    }

    /// In a forked child, which closes `now` and `events`.
    pub(crate) fn enter_child(&self) {
        self.in_child.store(true, SeqCst);
    }

    pub(crate) fn in_child(&self) -> bool {
        self.in_child.load(SeqCst)
    }

    /// Returns the eventfd of the urgent stop. A forked child has none: its parent ends it instead.
    pub(crate) fn urgent(&self) -> Option<BorrowedFd<'_>> {
        (!self.in_child()).then(|| self.now.as_fd())
    }

    /// Wakes the thread that supervises or drains. Async-signal-safe.
    pub(crate) fn wake_supervisor(&self) {
        if !self.in_child() {
            self.events.set();
        }
    }

    /// Requests a drain. Async-signal-safe. It does not wait: in a handler a wait would deadlock.
    pub(crate) fn request_stop(&self) {
        self.raise_to(DRAIN);
    }

    /// Requests an urgent stop, which waits for no connection. It also ends a drain in progress.
    pub(crate) fn request_stop_now(&self) {
        self.raise_to(NOW);
    }

    fn raise_to(&self, level: u8) {
        let nanos = u64::try_from((now() - self.epoch).as_nanos()).unwrap_or(u64::MAX - 1);
        loop {
            // The drain limit counts from the first request. A second one must not prolong the drain.
            let _ = self.level.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            // The state comes before the eventfds: a thread that is woken must find it.
            self.level.level.fetch_max(level, SeqCst);
            // In a child the parent's `now` is closed, and its number may be another file.
            if level == NOW && !self.in_child() {
                self.now.set();
            }
            self.stop.set();
            self.wake_supervisor();
            // A run that began in between may have cleared a part of this. Then once more, for that run.
            if self.level.level.load(SeqCst) >= level && self.level.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    /// Ends a stop that a run has obeyed. [`clear_wakeups`](Self::clear_wakeups) follows: `raise_to` sets level and
    /// eventfds in the same order, and looks again.
    pub(crate) fn lower(&self) {
        self.level.clear();
    }

    /// Clears the eventfds. A stop that was requested since [`lower`](Self::lower) is for this run, and sets them again.
    pub(crate) fn clear_wakeups(&self) {
        self.stop.clear();
        self.now.clear();
        self.events.clear();
        match self.level.level.load(SeqCst) {
            RUN => {}
            level => self.raise_to(level),
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.level.level.load(SeqCst) != RUN
    }

    /// True if the stop leaves connections no time.
    pub(crate) fn is_urgent(&self) -> bool {
        self.level.level.load(SeqCst) == NOW
    }

    /// Returns the time at which connections are cut, if a drain may take `limit`. `None` before a stop is requested.
    pub(crate) fn drain_deadline(&self, limit: Duration) -> Option<Instant> {
        match (self.level.stopped_at.load(SeqCst), self.level.level.load(SeqCst)) {
            (0, _) | (_, RUN) => None,
            (at, NOW) => Some(self.epoch + Duration::from_nanos(at - 1)),
            (at, _) => (self.epoch + Duration::from_nanos(at - 1)).checked_add(limit),
        }
    }

    /// Milliseconds since the server was made, for times that children tell their parent.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}
