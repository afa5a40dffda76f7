//! [`Control`]: the request to stop or to pause, and the eventfds that announce it.
//!
//! A wait that a stop must end is a wait for a descriptor. A stop may come from a signal handler, and `write`
//! on a descriptor is async-signal-safe; notifying a condition variable is not. The few other waits are woken
//! by a thread that has seen the stop ([`Waiting`](super::waiting::Waiting)), or have a bound of milliseconds.

use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use crate::sync::now;
use crate::sys::process::{self, Private};
use crate::sys::shared::SharedRef;
use crate::sys::stop_switch::{StopLevel, StopSwitch};
use crate::sys::wishes::{ChildPipes, Wish, Wishes};
use crate::sys::EventFd;

/// The stop and the pause as they stand, in memory that forked children see too.
#[derive(Debug, Default)]
pub(crate) struct StopState {
    level: StopLevel,
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
    /// True if another process accepts from the same sockets when this one has ended, or before.
    succeeded: AtomicBool,
}

/// Requests a stop or a pause, and wakes the threads that wait. It is its [`StopSwitch`], and what no signal
/// handler needs.
#[derive(Debug)]
pub(crate) struct Control {
    switch: Arc<StopSwitch>,
    state: SharedRef<StopState>,
    /// The master's control. Its pause holds for the workers too.
    master: Option<Arc<Control>>,
    /// Set for the thread at the gate: a permit came back, the limit rose, or accepting resumed.
    pub(crate) gate: Private<EventFd>,
    /// In a worker: readable while waiting threads hold more permits than the limit allows.
    pub(crate) recall: Option<Private<EventFd>>,
}

impl Control {
    pub(crate) fn new(state: SharedRef<StopState>, master: Option<Arc<Control>>) -> io::Result<Self> {
        let event_fd = || EventFd::new().map(Private::new);
        let recall = master.as_ref().map(|_| event_fd()).transpose()?;
        // One epoch for a master and its workers, which tell each other times.
        let epoch = master.as_ref().map_or_else(now, |master| master.epoch);
        let switch = Arc::new(StopSwitch::new(state.map(|state| &state.level), epoch)?);
        Ok(Self { switch, state, master, gate: event_fd()?, recall })
    }

    /// Makes a control without a server.
    #[cfg(test)]
    pub(crate) fn apart() -> Self {
        let whole = Arc::new(crate::sys::shared::Shared::<super::shared_state::SharedState>::new().unwrap());
        Self::new(SharedRef::new(&whole, |whole| &whole.stop), None).unwrap()
    }

    /// Returns the part that signal handlers use.
    pub(crate) fn switch(&self) -> &Arc<StopSwitch> {
        &self.switch
    }

    /// Makes this the control of a forked child, which asks its parent for what it may not do itself. Closes the
    /// descriptors of all servers. The children's ends of the pipes stay, and the socket from which a datagram is
    /// replied to.
    pub(crate) fn become_child(&self, wishes: &SharedRef<Wishes>, shared: Option<BorrowedFd<'_>>) {
        let Some(pipes) = self.made_pipes() else { return };
        self.with_master().for_each(|control| control.enter_child(wishes.clone(), pipes.clone()));
        let masters = self.master.iter().filter_map(|master| master.made_pipes()).map(|pipes| pipes.stop());
        process::close_private(masters.chain(pipes.of_children()).chain(shared));
    }

    /// Makes this the master's control in a worker.
    pub(crate) fn become_masters(&self, wishes: &SharedRef<Wishes>) -> Option<&Arc<ChildPipes>> {
        let pipes = self.made_pipes()?;
        self.enter_child(wishes.clone(), pipes.clone());
        Some(pipes)
    }

    /// Returns this control, and the master's if there is one.
    pub(crate) fn with_master(&self) -> impl Iterator<Item = &Self> {
        [Some(self), self.master.as_deref()].into_iter().flatten()
    }

    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Private<EventFd>> + Clone {
        self.eventfds().into_iter().chain([&self.gate]).chain(&self.recall)
    }

    /// Replaces the eventfds by new ones, which no other process has. A stop that is set is announced by them.
    pub(super) fn renew_eventfds(&self) -> io::Result<()> {
        self.descriptors().try_for_each(|eventfd| eventfd.renew())?;
        self.made_pipes().into_iter().try_for_each(|pipes| pipes.renew())?;
        self.clear_eventfds();
        Ok(())
    }

    /// Wakes the thread at the gate.
    pub(crate) fn wake_gate(&self) {
        if !self.in_child() {
            self.gate.set();
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

    /// Returns whether the caller must wake idle connections, and whether it must wake connections that wait
    /// for their first request. One caller gets `true` for each stop. While the stop `spares` the latter, no
    /// caller gets the second.
    pub(crate) fn first_to_wake(&self, spares: bool) -> (bool, bool) {
        let first = |woken: &AtomicBool| !woken.load(SeqCst) && !woken.swap(true, SeqCst);
        (first(&self.state.woken), !spares && first(&self.state.all_woken))
    }

    /// Marks the cut. A connection that ends later counts as cut.
    pub(crate) fn cut(&self) {
        // The parent of a child does so at the same time.
        if !self.in_child() {
            self.state.cut.store(true, SeqCst);
        }
    }

    /// Notes that another process goes on with the sockets. Call it before the stop.
    pub(crate) fn is_to_be_succeeded(&self) {
        self.state.succeeded.store(true, SeqCst);
    }

    /// True if another process goes on with the sockets.
    pub(crate) fn is_succeeded(&self) -> bool {
        self.state.succeeded.load(SeqCst)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state.cut.load(SeqCst)
    }

    pub(crate) fn pause(&self) {
        if !self.wish(Wish::Pause) {
            self.state.paused.store(true, SeqCst);
        }
    }

    pub(crate) fn resume(&self) {
        if self.wish(Wish::Resume) {
            return;
        }
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
            // The state first, then the eventfds: a request in between must show.
            self.lower();
            self.state.woken.store(false, SeqCst);
            self.state.all_woken.store(false, SeqCst);
            self.state.cut.store(false, SeqCst);
            self.clear_eventfds();
        }
    }

    /// Ends a run. A stop that is set now has been obeyed: a late second request then changes nothing.
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
    /// Takes the stop and the pause over from the memory of the process that this one was forked from.
    pub(super) fn carry_on(&self, old: &Self) {
        self.level.carry_on(&old.level);
        self.paused.store(old.paused.load(SeqCst), SeqCst);
        self.obeyed.store(old.obeyed.load(SeqCst), SeqCst);
        self.succeeded.store(old.succeeded.load(SeqCst), SeqCst);
    }

    /// Resets the state for a new worker. The former worker has ended.
    pub(crate) fn clear(&self) {
        self.level.clear();
        [&self.paused, &self.woken, &self.all_woken, &self.cut, &self.obeyed]
            .into_iter()
            .for_each(|on| on.store(false, SeqCst));
    }
}

#[cfg(test)]
mod tests;
