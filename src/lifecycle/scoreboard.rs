//! What a master and its workers see alike: memory that outlives each of them, and needs no lock.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lifecycle::{Block, Permits};
use crate::sync::atomic::AtomicUsize as Left;
use crate::sys::shared::Shared;
use crate::sys::{limits, process};

/// As many processes have a place in the memory, those that are on their way out included. Pages that nobody uses cost
/// nothing.
const DESKS: usize = 2048;
/// Most workers of one pool.
pub(crate) const MOST_WORKERS: usize = 512;
/// Most listeners whose queues are served to the end at a stop.
pub(crate) const LISTENERS: usize = 64;

/// The memory of a server with worker processes.
#[derive(Debug)]
pub(crate) struct Pool {
    /// How many workers there are to be.
    wanted: AtomicUsize,
    /// Workers of an earlier one are to be replaced.
    generation: AtomicU64,
    /// The connection limit that was asked for; 0: as many as the workers can serve by default.
    asked: AtomicUsize,
    /// How many connections one worker serves by default, and at the most.
    each: AtomicUsize,
    most_each: AtomicUsize,
    /// Desks from here on have never been used.
    used: AtomicUsize,
    /// At a stop: what each kernel queue held, and is still served.
    last: [Left; LISTENERS],
    desks: [Desk; DESKS],
}

/// One worker's part. Its counters go on with its successor's.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) block: Block,
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

/// A desk that somebody has.
#[derive(Debug, Clone)]
pub(crate) struct DeskRef {
    pool: Arc<Shared<Pool>>,
    index: usize,
}

impl Pool {
    /// For a server: `limit` is what was asked for, if something was.
    pub(crate) fn for_server(
        workers: usize,
        limit: Option<usize>,
        each: usize,
        most: usize,
    ) -> io::Result<Arc<Shared<Self>>> {
        let pool = Shared::<Self>::new()?;
        pool.wanted.store(workers, SeqCst);
        pool.asked.store(limit.unwrap_or(0), SeqCst);
        pool.each.store(each, SeqCst);
        pool.most_each.store(most, SeqCst);
        Ok(Arc::new(pool))
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

    pub(crate) fn last(&self) -> &[Left] {
        &self.last
    }

    pub(crate) fn count_the_last(&self, queued: impl Iterator<Item = usize>) {
        self.last.iter().zip(queued).for_each(|(last, queued)| last.store(queued, SeqCst));
    }

    pub(crate) fn has_last(&self) -> bool {
        self.last.iter().any(|last| last.load(SeqCst) > 0)
    }

    pub(crate) fn forget_the_last(&self) {
        self.last.iter().for_each(|last| last.store(0, SeqCst));
    }

    /// Of all workers there are or have been.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.desks.iter().take(self.used.load(SeqCst)).map(|desk| &desk.block)
    }

    /// A desk for a new worker; `None` where all are taken.
    pub(crate) fn take(pool: &Arc<Shared<Self>>) -> Option<DeskRef> {
        let index = (0..DESKS).find(|i| !pool.desks[*i].taken.swap(true, SeqCst))?;
        pool.used.fetch_max(index + 1, SeqCst);
        Some(DeskRef { pool: pool.clone(), index })
    }
}

/// How connections were lost with their worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It has crashed.
    Crashed,
    /// It has ended in order, without them.
    Left,
    /// It was ended at the drain limit.
    Cut,
}

impl Desk {
    /// The worker is gone: what it had not counted yet has failed. How many that were.
    pub(crate) fn settle(&self, how: Lost) -> u64 {
        let (counters, totals) = (&self.block.counters, self.block.counters.totals());
        let ended = totals.served + totals.failed + totals.disconnected + totals.refused;
        let lost = totals.accepted.saturating_sub(ended);
        counters.failed.fetch_add(lost, SeqCst);
        match how {
            Lost::Crashed => drop(counters.crashed.fetch_add(lost, SeqCst)),
            Lost::Left => {}
            Lost::Cut => {
                counters.timed_out.fetch_add(lost, SeqCst);
                counters.forced.fetch_add(lost, SeqCst);
            }
        }
        self.block.permits.clear();
        lost
    }

    /// For a new worker, which wants a successor after so many connections.
    pub(crate) fn prepare(&self, requests: Option<u64>) {
        self.block.switch.clear();
        self.block.permits.clear();
        self.beat.store(0, SeqCst);
        self.wants_successor.store(false, SeqCst);
        self.result.store(0, SeqCst);
        let accepted = self.block.counters.totals().accepted;
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

    /// Asks for a successor; whether this is new.
    pub(crate) fn want_successor(&self) -> bool {
        !self.wants_successor.swap(true, SeqCst)
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

impl DeskRef {
    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Deref for DeskRef {
    type Target = Desk;

    fn deref(&self) -> &Desk {
        &self.pool.desks[self.index]
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
