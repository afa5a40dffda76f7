//! [`Control`]: the request to stop or to pause, and the eventfds that announce it.
//!
//! Every wait in the crate is a wait for a descriptor. A stop may come from a signal handler, and `write` on
//! a descriptor is async-signal-safe; notifying a condition variable is not. No thread polls a flag by the
//! clock.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::SeqCst};
use crate::sync::now;
use crate::sys::process::{self, Private};
use crate::sys::shared::SharedRef;
use crate::sys::EventFd;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const NOW: u8 = 2;

/// The stop and the pause as they stand, in memory that forked children see too.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    level: AtomicU8,
    paused: AtomicBool,
    /// The number of calls of `resume`.
    resumed: AtomicU64,
    /// True if a thread has woken the idle connections for this stop.
    woken: AtomicBool,
    /// True if a thread has also woken the connections that wait for their first request.
    all_woken: AtomicBool,
    /// True if the drain limit has passed and connections are cut.
    cut: AtomicBool,
    /// True if a run has ended by this stop. The next run then starts afresh.
    obeyed: AtomicBool,
    /// The time of the first request to stop: nanoseconds after the control's epoch, plus one. Zero before a
    /// request.
    stopped_at: AtomicU64,
}

/// Requests a stop or a pause, and wakes the threads that wait. Each eventfd wakes other threads.
#[derive(Debug)]
pub(crate) struct Control {
    state: SharedRef<StopState>,
    /// The master's control. Its pause holds for the workers too.
    master: Option<Arc<Control>>,
    epoch: Instant,
    /// True if this is a forked child. A child keeps `stop` alone of the descriptors below.
    in_child: AtomicBool,
    /// Readable from the request to stop until the next run, for all threads. Every wait includes it.
    pub(crate) stop: Private<EventFd>,
    /// Readable from the urgent stop until the next run. Threads that know of the stop already wait for it.
    pub(crate) now: Private<EventFd>,
    /// Set for the thread at the gate: a permit came back, the limit rose, or accepting resumed.
    pub(crate) gate: Private<EventFd>,
    /// Set for the thread that supervises or drains: a connection or a worker ended, the limit was changed,
    /// or the stop became urgent.
    pub(crate) events: Private<EventFd>,
    /// In a worker: readable while waiting threads hold more permits than the limit allows.
    pub(crate) recall: Option<Private<EventFd>>,
}

impl Control {
    pub(crate) fn new(state: SharedRef<StopState>, master: Option<Arc<Control>>) -> io::Result<Self> {
        let event_fd = || EventFd::new().map(Private::new);
        let recall = master.as_ref().map(|_| event_fd()).transpose()?;
        Ok(Self {
            state,
            epoch: master.as_ref().map_or_else(now, |master| master.epoch),
            master,
            in_child: AtomicBool::new(false),
            stop: event_fd()?,
            now: event_fd()?,
            gate: event_fd()?,
            events: event_fd()?,
            recall,
        })
    }

    /// Makes a control without a server.
    #[cfg(test)]
    pub(crate) fn apart() -> Self {
        let whole = Arc::new(crate::sys::shared::Shared::<super::shared_state::SharedState>::new().unwrap());
        Self::new(SharedRef::new(&whole, |whole| &whole.stop), None).unwrap()
    }

    /// Closes the descriptors of all servers in a forked child. It keeps this server's `stop`, the master's
    /// eventfds, and the socket that a datagram is replied from.
    pub(crate) fn become_child(&self, shared: Option<BorrowedFd<'_>>) {
        self.in_child.store(true, SeqCst);
        let masters = self.master.iter().flat_map(|master| master.descriptors());
        let kept: Vec<_> = masters.chain([&self.stop]).map(AsFd::as_fd).chain(shared).collect();
        process::close_private(&kept);
    }

    /// Returns this control, and the master's if there is one.
    pub(crate) fn with_master(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.master.as_deref()].into_iter().flatten()
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Private<EventFd>> {
        [&self.stop, &self.now, &self.gate, &self.events].into_iter().chain(&self.recall)
    }

