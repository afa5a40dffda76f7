//! What all parts of one server share.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::admission::Admission;
use super::control::Control;
use super::hooks::{Hooks, VERIFIERS};
use super::registry::Registry;
use super::run::Run;
use super::scoreboard::Scoreboard;
use super::shared_state::SharedState;
use super::waiting::Waiting;
use super::worker_role::WorkerRole;
use crate::config::{AtLimit, ServerSettings};
use crate::listen::{AcceptBackoff, ReserveFd};
use crate::net::Addr;
use crate::observe::{Monitor, Report, ServerId, Stats, StopPhase};
use crate::offload::Offload;
use crate::sys::shared::{Shared, SharedRef};

/// Shared by the accepting side, the workers, the connections and every handle.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) control: Arc<Control>,
    /// Unset in a server without worker processes.
    role: OnceLock<Role>,
    pub(crate) admission: Admission,
    pub(crate) monitor: Monitor,
    pub(crate) registry: Registry,
    pub(crate) run: Run,
    pub(crate) backoff: AcceptBackoff,
    /// To refuse with, where the server does so at its limits.
    pub(crate) reserve: Option<ReserveFd>,
    /// Threads that ask `verify_request`, and the threads that wait for its answers.
    pub(crate) verifying: Offload,
    pub(crate) waiting: Waiting,
    /// Threads that do the loops' blocking work, and those that resolve names for them.
    pub(crate) blocking: Offload,
    pub(crate) lookups: Offload,
}

/// What a server is among the processes of [`PreForking`](crate::PreForking).
#[derive(Debug)]
enum Role {
    /// It has workers, and shares this memory with them.
    Master(Arc<Shared<Scoreboard>>),
    Worker(WorkerRole),
}

impl Core {
    pub(crate) fn new(settings: ServerSettings, hooks: Hooks, limit: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let whole = Arc::new(Shared::<SharedState>::new()?);
        let state = SharedRef::new(&whole, |whole| whole);
        state.permits.set_limit(limit.min(capacity));
        let control = Control::new(state.map(|state| &state.stop), None)?;
        let reserve = matches!(settings.at_limit, AtLimit::Refuse(_)).then(ReserveFd::new);
        let (settings, hooks) = (Arc::new(settings), Arc::new(hooks));
        Ok(Arc::new(Self::with(settings, hooks, &state, capacity, control, ServerId::new(), reserve)))
    }

    /// The core of a worker. The master makes it, and keeps it to direct the worker with. No limit lets it serve yet.
    pub(crate) fn of_worker(worker: WorkerRole, capacity: usize) -> io::Result<Arc<Self>> {
        let (master, state) = (worker.master.clone(), worker.slot.map(|slot| &slot.state));
        let control = Control::new(state.map(|state| &state.stop), Some(master.control.clone()))?;
        let (settings, hooks) = (master.settings.clone(), master.hooks.clone());
        // Filled in the worker: the master must not hold a descriptor for each.
        let reserve = matches!(settings.at_limit, AtLimit::Refuse(_)).then(ReserveFd::later);
        let core = Self::with(settings, hooks, &state, capacity, control, master.monitor.server, reserve);
        let _ = core.role.set(Role::Worker(worker));
        Ok(Arc::new(core))
    }

    fn with(
        settings: Arc<ServerSettings>,
        hooks: Arc<Hooks>,
        state: &SharedRef<SharedState>,
        capacity: usize,
        control: Control,
        server: ServerId,
        reserve: Option<ReserveFd>,
    ) -> Self {
        Self {
            control: Arc::new(control),
            role: OnceLock::new(),
            admission: Admission::new(state.map(|state| &*state.permits), capacity),
            monitor: Monitor::new(server, state.map(|state| &*state.counters), hooks.handle_error.clone()),
            registry: Registry::default(),
            run: Run::default(),
            backoff: AcceptBackoff::default(),
            reserve,
            verifying: Offload::new("verify", VERIFIERS),
            waiting: Waiting::default(),
            blocking: Offload::new("blocking", 10),
            lookups: Offload::new("resolver", 10),
            settings,
            hooks,
        }
    }

