//! The switch of a server. Everything that waits, waits for a descriptor, so that a signal handler can turn it.

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

/// The positions of the switch, which children see too.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    level: AtomicU8,
    paused: AtomicBool,
    /// How often accepting was resumed.
    resumed: AtomicU64,
    /// Whether idle connections have been told of the stop.
    woken: AtomicBool,
    all_woken: AtomicBool,
    /// Whether the drain limit has passed and connections are cut.
    cut: AtomicBool,
    /// Whether a run has ended by the stop that is set: the next run then starts afresh.
    obeyed: AtomicBool,
    /// Nanoseconds after the control's epoch, plus one; zero while nobody has asked for a stop.
    stopped_at: AtomicU64,
}

/// Asks for a stop or a pause, and wakes whoever waits.
#[derive(Debug)]
pub(crate) struct Control {
    state: SharedRef<StopState>,
    /// Of the master, whose pause holds for its workers too.
    master: Option<Arc<Control>>,
    epoch: Instant,
    /// Whether this is a forked child, which keeps `stop` alone of the descriptors below.
    in_child: AtomicBool,
    /// Readable from the request to stop until the next run: every wait includes it.
    pub(crate) stop: Private<EventFd>,
    /// Readable once the stop has become urgent: for who watches the switch himself and knows of the stop.
    pub(crate) now: Private<EventFd>,
    /// Rung for the one who waits at the gate: a permit came back, the limit rose, accepting resumed.
    pub(crate) gate: Private<EventFd>,
    /// Rung for the thread that supervises: a connection or a worker ended, the stop became urgent.
    pub(crate) events: Private<EventFd>,
    /// In a worker: readable while those who wait keep more places than there are now.
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

    /// A control by itself.
    #[cfg(test)]
    pub(crate) fn apart() -> Self {
        let whole = Arc::new(crate::sys::shared::Shared::<super::shared_state::SharedState>::new().unwrap());
        Self::new(SharedRef::new(&whole, |whole| &whole.stop), None).unwrap()
    }

    /// In a forked child: lets go of all descriptors of all servers, but for this one's `stop`, its master's, and the
    /// socket that a datagram is replied from.
    pub(crate) fn become_child(&self, shared: Option<BorrowedFd<'_>>) {
        self.in_child.store(true, SeqCst);
        let masters = self.master.iter().flat_map(|master| master.descriptors());
        let kept: Vec<_> = masters.chain([&self.stop]).map(AsFd::as_fd).chain(shared).collect();
        process::close_private(&kept);
    }

    /// This one, and its master's.
    pub(crate) fn with_master(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.master.as_deref()].into_iter().flatten()
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Private<EventFd>> {
        [&self.stop, &self.now, &self.gate, &self.events].into_iter().chain(&self.recall)
    }

    /// What becomes readable when the stop becomes urgent. A child does not have it: its parent ends it then.
    pub(crate) fn urgent(&self) -> Option<BorrowedFd<'_>> {
        (!self.in_child()).then(|| self.now.as_fd())
    }

    pub(crate) fn in_child(&self) -> bool {
        self.in_child.load(SeqCst)
    }

    /// Wakes the one at the gate.
    pub(crate) fn wake_gate(&self) {
        if !self.in_child() {
            self.gate.set();
        }
    }

    /// Wakes the supervisor.
    pub(crate) fn wake_supervisor(&self) {
        if !self.in_child() {
            self.events.set();
        }
    }

    /// Has those who wait give back the places that there are no more; `still`: some are left.
    pub(crate) fn recall_permits(&self, still: bool) {
        let Some(recall) = self.recall.as_ref().filter(|_| !self.in_child()) else { return };
        if still {
            recall.set();
        } else {
            recall.clear();
        }
    }

    /// Milliseconds since the server was made, for times that children tell their parent.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
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
            let _ = self.state.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            self.state.level.fetch_max(level, SeqCst);
            if level == NOW && !self.in_child() {
                self.now.set();
            }
            self.stop.set();
            self.wake_supervisor();
            // A run that has begun in between has taken some of this away: once more, for that run.
            if self.state.level.load(SeqCst) >= level && self.state.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.state.level.load(SeqCst) != RUN
    }

    /// Whether the stop leaves connections no time.
    pub(crate) fn is_urgent(&self) -> bool {
        self.state.level.load(SeqCst) == NOW
    }

    /// When connections are cut, for a drain that may take `limit`; `None` while no stop was asked for.
    pub(crate) fn drain_deadline(&self, limit: Duration) -> Option<Instant> {
        match (self.state.stopped_at.load(SeqCst), self.state.level.load(SeqCst)) {
            (0, _) | (_, RUN) => None,
            (at, NOW) => Some(self.epoch + Duration::from_nanos(at - 1)),
            (at, _) => (self.epoch + Duration::from_nanos(at - 1)).checked_add(limit),
        }
    }

    /// Whether the caller is the one to tell idle connections of the stop; and those that wait for their first request,
    /// which are spared while a worker ends alone.
    pub(crate) fn first_to_wake(&self, alone: bool) -> (bool, bool) {
        let first = |woken: &AtomicBool| !woken.load(SeqCst) && !woken.swap(true, SeqCst);
        (first(&self.state.woken), !alone && first(&self.state.all_woken))
    }

    /// From here on, what ends was cut.
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

    /// How often accepting was resumed, by this server and its master.
    pub(crate) fn resumes(&self) -> u64 {
        self.with_master().map(|control| control.state.resumed.load(SeqCst)).sum()
    }

    pub(crate) fn paused(&self) -> bool {
        self.with_master().any(|control| control.state.paused.load(SeqCst))
    }

    /// A run begins: a stop that an earlier run has obeyed is over, one that nobody has obeyed yet still holds.
    pub(crate) fn begin(&self) {
        if self.state.obeyed.swap(false, SeqCst) {
            self.state.level.store(RUN, SeqCst);
            self.state.stopped_at.store(0, SeqCst);
            self.state.woken.store(false, SeqCst);
            self.state.all_woken.store(false, SeqCst);
            self.state.cut.store(false, SeqCst);
            self.stop.clear();
            self.now.clear();
            self.events.clear();
            // A request that came in between is for this run, and must show.
            match self.state.level.load(SeqCst) {
                RUN => {}
                level => self.raise_to(level),
            }
        }
    }

    /// A run has ended.
    pub(crate) fn end(&self) {
        self.state.obeyed.store(self.stopping(), SeqCst);
    }
}

impl StopState {
    /// For a new worker; the former one is gone.
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
