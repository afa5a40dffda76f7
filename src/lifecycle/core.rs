//! [`Core`]: the state that all parts of one server share.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::Level;

use super::admission::Admission;
use super::control::Control;
use super::hooks::{Hooks, VERIFIERS};
use super::permits::Permits;
use super::registry::{Registry, SlotState};
use super::restart::Restarts;
use super::run::Run;
use super::scoreboard::Scoreboard;
use super::shared_state::SharedState;
use super::stop_calls::StopCalls;
use super::waiting::Waiting;
use super::worker_role::WorkerRole;
use crate::config::{AtLimit, ServerSettings};
use crate::listen::{is_followed, note_served, AcceptBackoff, ReserveFd};
use crate::net::{Addr, Arrival, Birth};
use crate::observe::{log_line, Monitor, Report, ServerId, Stats, StopPhase, TimeCounters, Times, Unheard};
use crate::offload::Offload;
use crate::sources::Sources;
use crate::sync::now;
use crate::sys::shared::{Shared, SharedRef};
use crate::sys::signal;
use crate::sys::wishes::Wish;
use crate::systemd::Notifier;

/// The state of one server. The accepting threads, the connections and every handle hold it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) control: Arc<Control>,
    /// Not set in a server without worker processes.
    role: OnceLock<Role>,
    /// The memory that this server's children see too. `None` in a worker, whose memory is the master's.
    memory: Option<Arc<Shared<SharedState>>>,
    pub(crate) admission: Admission,
    pub(crate) monitor: Monitor,
    pub(crate) registry: Registry,
    pub(crate) run: Run,
    pub(crate) backoff: AcceptBackoff,
    /// A descriptor to refuse with. Only a server that refuses at its limits has one.
    pub(crate) reserve: Option<ReserveFd>,
    /// The number of sockets of a former process that are to be served.
    taken_over: AtomicUsize,
    /// The threads that call `verify_request`.
    pub(crate) verifying: Offload,
    /// The threads that wait for a verdict of `verify_request`.
    pub(crate) waiting: Waiting,
    /// What tells the stop to connections that have left their handlers.
    pub(crate) stop_calls: StopCalls,
    /// The threads for the blocking work of event loops. All loops of a server share them: a pool is there
    /// for its bound, and with `Blocking` each connection has a loop.
    pub(crate) blocking: Offload,
    /// The threads that resolve names for event loops. A name server that does not answer must not hold up
    /// the program's blocking work, nor the other way round.
    pub(crate) lookups: Offload,
}

/// The part that a server plays among the processes of [`PreForking`](crate::PreForking).
#[derive(Debug)]
enum Role {
    /// A master, which shares this memory with its workers.
    Master(Arc<Scoreboard>),
    Worker(WorkerRole),
}

impl Core {
    pub(crate) fn new(settings: ServerSettings, hooks: Hooks, limit: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let whole = Arc::new(Shared::<SharedState>::new()?);
        let state = SharedRef::new(&whole, |whole| whole);
        // A pool of N threads serves N connections, whatever the limit is.
        state.permits.set_limit(limit.min(capacity));
        let control = Control::new(state.map(|state| &state.stop), None)?;
        let reserve = matches!(settings.at_limit, AtLimit::Refuse(_)).then(ReserveFd::new);
        let sources = settings.per_source.as_ref().map(Sources::new).transpose()?;
        let (settings, hooks) = (Arc::new(settings), Arc::new(hooks));
        let mut core = Self::with(settings, hooks, &state, capacity, control, ServerId::new(), reserve);
        core.admission.sources = sources;
        Ok(Arc::new(Self { memory: Some(whole), ..core }))
    }

