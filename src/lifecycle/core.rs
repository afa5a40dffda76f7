//! What all parts of one server share.

use std::cell::Cell;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::block::Block;
use super::control::Control;
use super::registry::Registry;
use super::stats::{Counters, Stats};
use crate::admit::Count;
use crate::hooks::{Helpers, Waiting};
use crate::server::Config;
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
    /// One line a second for failing accepts.
    pub(crate) accept_log: Throttle,
    /// The same for refusals.
    pub(crate) refusal_log: Throttle,
    /// And for what `verify_request` refuses.
    pub(crate) verify_log: Throttle,
    /// Who asks `verify_request`, and who waits for its answer.
    pub(crate) helpers: Helpers,
    pub(crate) waiting: Waiting,
    serving: Mutex<bool>,
    ended: Condvar,
}

impl Core {
    pub(crate) fn new(config: Config, limit: usize, capacity: usize) -> io::Result<Arc<Self>> {
        let block = Arc::new(Shared::<Block>::new()?);
        block.permits.set_limit(limit.min(capacity));
        Ok(Arc::new(Self {
            config,
            capacity,
            control: Arc::new(Control::new(block.clone())?),
            block,
            gate: Mutex::new(()),
            registry: Registry::default(),
            workers: AtomicUsize::new(0),
            accept_log: Throttle::default(),
            refusal_log: Throttle::default(),
            verify_log: Throttle::default(),
            helpers: Helpers::default(),
            waiting: Waiting::default(),
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
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
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
        Self(HANDLING.replace(core))
    }

    pub(crate) fn is(core: &Arc<Core>) -> bool {
        HANDLING.get() == Arc::as_ptr(core)
    }
}

impl Drop for InHandler {
    fn drop(&mut self) {
        HANDLING.set(self.0);
    }
}

/// Lets one event a second through, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// Whether this event passes: then with the number of those left out before it.
    pub(crate) fn pass(&self) -> Option<u64> {
        let mut last = self.0.lock();
        let now = Instant::now();
        if last.0.is_some_and(|at| now - at < Duration::from_secs(1)) {
            last.1 += 1;
            return None;
        }
        last.0 = Some(now);
        Some(std::mem::take(&mut last.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_lets_one_a_second_through_and_counts_the_rest() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!((throttle.pass(), throttle.pass()), (None, None));
        throttle.0.lock().0 = Instant::now().checked_sub(Duration::from_secs(1));
        assert_eq!(throttle.pass(), Some(2));
        assert_eq!(throttle.pass(), None);
    }
}
