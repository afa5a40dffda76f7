//! The switch of a server. Everything that waits, waits for a descriptor, so that a signal handler can turn it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::sys::EventFd;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const NOW: u8 = 2;

/// Asks for a stop or a pause, and wakes whoever waits.
#[derive(Debug)]
pub(crate) struct Control {
    level: AtomicU8,
    paused: AtomicBool,
    /// Whether the drain limit has passed and connections are cut.
    cut: AtomicBool,
    /// Whether a run has ended by the stop that is set: the next run then starts afresh.
    obeyed: AtomicBool,
    epoch: Instant,
    /// Nanoseconds after `epoch`, plus one; zero while nobody has asked for a stop.
    stopped_at: AtomicU64,
    /// Readable from the request to stop until the next run: every wait includes it.
    pub(crate) stop: EventFd,
    /// Readable once the stop has become urgent: for who watches the switch himself and knows of the stop.
    pub(crate) now: EventFd,
    /// Rung for the one who waits at the gate: a permit came back, the limit rose, accepting resumed.
    pub(crate) gate: EventFd,
    /// Rung for the thread that supervises: a connection or a worker ended, the stop became urgent.
    pub(crate) events: EventFd,
}

impl Control {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            level: AtomicU8::new(RUN),
            paused: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            obeyed: AtomicBool::new(false),
            epoch: Instant::now(),
            stopped_at: AtomicU64::new(0),
            stop: EventFd::new()?,
            now: EventFd::new()?,
            gate: EventFd::new()?,
            events: EventFd::new()?,
        })
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
        let nanos = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        loop {
            let _ = self.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            self.level.fetch_max(level, SeqCst);
            if level == NOW {
                self.now.set();
            }
            self.stop.set();
            self.events.set();
            // A run that has begun in between has taken some of this away: once more, for that run.
            if self.stopping() && self.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.level.load(SeqCst) != RUN
    }

    /// When connections are cut, for a drain that may take `limit`; `None` while no stop was asked for.
    pub(crate) fn drain_deadline(&self, limit: Duration) -> Option<Instant> {
        match (self.stopped_at.load(SeqCst), self.level.load(SeqCst)) {
            (0, _) | (_, RUN) => None,
            (at, NOW) => Some(self.epoch + Duration::from_nanos(at - 1)),
            (at, _) => (self.epoch + Duration::from_nanos(at - 1)).checked_add(limit),
        }
    }

    /// From here on, what ends was cut.
    pub(crate) fn cut(&self) {
        self.cut.store(true, SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    pub(crate) fn pause(&self) {
        self.paused.store(true, SeqCst);
    }

    pub(crate) fn resume(&self) {
        self.paused.store(false, SeqCst);
        self.gate.set();
    }

    pub(crate) fn paused(&self) -> bool {
        self.paused.load(SeqCst)
    }

    /// A run begins: a stop that an earlier run has obeyed is over, one that nobody has obeyed yet still holds.
    pub(crate) fn begin(&self) {
        if self.obeyed.swap(false, SeqCst) {
            self.level.store(RUN, SeqCst);
            self.stopped_at.store(0, SeqCst);
            self.cut.store(false, SeqCst);
            self.stop.clear();
            self.now.clear();
            self.events.clear();
            // A request that came in between is for this run, and must show.
            match self.level.load(SeqCst) {
                RUN => {}
                level => self.raise_to(level),
            }
        }
    }

    /// A run has ended.
    pub(crate) fn end(&self) {
        self.obeyed.store(self.stopping(), SeqCst);
    }
}

#[cfg(test)]
mod tests;
