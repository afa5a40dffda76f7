//! The stop of a server, as far as a signal handler turns it: atomics, a clock, and eventfds to wake who waits.
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
    /// Nanoseconds after the switch's epoch, plus one; zero while nobody has asked for a stop.
    stopped_at: AtomicU64,
}

impl StopLevel {
    /// Back to the run.
    pub(crate) fn clear(&self) {
        self.level.store(RUN, SeqCst);
        self.stopped_at.store(0, SeqCst);
    }
}

/// Asks for a stop, and wakes whoever waits.
#[derive(Debug)]
pub(crate) struct StopSwitch {
    level: SharedRef<StopLevel>,
    /// The moment that times in shared memory are counted from.
    pub(crate) epoch: Instant,
    /// True if this is a forked child, which keeps `stop` alone of the descriptors below.
    in_child: AtomicBool,
    /// Readable from the request to stop until the next run: every wait includes it.
    pub(crate) stop: Private<EventFd>,
    /// Readable once the stop has become urgent, for a wait that goes on after the stop.
    pub(crate) now: Private<EventFd>,
    /// Set for the thread that supervises: a connection or a worker ended, the stop became urgent.
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

    /// What becomes readable when the stop becomes urgent. A child does not have it: its parent ends it then.
    pub(crate) fn urgent(&self) -> Option<BorrowedFd<'_>> {
        (!self.in_child()).then(|| self.now.as_fd())
    }

    /// Wakes the supervisor. Async-signal-safe.
    pub(crate) fn ring(&self) {
        if !self.in_child() {
            self.events.set();
        }
    }

    /// Asks for a drain. Async-signal-safe.
    pub(crate) fn request_stop(&self) {
        self.raise_to(DRAIN);
    }

    /// Asks for an end without waiting for connections.
    pub(crate) fn request_stop_now(&self) {
        self.raise_to(NOW);
    }

    fn raise_to(&self, level: u8) {
        let nanos = u64::try_from((now() - self.epoch).as_nanos()).unwrap_or(u64::MAX - 1);
        loop {
            let _ = self.level.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            self.level.level.fetch_max(level, SeqCst);
            if level == NOW && !self.in_child() {
                self.now.set();
            }
            self.stop.set();
            self.ring();
            // A run that has begun in between has taken some of this away: once more, for that run.
            if self.level.level.load(SeqCst) >= level && self.level.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    /// A stop that a run has obeyed is over: first the level goes, then, by [`clear_wakeups`](Self::clear_wakeups), what
    /// shows it.
    pub(crate) fn lower(&self) {
        self.level.clear();
    }

    /// What shows a stop goes, unless one was requested since it was lowered: that is for this run, and must show.
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

    /// When connections are cut, for a drain that may take `limit`; `None` while no stop was asked for.
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
