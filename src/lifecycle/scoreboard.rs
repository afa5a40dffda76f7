//! [`Scoreboard`]: memory that a master shares with its workers. It outlives each process, and needs no lock.
//!
//! A handle in any process, a signal or a worker may ask for a change. The request is written here, and the
//! master is woken. Two requests at once need no protocol, and no request is lost.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use super::permits::Permits;
use super::shared_state::SharedState;
use crate::error::{Error, Result};
use crate::listen::QueueCounts;
use crate::observe::Report;
use crate::sys::shared::{OnPages, Shareable, Shared, SharedRef};
use crate::sys::wishes::Wishes;
use crate::sys::{limits, process};

/// The number of slots. A worker that is ending has one too. Unused pages cost nothing.
pub(super) const SLOTS: usize = 2048;
/// The most workers of one server.
pub(crate) const MOST_WORKERS: usize = 512;

/// The memory of a server with worker processes. Each process writes its own part, and reads all.
#[derive(Debug)]
pub(crate) struct Scoreboard {
    board: Arc<Shared<Board>>,
    /// The connections that the kernel's queues held at the stop, and that are still served. All workers write
    /// here: each takes from the count what it accepts.
    pub(crate) queued: Arc<Shared<QueueCounts>>,
    slots: Arc<Shared<Slots>>,
}

/// What the master writes.
#[derive(Debug)]
struct Board {
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
    /// True if the listeners stay open when the master dies: another process has them too.
    keeps_listeners: AtomicBool,
    /// True for each slot that a worker has, or gets soon.
    taken: [AtomicBool; SLOTS],
}

// SAFETY: all fields are plain atomics. (The model has no processes, and so never makes one.)
#[allow(unsafe_code)]
unsafe impl Shareable for Board {}

#[derive(Debug)]
struct Slots([OnPages<WorkerSlot>; SLOTS]);

// SAFETY: as for `Board`.
#[allow(unsafe_code)]
unsafe impl Shareable for Slots {}

/// The part of one worker. A later worker in the same slot goes on with its counters.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    pub(crate) state: SharedState,
    /// The time of the last heartbeat in milliseconds of the master's control, plus one. 0: none yet.
    beat: AtomicU64,
    /// From this count of accepted connections on, the worker asks for a successor.
    recycle_at: AtomicU64,
    /// What the worker asks the master for.
    pub(crate) wishes: Wishes,
    /// Not zero if the worker has asked for a successor.
    wants_successor: AtomicU8,
    /// The result of the worker's run, as a number.
    result: AtomicU64,
}

impl Scoreboard {
    /// Makes the memory of a server. `limit` is the connection limit that the user set, if there is one.
    pub(crate) fn for_server(workers: usize, limit: Option<usize>, each: usize, most: usize) -> io::Result<Arc<Self>> {
        let (board, queued, slots) = (Shared::<Board>::new()?, Shared::new()?, Shared::new()?);
        board.wanted.store(workers, SeqCst);
        board.asked.store(limit.unwrap_or(0), SeqCst);
        board.each.store(each, SeqCst);
        board.most_each.store(most, SeqCst);
        Ok(Arc::new(Self { board: Arc::new(board), queued: Arc::new(queued), slots: Arc::new(slots) }))
    }

    /// Gives this process memory of its own, which goes on with the settings.
    pub(super) fn renew_memory(&self) -> io::Result<()> {
        self.board.renew(|old, own| {
            let settings = |of: &Board| [&of.wanted, &of.asked, &of.each, &of.most_each].map(|n| n.load(SeqCst));
            let [wanted, asked, each, most_each] = settings(old);
            own.wanted.store(wanted, SeqCst);
            own.asked.store(asked, SeqCst);
            own.each.store(each, SeqCst);
            own.most_each.store(most_each, SeqCst);
        })?;
        self.queued.renew(|_, _| ())?;
        self.slots.renew(|_, _| ())
    }

    pub(crate) fn wanted(&self) -> usize {
        self.board.wanted.load(SeqCst)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.board.generation.load(SeqCst)
    }

