//! What all parts of one server share.

use std::cell::Cell;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::block::{Block, BlockRef};
use super::control::Control;
use super::hooks::{Hooks, VERIFIERS};
use super::permits::Permits;
use super::registry::Registry;
use super::scoreboard::Pool;
use super::waiting::Waiting;
use super::worker_role::Post;
use crate::config::{AtLimit, ServerSettings};
use crate::listen::{AcceptBackoff, ReserveFd};
#[cfg(feature = "testing")]
use crate::observe::OpenConnections;
use crate::observe::{Counters, LogThrottle, Report, Stats};
use crate::offload::Offload;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{now, thread_local, Condvar, Mutex};
use crate::sys::shared::Shared;

/// Shared by the accepting side, the workers, the connections and every handle.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) settings: Arc<ServerSettings>,
    pub(crate) hooks: Arc<Hooks>,
    pub(crate) control: Arc<Control>,
    /// The most connections that the strategy can serve at once, whatever the limit.
    pub(crate) capacity: usize,
    block: BlockRef,
    /// Of a worker process of [`PreForking`](crate::PreForking).
    pub(crate) post: Option<Post>,
    /// Of its master: what they have in common.
    pub(crate) pool: OnceLock<Arc<Shared<Pool>>>,
    /// Held by the one who waits for a permit; the others queue behind.
    pub(crate) gate: Mutex<()>,
    pub(crate) registry: Registry,
    /// Threads that accept for themselves: after the stop, each leaves when the kernel's queue is served.
    pub(crate) workers: AtomicUsize,
    /// Event loops that wait for a place, which another one may give back.
    loops_at_gate: AtomicUsize,
    /// Bounds what others can make the server log.
    pub(crate) log: LogThrottle,
    /// Of accepting: how long it rests.
    pub(crate) trouble: AcceptBackoff,
    /// To refuse with, where the server does so.
    pub(crate) spare: Option<ReserveFd>,
    /// Who asks `verify_request`, and who waits for its answer.
    pub(crate) verifying: Offload,
    /// Those who do the loops' blocking work, and those who resolve names for them.
    pub(crate) blocking: Offload,
    pub(crate) lookups: Offload,
    pub(crate) waiting: Waiting,
    /// Who is connected, by name.
    #[cfg(feature = "testing")]
    pub(crate) roll: OpenConnections,
    serving: Mutex<bool>,
    ended: Condvar,
}

impl Core {
    pub(crate) fn new(settings: ServerSettings, hooks: Hooks, limit: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let block = BlockRef::Own(Arc::new(Shared::<Block>::new()?));
        block.permits.set_limit(limit.min(capacity));
        let control = Control::new(block.clone(), None)?;
        Ok(Arc::new(Self::with((settings.into(), hooks.into()), capacity, block, control, None)))
    }

    /// Of a worker; made by the master, who keeps it to direct the worker with. No limit lets it serve yet.
    pub(crate) fn of_worker(post: Post, capacity: usize) -> io::Result<Arc<Self>> {
        let (set, block) =
            ((post.master.settings.clone(), post.master.hooks.clone()), BlockRef::OfWorker(post.desk.clone()));
        let control = Control::new(block.clone(), Some(post.master.control.clone()))?;
        Ok(Arc::new(Self::with(set, capacity, block, control, Some(post))))
    }

    fn with(
        (settings, hooks): (Arc<ServerSettings>, Arc<Hooks>),
        capacity: usize,
        block: BlockRef,
        control: Control,
        post: Option<Post>,
    ) -> Self {
        let make = if post.is_some() { ReserveFd::later } else { ReserveFd::new };
        let spare = matches!(settings.at_limit, AtLimit::Refuse(_)).then(make);
        Self {
            settings,
            hooks,
            capacity,
            control: Arc::new(control),
            block,
            post,
            pool: OnceLock::new(),
            gate: Mutex::new(()),
            registry: Registry::default(),
            workers: AtomicUsize::new(0),
            loops_at_gate: AtomicUsize::new(0),
            log: LogThrottle::default(),
            trouble: AcceptBackoff::default(),
            spare,
            verifying: Offload::new("verify", VERIFIERS),
            blocking: Offload::new("blocking", 10),
            lookups: Offload::new("resolver", 10),
            waiting: Waiting::default(),
            #[cfg(feature = "testing")]
            roll: Default::default(),
            serving: Mutex::new(false),
            ended: Condvar::new(),
        }
    }