    /// Makes the core of a worker. The master makes it before the fork, so both have the same eventfds and
    /// memory. The master then stops, pauses and limits the worker by plain calls. Its connection limit is
    /// zero at first.
    pub(crate) fn of_worker(worker: WorkerRole, capacity: usize) -> io::Result<Arc<Self>> {
        let (master, state) = (worker.master.clone(), worker.slot.map(|slot| &slot.state));
        let control = Control::new(state.map(|state| &state.stop), Some(master.control.clone()))?;
        let (settings, hooks) = (master.settings.clone(), master.hooks.clone());
        // The worker opens it: the master must not hold one descriptor for each worker.
        let reserve = matches!(settings.at_limit, AtLimit::Refuse(_)).then(ReserveFd::later);
        let mut core = Self::with(settings, hooks, &state, capacity, control, master.monitor.server, reserve);
        // The first error is printed once for all workers.
        core.monitor.unheard = master.monitor.unheard.clone();
        core.admission.sources = master.admission.sources.as_ref().map(Sources::for_worker);
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
        let unheard = Unheard::new(state.map(|state| &state.error_said), control.switch());
        Self {
            control: Arc::new(control),
            role: OnceLock::new(),
            memory: None,
            admission: Admission::new(state.map(|state| &*state.permits), capacity),
            monitor: Monitor::new(
                server,
                state.map(|state| &*state.counters),
                hooks.handle_error.clone(),
                hooks.observers.clone(),
                unheard,
            ),
            registry: Registry::default(),
            run: Run::default(),
            backoff: AcceptBackoff::default(),
            reserve,
            taken_over: AtomicUsize::new(0),
            verifying: Offload::new("verify", VERIFIERS),
            waiting: Waiting::default(),
            stop_calls: StopCalls::default(),
            blocking: Offload::new("blocking", 10),
            lookups: Offload::new("resolver", 10),
            settings,
            hooks,
        }
    }

    /// Makes this server a master that shares this memory with its workers.
    pub(crate) fn become_master(&self, scoreboard: Arc<Scoreboard>) {
        let _ = self.role.set(Role::Master(scoreboard));
    }

    /// Returns the worker's role, if this is a worker.
    pub(crate) fn worker(&self) -> Option<&WorkerRole> {
        match self.role.get() {
            Some(Role::Worker(worker)) => Some(worker),
            _ => None,
        }
    }

    pub(crate) fn is_worker(&self) -> bool {
        self.worker().is_some()
    }

    /// Returns the memory shared with the workers, if this is a master.
    pub(crate) fn scoreboard(&self) -> Option<&Arc<Scoreboard>> {
        match self.role.get() {
            Some(Role::Master(scoreboard)) => Some(scoreboard),
            _ => None,
        }
    }

    /// Returns the server that users know: this one, or the master of this worker.
    pub(crate) fn server(&self) -> &Self {
        self.worker().map_or(self, |worker| &worker.master)
    }

    /// Sets the connection limit that the user wants.
    pub(crate) fn set_limit(&self, limit: usize) {
        if self.control.wish(Wish::Limit(limit)) {
            return;
        }
        let permits = &self.admission.permits;
        match self.scoreboard() {
            Some(scoreboard) => scoreboard.set_limit(limit, permits),
            None => permits.set_limit(limit.min(self.admission.capacity)),
        }
    }

    /// Returns the time at which connections are cut. `None` before a stop is requested.
    pub(crate) fn drain_deadline(&self) -> Option<std::time::Instant> {
        self.control.drain_deadline(self.settings.drain_timeout)
    }

    /// Counts a connection that was taken from the kernel's queue.
    pub(crate) fn note_accepted(&self, peer: &Addr, local: impl FnOnce() -> Addr) -> Birth {
        let accepted = self.monitor.count_accepted(peer);
        let id = match self.worker().filter(|_| !self.control.in_child()) {
            Some(worker) => worker.note_accepted(accepted),
            None => accepted,
        };
        self.monitor.birth(id, local)
    }

    /// Tells the observers, once, that a connection is open.
    pub(crate) fn tell_opened(&self, arrived: &mut impl Arrival) {
        if self.monitor.observes() {
            let mut birth = std::mem::take(arrived.birth());
            let proxy = arrived.proxy_header().map(|header| &**header);
            self.monitor.tell_opened(&mut birth, arrived.peer(), proxy);
            *arrived.birth() = birth;
        }
    }

    /// Returns how far a stop has come. It decides how a connection that ends now is counted.
    pub(crate) fn stop_phase(&self) -> StopPhase {
        if !self.control.stopping() {
            return StopPhase::Running;
        }
        // A connection may outlive its run, if its handler computes on. Its end is then no part of a drain.
        // A handler on the accepting thread outlives the drain limit, as nobody is left to cut it.
        let is_late = || self.drain_deadline().is_some_and(|limit| limit <= now());
        let is_urgent = self.control.is_urgent();
        match (self.run.is_serving(), self.control.is_cut() || (!is_urgent && is_late()), is_urgent) {
            (true, false, _) => StopPhase::Draining,
            (true, true, false) => StopPhase::Cut,
            (true, true, true) => StopPhase::CutAtOnce,
            (false, was_cut, is_urgent) => StopPhase::Over { was_cut: was_cut && !is_urgent },
        }
    }