    /// Sets whether the listeners stay open when the master dies.
    pub(crate) fn keep_listeners(&self, keep: bool) {
        self.board.keeps_listeners.store(keep, SeqCst);
    }

    /// Returns the flag that says whether the listeners stay open when the master dies. Workers read it.
    pub(crate) fn keeps_listeners(&self) -> SharedRef<AtomicBool> {
        SharedRef::new(&self.board, |board| &board.keeps_listeners)
    }

    pub(crate) fn reload(&self) {
        self.board.generation.fetch_add(1, SeqCst);
    }

    /// Changes the number of workers. If the user set no connection limit, the limit changes with it.
    pub(crate) fn set_wanted(&self, count: usize, permits: &Permits) {
        self.board.wanted.store(count, SeqCst);
        self.renew(permits);
    }

    pub(crate) fn set_limit(&self, limit: usize, permits: &Permits) {
        self.board.asked.store(limit, SeqCst);
        self.renew(permits);
    }

    fn renew(&self, permits: &Permits) {
        let wanted = self.wanted();
        let follows = wanted.saturating_mul(self.board.each.load(SeqCst));
        let asked = Some(self.board.asked.load(SeqCst)).filter(|n| *n > 0);
        // More than the workers can serve is no limit: it would promise permits that no worker has.
        let most = wanted.saturating_mul(self.board.most_each.load(SeqCst));
        permits.set_limit(asked.unwrap_or(follows).min(most));
    }

    /// Returns the states of all workers, past and present.
    pub(crate) fn states(&self) -> impl Iterator<Item = &SharedState> {
        self.slots.0.iter().take(self.board.used.load(SeqCst)).map(|slot| &slot.state)
    }

    /// Takes a slot for a new worker. `None` if all are taken.
    pub(crate) fn take(&self) -> Option<SharedRef<WorkerSlot>> {
        let index = self.board.taken.iter().position(|taken| !taken.swap(true, SeqCst))?;
        self.board.used.fetch_max(index + 1, SeqCst);
        Some(SharedRef::new(&self.slots, |slots| &*slots.0[index]))
    }

    /// Gives a slot back whose worker has ended.
    pub(crate) fn give_back(&self, slot: &WorkerSlot) {
        self.place_of(slot).into_iter().for_each(|index| self.board.taken[index].store(false, SeqCst));
    }

    /// Returns the place of a slot.
    pub(super) fn place_of(&self, slot: &WorkerSlot) -> Option<usize> {
        (0..self.board.used.load(SeqCst)).find(|at| std::ptr::eq(&*self.slots.0[*at], slot))
    }
}

#[cfg(test)]
#[test]
fn the_slot_of_a_worker_takes_one_page() {
    assert!(std::mem::size_of::<WorkerSlot>() <= 4096, "{} bytes", std::mem::size_of::<WorkerSlot>());
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
    /// `before` is what the counters were when the worker began.
    pub(crate) fn settle(&self, how: LostWith, before: &Report) -> u64 {
        let counters = &self.state.counters;
        // A worker that was taken over may have written anything. What it cannot have counted is not kept.
        if !counters.totals().may_follow(before) {
            counters.reset(before);
        }
        let totals = counters.totals();
        // Each accepted connection ends in one of these counters. The rest had not ended.
        let lost = totals.accepted.saturating_sub(totals.ended());
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
        self.wishes.fulfil(drop);
        self.wants_successor.store(0, SeqCst);
        self.result.store(0, SeqCst);
        // The counters go on: the new worker's connections count from here.
        let accepted = self.accepted();
        self.recycle_at.store(requests.map_or(u64::MAX, |n| accepted.saturating_add(n)), SeqCst);
    }

    /// Returns the number of connections that this slot's workers have accepted, the present one's included.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.counters.totals().accepted
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
    pub(crate) fn successor_wish(&self) -> &AtomicU8 {
        &self.wants_successor
    }

    pub(crate) fn wants_successor(&self) -> bool {
        self.wants_successor.load(SeqCst) != 0
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
