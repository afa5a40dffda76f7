//! The switch of a server. Everything that waits, waits for a descriptor, so that a signal handler can turn it.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use crate::sync::now;
use crate::sys::process::{self, Private};
use crate::sys::shared::SharedRef;
use crate::sys::stop_switch::{StopLevel, StopSwitch};
use crate::sys::EventFd;

/// The positions of the switch, which children see too.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    level: StopLevel,
    paused: AtomicBool,
    /// How often accepting was resumed.
    resumed: AtomicU64,
    /// True if idle connections have been told of the stop.
    woken: AtomicBool,
    all_woken: AtomicBool,
    /// True if the drain limit has passed and connections are cut.
    cut: AtomicBool,
    /// True if a run has ended by the stop that is set: the next run then starts afresh.
    obeyed: AtomicBool,
}

/// Asks for a stop or a pause, and wakes whoever waits. The stop is its [`StopSwitch`], which signal handlers turn too.
#[derive(Debug)]
pub(crate) struct Control {
    switch: Arc<StopSwitch>,
    state: SharedRef<StopState>,
    /// Of the master, whose pause holds for its workers too.
    master: Option<Arc<Control>>,
    /// Rung for the one who waits at the gate: a permit came back, the limit rose, accepting resumed.
    pub(crate) gate: Private<EventFd>,
    /// In a worker: readable while those who wait keep more places than there are now.
    pub(crate) recall: Option<Private<EventFd>>,
}

impl Control {
    pub(crate) fn new(state: SharedRef<StopState>, master: Option<Arc<Control>>) -> io::Result<Self> {
        let event_fd = || EventFd::new().map(Private::new);
        let recall = master.as_ref().map(|_| event_fd()).transpose()?;
        let epoch = master.as_ref().map_or_else(now, |master| master.epoch);
        let switch = Arc::new(StopSwitch::new(state.map(|state| &state.level), epoch)?);
        Ok(Self { switch, state, master, gate: event_fd()?, recall })
    }

    /// A control by itself.
    #[cfg(test)]
    pub(crate) fn apart() -> Self {
        let whole = Arc::new(crate::sys::shared::Shared::<super::shared_state::SharedState>::new().unwrap());
        Self::new(SharedRef::new(&whole, |whole| &whole.stop), None).unwrap()
    }

    /// The part that signal handlers may turn.
    pub(crate) fn switch(&self) -> &Arc<StopSwitch> {
        &self.switch
    }

    /// In a forked child: lets go of all descriptors of all servers, but for this one's `stop`, its master's, and the
    /// socket that a datagram is replied from.
    pub(crate) fn become_child(&self, shared: Option<BorrowedFd<'_>>) {
        self.enter_child();
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

    /// Wakes the one at the gate.
    pub(crate) fn ring_gate(&self) {
        if !self.in_child() {
            self.gate.set();
        }
    }

    /// Has those who wait give back the places that there are no more; `still`: some are left.
    pub(crate) fn recall_places(&self, still: bool) {
        let Some(recall) = self.recall.as_ref().filter(|_| !self.in_child()) else { return };
        if still {
            recall.set();
        } else {
            recall.clear();
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
        self.ring_gate();
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
            self.lower();
            self.state.woken.store(false, SeqCst);
            self.state.all_woken.store(false, SeqCst);
            self.state.cut.store(false, SeqCst);
            self.clear_wakeups();
        }
    }

    /// A run has ended.
    pub(crate) fn end(&self) {
        self.state.obeyed.store(self.stopping(), SeqCst);
    }
}

impl Deref for Control {
    type Target = StopSwitch;

    fn deref(&self) -> &StopSwitch {
        &self.switch
    }
}

impl StopState {
    /// For a new worker; the former one is gone.
    pub(crate) fn clear(&self) {
        self.level.clear();
        [&self.paused, &self.woken, &self.all_woken, &self.cut, &self.obeyed]
            .into_iter()
            .for_each(|on| on.store(false, SeqCst));
    }
}

#[cfg(test)]
mod tests;
