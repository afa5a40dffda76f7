//! [`Scoreboard`]: memory that a master shares with its workers. It outlives each process, and needs no lock.
//!
//! A handle in any process, a signal or a worker may ask for a change. The request is written here, and the
//! master is woken. Two requests at once need no protocol, and no request is lost.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use super::permits::Permits;
use super::shared_state::SharedState;
use crate::error::{Error, Result};
use crate::listen::QueueCounts;
use crate::sys::shared::{Shareable, Shared, SharedRef};
use crate::sys::{limits, process};

/// The number of slots. A worker that is ending has one too. Unused pages cost nothing.
const SLOTS: usize = 2048;
/// The most workers of one server.
pub(crate) const MOST_WORKERS: usize = 512;

/// The memory of a server with worker processes.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    /// The number of workers that the master should keep.
    wanted: AtomicUsize,
    /// The master replaces workers of an earlier generation.
    generation: AtomicU64,
    /// The connection limit that the user set. 0: none, so the workers' defaults add up.
    asked: AtomicUsize,
    /// The connections that each worker serves by default.
    each: AtomicUsize,
    /// The most connections that each worker can serve.
    most_each: AtomicUsize,
    /// Slots from this index on have never been used.
    used: AtomicUsize,
    /// The connections that the kernel's queues held at the stop, and that are still served.
    pub(crate) queued: QueueCounts,
    slots: [WorkerSlot; SLOTS],
}

// SAFETY: all fields are plain atomics. (The model has no processes, and so never makes one.)
#[allow(unsafe_code)]
unsafe impl Shareable for Scoreboard {}

/// The part of one worker. A later worker in the same slot goes on with its counters.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    pub(crate) state: SharedState,
    /// True if a worker has this slot, or gets it soon.
    taken: AtomicBool,
    /// The time of the last heartbeat in milliseconds of the master's control, plus one. 0: none yet.
    beat: AtomicU64,
    /// From this count of accepted connections on, the worker asks for a successor.
    recycle_at: AtomicU64,
    /// True if the worker has asked for a successor.
    wants_successor: AtomicBool,
    /// The result of the worker's run, as a number.
    result: AtomicU64,
}

impl Scoreboard {
    /// Makes the memory of a server. `limit` is the connection limit that the user set, if there is one.
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

    /// Takes the settings over from the memory of the process that this one was forked from. The workers stay behind.
    pub(super) fn carry_on(&self, old: &Self) {
        let settings = |of: &Self| [&of.wanted, &of.asked, &of.each, &of.most_each].map(|n| n.load(SeqCst));
        let [wanted, asked, each, most_each] = settings(old);
        self.wanted.store(wanted, SeqCst);
        self.asked.store(asked, SeqCst);
        self.each.store(each, SeqCst);
        self.most_each.store(most_each, SeqCst);
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

    /// Changes the number of workers. If the user set no connection limit, the limit changes with it.
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
        // More than the workers can serve is no limit: it would promise permits that no worker has.
        let most = wanted.saturating_mul(self.most_each.load(SeqCst));
        permits.set_limit(asked.unwrap_or(follows).min(most));
    }

    /// Returns the states of all workers, past and present.
    pub(crate) fn states(&self) -> impl Iterator<Item = &SharedState> {
        self.slots.iter().take(self.used.load(SeqCst)).map(|slot| &slot.state)
    }

    /// Takes a slot for a new worker. `None` if all are taken.
    pub(crate) fn take(this: &Arc<Shared<Self>>) -> Option<SharedRef<WorkerSlot>> {
        let index = (0..SLOTS).find(|i| !this.slots[*i].taken.swap(true, SeqCst))?;
        this.used.fetch_max(index + 1, SeqCst);
        Some(SharedRef::new(this, |this| &this.slots[index]))
    }
}

/// How a worker ended that left connections unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostWith {
    /// The worker crashed.
    Crashed,
    /// The worker ended in order, without them.
    Left,
    /// The master ended the worker at the drain limit.
    Cut,
}

impl WorkerSlot {
    /// Counts the connections that were lost with their worker as failed, and returns how many there were.
    pub(crate) fn settle(&self, how: LostWith) -> u64 {
        let (counters, totals) = (&self.state.counters, self.state.counters.totals());
        let ended = totals.served + totals.failed + totals.disconnected + totals.refused;
        // Each accepted connection ends in one of these counters. The rest had not ended.
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
        // The permits are gone with the worker: its share is free for the others.
        self.state.permits.clear();
        lost
    }

    /// Resets the slot for a new worker. After `requests` connections it asks for a successor.
    pub(crate) fn prepare(&self, requests: Option<u64>) {
        self.state.stop.clear();
        self.state.permits.clear();
        self.beat.store(0, SeqCst);
        self.wants_successor.store(false, SeqCst);
        self.result.store(0, SeqCst);
        // The counters go on: the new worker's connections count from here.
        let accepted = self.accepted();
        self.recycle_at.store(requests.map_or(u64::MAX, |n| accepted.saturating_add(n)), SeqCst);
    }

    /// Returns the number of connections that this slot's workers have accepted, the present one's included.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.counters.totals().accepted
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

    /// Returns the flag that a worker sets to get a successor.
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

/// The descriptors that a master needs for each worker.
const OF_EACH: usize = 8;
/// The descriptors that a master has besides: its own, and those of one successor.
const OF_THE_MASTER: usize = 32;
/// The descriptors that a worker has besides those of its master and its engine: its wake-ups and two pipes.
pub(crate) const OF_A_WORKER: usize = 7;

/// Returns the descriptors that a master needs for this number of workers, besides its own.
pub(crate) fn of_a_master(workers: usize) -> usize {
    workers * OF_EACH
}

/// Checks a number of workers. `name` is the setting in the error.
pub(crate) fn check_count(name: &'static str, count: usize) -> Result<()> {
    if count == 0 {
        return Err(Error::setting(name, "zero workers serve no client; give at least 1"));
    }
    if count > MOST_WORKERS {
        return Err(Error::setting(name, format!("{count} workers are more than {} at most", MOST_WORKERS)));
    }
    let (needed, descriptors) = (OF_THE_MASTER + of_a_master(count), limits::descriptors());
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