    /// True if a stop does not end a connection that has said nothing yet. Its client must not notice the end of this
    /// process, because others go on accepting from the same sockets. These are other workers, a successor, or a
    /// former process that this one was to succeed.
    pub(crate) fn spares_newcomers(&self) -> bool {
        let server = self.server();
        let is_followed =
            || server.scoreboard().map_or_else(is_followed, |shared| shared.keeps_listeners().load(SeqCst));
        (self.is_worker() && !server.control.stopping()) || server.control.is_succeeded() || is_followed()
    }

    /// Returns the stop that ends the wait of a spared connection before the drain limit: that of a worker's server,
    /// or the urgent one.
    pub(crate) fn end_of_grace(&self) -> Option<BorrowedFd<'_>> {
        let server = &self.server().control;
        if server.stopping() {
            self.control.urgent()
        } else {
            Some(server.stop_fd())
        }
    }

    /// Ends the waits of idle connections, once for each stop. A connection that begins to wait later sees
    /// the stop itself.
    pub(crate) fn wake_idle(&self) {
        // Many threads come here at a stop. One of them wakes, the others pay a look at a flag.
        let (first, first_of_all) = self.control.first_to_wake(self.spares_newcomers());
        if first {
            self.control.pass_stop_on();
            self.registry.wake(SlotState::Idle);
            self.stop_calls.call();
        }
        if first_of_all {
            self.registry.wake(SlotState::New);
        }
    }

    /// Returns the sum of all counters, those of the workers included.
    pub(crate) fn totals(&self) -> Report {
        let own = self.monitor.counters().totals();
        let workers = self.scoreboard().into_iter().flat_map(|scoreboard| scoreboard.states());
        workers.fold(own, |sum, state| sum.and(state.counters.totals()))
    }

    /// Adds a number of this server and of its workers.
    fn sum(&self, number: fn(&Permits) -> usize) -> usize {
        let workers = self.scoreboard().into_iter().flat_map(|scoreboard| scoreboard.states());
        // A worker may have written anything.
        let numbers = workers.map(|state| number(&state.permits));
        numbers.fold(number(&self.admission.permits), usize::saturating_add)
    }

    pub(crate) fn stats(&self) -> Stats {
        let totals = self.totals();
        Stats {
            active: self.sum(Permits::active),
            parked: self.sum(Permits::parked),
            max_connections: self.admission.permits.limit(),
            accepted: totals.accepted,
            served: totals.served,
            failed: totals.failed,
            panicked: totals.panicked,
            timed_out: totals.timed_out,
            peer_faults: totals.peer_faults,
            crashed: totals.crashed,
            disconnected: totals.disconnected,
            refused: totals.refused,
            accept_errors: totals.accept_errors,
            greetings: totals.greetings,
            times: self.times(),
            sources: totals.sources,
        }
    }

    /// Returns how long connections took, those of the workers included.
    fn times(&self) -> Times {
        if !self.monitor.measures() {
            return Times::default();
        }
        let workers = self.scoreboard().into_iter().flat_map(|scoreboard| scoreboard.states());
        let workers = workers.map(|state| &state.counters.times);
        TimeCounters::together(std::iter::once(&self.monitor.counters().times).chain(workers))
    }

    /// Tells the master of a worker process, a former process, or the service manager, once, that this server
    /// accepts.
    pub(crate) fn report_ready(&self) {
        // Every turn of a loop comes here, so the usual case is one read.
        if self.taken_over.load(Relaxed) > 0 {
            self.report_taken_over();
        }
        match (self.worker(), &self.hooks.notifier) {
            (Some(worker), _) => worker.report_ready(),
            (None, Some(notifier)) => notifier.ready(|| self.stats()),
            (None, None) => {}
        }
    }

    /// Tells the service manager that this server lives.
    pub(crate) fn report_alive(&self) {
        self.notifier().into_iter().for_each(|notifier| notifier.alive(self.stats()));
    }

    /// Tells a former process, once, that the sockets which it has handed over are served.
    fn report_taken_over(&self) {
        let missing = match self.taken_over.swap(0, SeqCst) {
            0 => return,
            sockets => note_served(sockets),
        };
        self.keep_listeners(false);
        if !missing.is_empty() {
            let missing = missing.join(", ");
            let text = format_args!("the former process goes on until this one serves {missing} too");
            log_line(Level::Warn, "socketserver::restart", text);
        }
    }

    /// Notes that this number of sockets comes from a former process, which waits until they are served.
    pub(crate) fn has_taken_over(&self, sockets: usize) {
        self.taken_over.fetch_add(sockets, SeqCst);
    }

    /// Returns the restarts of this process, if this server takes part in them. A worker process does not.
    pub(crate) fn restarts(&self) -> Option<&'static Restarts> {
        self.hooks.restarts.filter(|_| !self.is_worker())
    }

    /// Has the sockets outlive this process, whatever it dies of: another one has them too.
    pub(crate) fn keep_listeners(&self, keep: bool) {
        self.scoreboard().into_iter().for_each(|scoreboard| scoreboard.keep_listeners(keep));
    }

    pub(super) fn is_restarting(&self) {
        self.keep_listeners(true);
        self.notifier().into_iter().for_each(Notifier::restarting);
    }

    pub(super) fn restart_has_failed(&self) {
        self.notifier().into_iter().for_each(|notifier| notifier.serves_on(self.stats()));
    }

    /// Leaves the sockets to a successor, which serves, and drains.
    pub(super) fn hand_over(&self, pid: u32) {
        self.notifier().into_iter().for_each(|notifier| notifier.handed_over(pid));
        self.control.is_to_be_succeeded();
        self.control.request_stop();
    }

    /// Tells the service manager, once, that this server stops. A successor that does not serve yet is given up.
    pub(crate) fn report_stopping(&self) {
        self.worker().into_iter().for_each(WorkerRole::report_lost_master);
        self.restarts().into_iter().for_each(Restarts::abandon);
        self.notifier().into_iter().for_each(|notifier| notifier.stopping(self.stats()));
    }

    /// Returns the service manager. A worker process does not report: its master does.
    pub(crate) fn notifier(&self) -> Option<&Notifier> {
        self.hooks.notifier.as_ref().filter(|_| !self.is_worker())
    }

    /// Makes this process the one that serves, before a run. True if it was forked since the server was made, or
    /// served last: then it gets a stop, wake-ups, permits and counters of its own. Else a stop here would stop the
    /// server of another process, and that process would take this one's wake-ups.
    pub(crate) fn serve_here(&self) -> io::Result<bool> {
        let switch = self.control.switch();
        let is_new_process = !switch.is_own();
        if is_new_process {
            switch.tell_who_serves();
            self.memory.iter().try_for_each(|memory| memory.renew(|old, own| own.carry_on(old)))?;
            self.scoreboard().into_iter().try_for_each(|shared| shared.renew_memory())?;
            self.admission.sources.iter().try_for_each(Sources::renew)?;
            self.control.renew_eventfds()?;
        }
        switch.own();
        self.restarts().map_or(Ok(()), Restarts::serve_here)?;
        signal::take_over(switch)?;
        Ok(is_new_process)
    }

    /// Marks the server as serving, until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        // The stop of an earlier run is cleared before the server counts as serving.
        self.control.begin();
        if !self.is_worker() {
            self.monitor.unheard.begin();
        }
        self.notifier().into_iter().for_each(Notifier::starting);
        self.run.begin();
        self.restarts().into_iter().for_each(Restarts::begin_to_drive);
        Serving(self.clone())
    }

    /// True if the server is not serving. It waits for that; false if `timeout` has passed before.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        self.run.wait(timeout)
    }
}

/// A run of the server. Dropping it ends the run, after an error or a panic too.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Core>);

impl Drop for Serving {
    fn drop(&mut self) {
        // The stop counts as obeyed before `wait` returns: a later `serve_forever` must start afresh.
        self.0.control.end();
        self.0.restarts().into_iter().for_each(Restarts::end_to_drive);
        self.0.run.end();
    }
}