    /// Makes this server a master, which shares this memory with its workers.
    pub(crate) fn become_master(&self, scoreboard: Arc<Shared<Scoreboard>>) {
        let _ = self.role.set(Role::Master(scoreboard));
    }

    /// The worker that this is, if it is one.
    pub(crate) fn worker(&self) -> Option<&WorkerRole> {
        match self.role.get() {
            Some(Role::Worker(worker)) => Some(worker),
            _ => None,
        }
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.worker().is_some()
    }

    /// The memory that this master shares with its workers, if it is one.
    pub(crate) fn scoreboard(&self) -> Option<&Arc<Shared<Scoreboard>>> {
        match self.role.get() {
            Some(Role::Master(scoreboard)) => Some(scoreboard),
            _ => None,
        }
    }

    /// The server that users know: this one, or the master of this worker.
    pub(crate) fn server(&self) -> &Self {
        self.worker().map_or(self, |worker| &worker.master)
    }

    /// Sets the most connections at once, by the user's wish.
    pub(crate) fn set_limit(&self, limit: usize) {
        let permits = &self.admission.permits;
        match self.scoreboard() {
            Some(scoreboard) => scoreboard.set_limit(limit, permits),
            None => permits.set_limit(limit.min(self.admission.capacity)),
        }
    }

    /// When connections are cut; `None` while no stop was asked for.
    pub(crate) fn drain_deadline(&self) -> Option<std::time::Instant> {
        self.control.drain_deadline(self.settings.drain_timeout)
    }

    /// A connection was taken from the kernel's queue.
    pub(crate) fn note_accepted(&self, peer: &Addr) {
        let accepted = self.monitor.count_accepted(peer);
        self.worker().into_iter().for_each(|worker| worker.note_accepted(accepted));
    }

    /// How far a stop is, for the account of a connection that ends now.
    pub(crate) fn stop_phase(&self) -> StopPhase {
        if !self.control.stopping() {
            return StopPhase::Running;
        }
        match (self.run.is_serving(), self.control.is_cut(), self.control.is_urgent()) {
            (true, false, _) => StopPhase::Draining,
            (true, true, false) => StopPhase::Cut,
            (true, true, true) => StopPhase::CutAtOnce,
            (false, was_cut, is_urgent) => StopPhase::Over { was_cut: was_cut && !is_urgent },
        }
    }

    /// All that was counted, by the workers too.
    pub(crate) fn totals(&self) -> Report {
        let own = self.monitor.counters().totals();
        let workers = self.scoreboard().into_iter().flat_map(|scoreboard| scoreboard.states());
        workers.fold(own, |sum, state| sum.and(state.counters.totals()))
    }

    fn active(&self) -> usize {
        let workers = self.scoreboard().into_iter().flat_map(|scoreboard| scoreboard.states());
        self.admission.permits.active() + workers.map(|state| state.permits.active()).sum::<usize>()
    }

    pub(crate) fn stats(&self) -> Stats {
        let totals = self.totals();
        Stats {
            active: self.active(),
            max_connections: self.admission.permits.limit(),
            accepted: totals.accepted,
            served: totals.served,
            failed: totals.failed,
            panicked: totals.panicked,
            timed_out: totals.timed_out,
            crashed: totals.crashed,
            disconnected: totals.disconnected,
            refused: totals.refused,
            accept_errors: totals.accept_errors,
        }
    }

    /// Marks the server as serving until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        self.control.begin();
        self.run.begin();
        Serving(self.clone())
    }

    /// Waits until the server is not serving; `false` if that takes longer than `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        self.run.wait(timeout)
    }
}

/// A run of the server; ends with it, whatever ends it.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Core>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.control.end();
        self.0.run.end();
    }
}
