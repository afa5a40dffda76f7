//! What a master and its workers see alike: memory that outlives each of them, and needs no lock.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use super::permits::Permits;
use super::shared_state::SharedState;
use crate::error::{Error, Result};
use crate::listen::QueueCounts;
use crate::sys::shared::{Shareable, Shared, SharedRef};
use crate::sys::{limits, process};

/// As many processes have a place in the memory, those that are on their way out included. Pages that nobody uses cost
/// nothing.
const SLOTS: usize = 2048;
/// Most workers of one pool.
pub(crate) const MOST_WORKERS: usize = 512;
/// The memory of a server with worker processes.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    /// How many workers there are to be.
    wanted: AtomicUsize,
    /// Workers of an earlier one are to be replaced.
    generation: AtomicU64,
    /// The connection limit that was asked for; 0: as many as the workers can serve by default.
    asked: AtomicUsize,
    /// How many connections one worker serves by default, and at the most.
    each: AtomicUsize,
    most_each: AtomicUsize,
    /// Slots from here on have never been used.
    used: AtomicUsize,
    /// At a stop: what the kernel's queues held, and is still served.
    pub(crate) queued: QueueCounts,
    slots: [WorkerSlot; SLOTS],
}

// SAFETY: plain atomics, all of them. (The model has no processes, and so never makes one.)
#[allow(unsafe_code)]
unsafe impl Shareable for Scoreboard {}

/// One worker's part. Its counters go on with its successor's.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    pub(crate) state: SharedState,
    /// True if a worker has it, or is to have it.
    taken: AtomicBool,
    /// When its heart has beaten, in milliseconds of its control, plus one; 0: not yet.
    beat: AtomicU64,
    /// From this count of accepted connections on, it wants a successor.
    recycle_at: AtomicU64,
    wants_successor: AtomicBool,
    /// What its run has returned.
    result: AtomicU64,
}

impl Scoreboard {
    /// For a server: `limit` is what was asked for, if something was.
    pub(crate) fn for_server(
        workers: usize,
        limit: Option<usize>,
        each: usize,
        most: usize,
    ) -> io::Result<Arc<Shared<Self>>> {
        let this = Shared::<Self>::new()?;
        this.wanted.store(workers, SeqCst);
        this.asked.store(limit.unwrap_or(0), SeqCst);
        this.each.store(each, SeqCst);
        this.most_each.store(most, SeqCst);
        Ok(Arc::new(this))
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(SeqCst)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(SeqCst)
    }

    pub(crate) fn reload(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// Changes the number of workers, and with it the limit, where that follows.
    pub(crate) fn set_wanted(&self, count: usize, permits: &Permits) {
        self.wanted.store(count, SeqCst);
        self.renew(permits);
    }

    pub(crate) fn set_limit(&self, limit: usize, permits: &Permits) {
        self.asked.store(limit, SeqCst);
        self.renew(permits);
    }

    fn renew(&self, permits: &Permits) {
        let wanted = self.wanted();
        let follows = wanted.saturating_mul(self.each.load(SeqCst));
        let asked = Some(self.asked.load(SeqCst)).filter(|n| *n > 0);
        let most = wanted.saturating_mul(self.most_each.load(SeqCst));
        permits.set_limit(asked.unwrap_or(follows).min(most));
    }

    /// Of all workers there are or have been.
    pub(crate) fn states(&self) -> impl Iterator<Item = &SharedState> {
        self.slots.iter().take(self.used.load(SeqCst)).map(|slot| &slot.state)
    }

    /// A slot for a new worker; `None` where all are taken.
    pub(crate) fn take(this: &Arc<Shared<Self>>) -> Option<SharedRef<WorkerSlot>> {
        let index = (0..SLOTS).find(|i| !this.slots[*i].taken.swap(true, SeqCst))?;
        this.used.fetch_max(index + 1, SeqCst);
        Some(SharedRef::new(this, |this| &this.slots[index]))
    }
}

/// How connections were lost with their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostWith {
    /// It has crashed.
    Crashed,
    /// It has ended in order, without them.
    Left,
    /// It was ended at the drain limit.
    Cut,
}

impl WorkerSlot {
    /// The worker is gone: what it had not counted yet has failed. How many that were.
    pub(crate) fn settle(&self, how: LostWith) -> u64 {
        let (counters, totals) = (&self.state.counters, self.state.counters.totals());
        let ended = totals.served + totals.failed + totals.disconnected + totals.refused;
        let lost = totals.accepted.saturating_sub(ended);
        counters.failed.fetch_add(lost, SeqCst);
        match how {
            LostWith::Crashed => drop(counters.crashed.fetch_add(lost, SeqCst)),
            LostWith::Left => {}
            LostWith::Cut => {
                counters.timed_out.fetch_add(lost, SeqCst);
                counters.forced.fetch_add(lost, SeqCst);
            }
        }
        self.state.permits.clear();
        lost
    }

    /// For a new worker, which wants a successor after so many connections.
    pub(crate) fn prepare(&self, requests: Option<u64>) {
        self.state.stop.clear();
        self.state.permits.clear();
        self.beat.store(0, SeqCst);
        self.wants_successor.store(false, SeqCst);
        self.result.store(0, SeqCst);
        let accepted = self.state.counters.totals().accepted;
        self.recycle_at.store(requests.map_or(u64::MAX, |n| accepted.saturating_add(n)), SeqCst);
    }

    pub(crate) fn give_back(&self) {
        self.taken.store(false, SeqCst);
    }

    pub(crate) fn set_beat(&self, millis: u64) {
        self.beat.store(millis + 1, SeqCst);
    }

    pub(crate) fn beat(&self) -> Option<u64> {
        self.beat.load(SeqCst).checked_sub(1)
    }

    pub(crate) fn is_to_be_recycled_at(&self, accepted: u64) -> bool {
        accepted >= self.recycle_at.load(SeqCst)
    }

    /// What a worker sets to get a successor.
    pub(crate) fn successor_wish(&self) -> &AtomicBool {
        &self.wants_successor
    }

    pub(crate) fn wants_successor(&self) -> bool {
        self.wants_successor.load(SeqCst)
    }

    pub(crate) fn set_result(&self, result: u64) {
        self.result.store(result, SeqCst);
    }

    pub(crate) fn result(&self) -> u64 {
        self.result.load(SeqCst)
    }
}

/// Descriptors that a master has for each of its workers, and for itself and a successor.
const OF_EACH: usize = 8;
const OF_THE_MASTER: usize = 32;

/// Of workers.
pub(crate) fn check_count(name: &'static str, count: usize) -> Result<()> {
    if count == 0 {
        return Err(Error::setting(name, "without a worker nobody is served; give 1 at least"));
    }
    if count > MOST_WORKERS {
        return Err(Error::setting(name, format!("{count} workers are more than {} at most", MOST_WORKERS)));
    }
    let (needed, descriptors) = (OF_THE_MASTER + count * OF_EACH, limits::descriptors());
    if needed > descriptors {
        let why = format!(
            "{count} workers take about {needed} descriptors in the master, and RLIMIT_NOFILE is {descriptors}: raise it \
             (ulimit -n, or raise_descriptor_limit())"
        );
        return Err(Error::setting(name, why));
    }
    match process::limit() {
        Some(limit) if count as u64 >= limit => {
            let why =
                format!("{count} workers are more than there may be processes (kernel.pid_max, ulimit -u): {limit}");
            Err(Error::setting(name, why))
        }
        _ => Ok(()),
    }
}
