//! What all parts of one server share.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::block::Block;
use super::control::Control;
use super::registry::Registry;
use super::stats::{Counters, Stats};
use super::throttle::Throttle;
use crate::accept::Trouble;
use crate::admit::Count;
use crate::hooks::{Helpers, Waiting};
use crate::listen::Spare;
use crate::server::{AtLimit, Config};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{now, thread_local, Condvar, Mutex};
use crate::sys::shared::Shared;

/// Shared by the accepting side, the workers, the connections and every handle.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) control: Arc<Control>,
    /// The most connections that the strategy can serve at once, whatever the limit.
    pub(crate) capacity: usize,
    block: Arc<Shared<Block>>,
    /// Held by the one who waits for a permit; the others queue behind.
    pub(crate) gate: Mutex<()>,
    pub(crate) registry: Registry,
    /// Threads that accept for themselves: after the stop, each leaves when the kernel's queue is served.
    pub(crate) workers: AtomicUsize,
    /// Bounds what others can make the server log.
    pub(crate) log: Throttle,
    /// Of accepting: how long it rests.
    pub(crate) trouble: Trouble,
    /// To refuse with, where the server does so.
    pub(crate) spare: Option<Spare>,
    /// Who asks `verify_request`, and who waits for its answer.
    pub(crate) helpers: Helpers,
    pub(crate) waiting: Waiting,
    /// Who is connected, by name.
    #[cfg(feature = "testing")]
    pub(crate) roll: super::roll::Roll,
    serving: Mutex<bool>,
    ended: Condvar,
}

impl Core {
    pub(crate) fn new(config: Config, limit: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let block = Arc::new(Shared::<Block>::new()?);
        block.permits.set_limit(limit.min(capacity));
        let spare = matches!(config.at_limit, AtLimit::Refuse(_)).then(Spare::new);
        Ok(Arc::new(Self {
            config,
            capacity,
            control: Arc::new(Control::new(block.clone())?),
            block,
            gate: Mutex::new(()),
            registry: Registry::default(),
            workers: AtomicUsize::new(0),
            log: Throttle::default(),
            trouble: Trouble::default(),
            spare,
            helpers: Helpers::default(),
            waiting: Waiting::default(),
            #[cfg(feature = "testing")]
            roll: Default::default(),
            serving: Mutex::new(false),
            ended: Condvar::new(),
        }))
    }

    pub(crate) fn permits(&self) -> &Count {
        &self.block.permits
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.block.counters
    }

    pub(crate) fn stats(&self) -> Stats {
        let totals = self.counters().totals();
        Stats {
            active: self.permits().active(),
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

thread_local! {
    /// The server whose handler this thread runs, as an address to compare with.
    static HANDLING: Cell<*const Core> = const { Cell::new(std::ptr::null()) };
}

/// While it lives, this thread runs a handler or a hook of that server.
pub(crate) struct InHandler(*const Core);

impl InHandler {
    pub(crate) fn of(core: &Core) -> Self {
        Self(HANDLING.with(|of| of.replace(core)))
    }

    pub(crate) fn is(core: &Arc<Core>) -> bool {
        HANDLING.with(Cell::get) == Arc::as_ptr(core)
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        HANDLING.with(|of| of.set(self.0));
    }
}
