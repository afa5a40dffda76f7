//! [`WorkerRole`]: the part of a worker process's core that makes it a worker, and its reports to the master.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use super::core::Core;
use super::scoreboard::{Scoreboard, WorkerSlot, SLOTS};
use crate::listen::QueueCounts;
use crate::observe::log_line;
use crate::sys::process::Private;
use crate::sys::shared::SharedRef;
use crate::sys::wishes::ChildPipes;
use crate::sys::worker::{master_is_dead, SuccessorWish};

/// The byte that a worker writes into its pipe when it is ready. All other bytes are its last error text.
pub(crate) const READY: u8 = 0;

/// The role of a worker. Its master holds it too.
#[derive(Debug)]
pub(crate) struct WorkerRole {
    pub(crate) master: Arc<Core>,
    pub(crate) scoreboard: Arc<Scoreboard>,
    pub(crate) slot: SharedRef<WorkerSlot>,
    /// The place of the slot. No other living worker has the same.
    place: u64,
    /// Its number among the workers. Its successor has the same number.
    pub(crate) index: usize,
    /// The longest time between two heartbeats.
    pub(crate) heartbeat: Option<Duration>,
    /// The writing end of the pipe to its master. The master closes its own copy.
    pub(crate) pipe: Mutex<Option<Private>>,
    is_ready: AtomicBool,
    /// True if the log says that the master is gone.
    is_orphan: AtomicBool,
    pub(crate) successor: SuccessorWish,
}

impl WorkerRole {
    pub(crate) fn new(
        master: &Arc<Core>,
        (scoreboard, slot): (Arc<Scoreboard>, SharedRef<WorkerSlot>),
        index: usize,
        heartbeat: Option<Duration>,
        (pipe, pipes): (Private, &Arc<ChildPipes>),
    ) -> Self {
        let (pipe, is_ready, is_orphan) = (Mutex::new(Some(pipe)), AtomicBool::new(false), AtomicBool::new(false));
        let successor = SuccessorWish::new(slot.map(WorkerSlot::successor_wish), pipes);
        let place = scoreboard.place_of(&slot).unwrap_or(0) as u64;
        Self { master: master.clone(), scoreboard, slot, place, index, heartbeat, pipe, is_ready, is_orphan, successor }
    }

    /// Returns the lengths of the kernel's queues at the stop. The master counts them for all workers.
    pub(crate) fn queue_counts(&self) -> SharedRef<QueueCounts> {
        SharedRef::new(&self.scoreboard.queued, |queued| queued)
    }

    /// Tells the master, once, that this worker listens.
    pub(crate) fn report_ready(&self) {
        // Every seat comes here, so the usual case is one read.
        if !self.is_ready.load(SeqCst) && !self.is_ready.swap(true, SeqCst) {
            self.say(&[READY]);
        }
    }

    /// Says in the log, once, why this worker ends, if it is because its master is gone.
    pub(crate) fn report_lost_master(&self) {
        if master_is_dead() && !self.is_orphan.swap(true, SeqCst) {
            let (index, pid) = (self.index, std::process::id());
            let text = format_args!("worker {index} (process {pid}) serves what it has and ends: its master is gone");
            log_line(Level::Error, "socketserver::preforking", text);
        }
    }

    /// Writes into the pipe. If the master has ended, or the pipe is full, the bytes are lost.
    pub(crate) fn say(&self, bytes: &[u8]) {
        if let Some(pipe) = &*self.pipe.lock() {
            let _ = nix::unistd::write(pipe, bytes);
        }
    }

    /// Notes an accepted connection, and returns its number among those of all workers. `accepted` is this slot's
    /// total. At the recycle count, the worker asks for a successor.
    pub(crate) fn note_accepted(&self, accepted: u64) -> u64 {
        if self.slot.is_to_be_recycled_at(accepted) {
            self.successor.express();
        }
        accepted.wrapping_mul(SLOTS as u64).wrapping_add(self.place)
    }

    /// Notes a heartbeat: the serving thread is not stuck.
    pub(crate) fn beat(&self) {
        self.beat_at(self.millis());
    }

    /// Notes a heartbeat of several serving threads. `millis` is the oldest of their beats: a worker with one
    /// loop that hangs is a worker that hangs.
    pub(crate) fn beat_at(&self, millis: u64) {
        self.slot.set_beat(millis);
    }

    /// Returns the present time as the beats count it.
    pub(crate) fn millis(&self) -> u64 {
        self.master.control.millis(Instant::now())
    }

    /// Returns the pause between two beats: a quarter of the limit, so three beats may come late.
    pub(crate) fn beats_every(&self) -> Option<Duration> {
        self.heartbeat.map(|time| (time / 4).max(Duration::from_millis(1)))
    }

    /// Closes the pipe in the master, once the worker has its copy.
    pub(crate) fn close_pipe(&self) {
        *self.pipe.lock() = None;
    }
}