    /// Returns the eventfd of the urgent stop. A forked child has none: its parent ends it instead.
    pub(crate) fn urgent(&self) -> Option<BorrowedFd<'_>> {
        (!self.in_child()).then(|| self.now.as_fd())
    }

    pub(crate) fn in_child(&self) -> bool {
        self.in_child.load(SeqCst)
    }

    /// Wakes the thread at the gate.
    pub(crate) fn wake_gate(&self) {
        if !self.in_child() {
            self.gate.set();
        }
    }

    /// Wakes the thread that supervises or drains.
    pub(crate) fn wake_supervisor(&self) {
        if !self.in_child() {
            self.events.set();
        }
    }

    /// Asks waiting threads to give reserved permits back, while `still` more are held than the limit allows.
    pub(crate) fn recall_permits(&self, still: bool) {
        let Some(recall) = self.recall.as_ref().filter(|_| !self.in_child()) else { return };
        if still {
            recall.set();
        } else {
            recall.clear();
        }
    }

    /// Returns `at` in milliseconds after the server was made. Children write times for their parent so.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// Requests a drain. Async-signal-safe. It does not wait: it may be called in a handler, which a wait
    /// would deadlock.
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
            let _ = self.state.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            // The state comes before the eventfds: a thread that is woken must find it.
            self.state.level.fetch_max(level, SeqCst);
            // In a child the parent's `now` is closed, and its number may be another file.
            if level == NOW && !self.in_child() {
                self.now.set();
            }
            self.stop.set();
            self.wake_supervisor();
            // A run that began in between may have cleared a part of this. Then once more, for that run.
            if self.state.level.load(SeqCst) >= level && self.state.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.state.level.load(SeqCst) != RUN
    }

    /// True if the stop leaves connections no time.
    pub(crate) fn is_urgent(&self) -> bool {
        self.state.level.load(SeqCst) == NOW
    }

    /// Returns the time at which connections are cut, if a drain may take `limit`. `None` before a stop is
    /// requested.
    pub(crate) fn drain_deadline(&self, limit: Duration) -> Option<Instant> {
        match (self.state.stopped_at.load(SeqCst), self.state.level.load(SeqCst)) {
            (0, _) | (_, RUN) => None,
            (at, NOW) => Some(self.epoch + Duration::from_nanos(at - 1)),
            (at, _) => (self.epoch + Duration::from_nanos(at - 1)).checked_add(limit),
        }
    }

    /// Returns whether the caller must wake idle connections, and whether it must wake connections that wait
    /// for their first request. One caller gets `true` for each stop. While a worker ends `alone`, no caller
    /// gets the second.
    pub(crate) fn first_to_wake(&self, alone: bool) -> (bool, bool) {
        let first = |woken: &AtomicBool| !woken.load(SeqCst) && !woken.swap(true, SeqCst);
        (first(&self.state.woken), !alone && first(&self.state.all_woken))
    }

    /// Marks the cut. A connection that ends later counts as cut.
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, SeqCst);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state.cut.load(SeqCst)
    }

    pub(crate) fn pause(&self) {
        self.state.paused.store(true, SeqCst);
    }

    pub(crate) fn resume(&self) {
        self.state.paused.store(false, SeqCst);
        self.state.resumed.fetch_add(1, SeqCst);
        self.wake_gate();
    }

    /// Returns the number of calls of `resume`, on this server and its master.
    pub(crate) fn resumes(&self) -> u64 {
        self.with_master().map(|control| control.state.resumed.load(SeqCst)).sum()
    }

    pub(crate) fn paused(&self) -> bool {
        self.with_master().any(|control| control.state.paused.load(SeqCst))
    }

    /// Begins a run. A stop that an earlier run has obeyed is over. A stop that came before any run still
    /// holds, or the server would never end.
    pub(crate) fn begin(&self) {
        if self.state.obeyed.swap(false, SeqCst) {
            // The state first, then the eventfds: `raise_to` sets them in the same order, and looks again.
            self.state.level.store(RUN, SeqCst);
            self.state.stopped_at.store(0, SeqCst);
            self.state.woken.store(false, SeqCst);
            self.state.all_woken.store(false, SeqCst);
            self.state.cut.store(false, SeqCst);
            self.stop.clear();
            self.now.clear();
            self.events.clear();
            // A request that came in between is for this run. Its eventfds may have been cleared: set them
            // again.
            match self.state.level.load(SeqCst) {
                RUN => {}
                level => self.raise_to(level),
            }
        }
    }

    /// Ends a run. A stop that is set now has been obeyed: a late second request then changes nothing.
    pub(crate) fn end(&self) {
        self.state.obeyed.store(self.stopping(), SeqCst);
    }
}

impl StopState {
    /// Resets the state for a new worker. The former worker has ended.
    pub(crate) fn clear(&self) {
        self.level.store(RUN, SeqCst);
        self.stopped_at.store(0, SeqCst);
        [&self.paused, &self.woken, &self.all_woken, &self.cut, &self.obeyed]
            .into_iter()
            .for_each(|on| on.store(false, SeqCst));
    }
}

#[cfg(test)]
mod tests;