    /// The server that users know: this one, or that whose worker it is.
    pub(crate) fn server(&self) -> &Self {
        self.post.as_ref().map_or(self, |post| &post.master)
    }

    /// Sets the most connections at once, by the user's wish.
    pub(crate) fn set_limit(&self, limit: usize) {
        match self.pool.get() {
            Some(pool) => pool.set_limit(limit, self.permits()),
            None => self.permits().set_limit(limit.min(self.capacity)),
        }
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.block.permits
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.block.counters
    }

    /// All that was counted, by the workers too.
    pub(crate) fn totals(&self) -> Report {
        let own = self.counters().totals();
        self.pool.get().map_or(own, |pool| pool.blocks().fold(own, |sum, block| sum.and(block.counters.totals())))
    }

    /// Whether an event loop is to hear of a place that comes back.
    pub(crate) fn a_loop_waits(&self) -> bool {
        self.loops_at_gate.load(SeqCst) > 0
    }

    fn active(&self) -> usize {
        let own = self.permits().active();
        self.pool.get().map_or(own, |pool| pool.blocks().fold(own, |sum, block| sum + block.permits.active()))
    }

    pub(crate) fn stats(&self) -> Stats {
        let totals = self.totals();
        Stats {
            active: self.active(),
            max_connections: self.permits().limit(),
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

    /// Whether a run is on: what an abandoned handler does afterwards belongs to none.
    pub(crate) fn is_serving(&self) -> bool {
        *self.serving.lock()
    }

    /// Marks the server as serving until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        self.control.begin();
        *self.serving.lock() = true;
        Serving(self.clone())
    }

    /// Waits until the server is not serving; `false` if that takes longer than `timeout`.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let until = timeout.and_then(|t| now().checked_add(t));
        let mut serving = self.serving.lock();
        while *serving {
            match until {
                None => self.ended.wait(&mut serving),
                Some(until) => {
                    if self.ended.wait_until(&mut serving, until).timed_out() {
                        return !*serving;
                    }
                }
            }
        }
        true
    }
}

/// A run of the server; ends with it, whatever ends it.
#[derive(Debug)]
pub(crate) struct Serving(Arc<Core>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.control.end();
        *self.0.serving.lock() = false;
        self.0.ended.notify_all();
    }
}

/// While it lives, an event loop is told, by the gate's bell, of each place that comes back: also by another loop.
pub(crate) struct AtGate(Arc<Core>);

impl AtGate {
    /// To be followed by another look for a place.
    pub(crate) fn enter(core: &Arc<Core>) -> Self {
        core.loops_at_gate.fetch_add(1, SeqCst);
        Self(core.clone())
    }
}

impl Drop for AtGate {
    fn drop(&mut self) {
        self.0.loops_at_gate.fetch_sub(1, SeqCst);
    }
}

thread_local! {
    /// The server whose handler this thread runs, as an address to compare with.
    static HANDLING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// While it lives, this thread runs a handler or a hook of that server.
pub(crate) struct InHandler(*const Core);

impl InHandler {
    pub(crate) fn of(core: &Core) -> Self {
        Self(HANDLING.with(|of| of.replace(core.server())))
    }

    pub(crate) fn is(core: &Core) -> bool {
        std::ptr::eq(HANDLING.with(Cell::get), core.server())
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        HANDLING.with(|of| of.set(self.0));
    }
}
