//! A worker's side: what it is, and what it tells its master.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::Core;
use super::scoreboard::{Scoreboard, WorkerSlot};
use crate::listen::QueueCounts;
use crate::sys::process::Private;
use crate::sys::shared::{Shared, SharedRef};
use crate::sys::worker::SuccessorWish;

/// What the worker has written into its pipe when it is ready. Other bytes are its last words.
pub(crate) const READY: u8 = 0;

/// The part of a worker's core that makes it one. Its master holds it too.
#[derive(Debug)]
pub(crate) struct WorkerRole {
    pub(crate) master: Arc<Core>,
    pub(crate) scoreboard: Arc<Shared<Scoreboard>>,
    pub(crate) slot: SharedRef<WorkerSlot>,
    /// Its number among the workers, which its successor has after it.
    pub(crate) place: usize,
    /// How long its heart may stand still.
    pub(crate) heartbeat: Option<Duration>,
    /// What it tells its master with; the master lets go of it.
    pub(crate) pipe: Mutex<Option<Private>>,
    is_ready: AtomicBool,
    pub(crate) successor: SuccessorWish,
}

impl WorkerRole {
    pub(crate) fn new(
        master: &Arc<Core>,
        (scoreboard, slot): (Arc<Shared<Scoreboard>>, SharedRef<WorkerSlot>),
        place: usize,
        heartbeat: Option<Duration>,
        pipe: Private,
    ) -> Self {
        let (pipe, is_ready) = (Mutex::new(Some(pipe)), AtomicBool::new(false));
        let successor = SuccessorWish::new(slot.map(WorkerSlot::successor_wish), master.control.switch());
        Self { master: master.clone(), scoreboard, slot, place, heartbeat, pipe, is_ready, successor }
    }

    /// What the master counts at the stop, for all workers.
    pub(crate) fn queue_counts(&self) -> SharedRef<QueueCounts> {
        SharedRef::new(&self.scoreboard, |scoreboard| &scoreboard.queued)
    }

    /// It listens.
    pub(crate) fn report_ready(&self) {
        if !self.is_ready.load(SeqCst) && !self.is_ready.swap(true, SeqCst) {
            self.say(&[READY]);
        }
    }

    /// Into the pipe; a master that is gone, or has no room, does not hear it.
    pub(crate) fn say(&self, bytes: &[u8]) {
        if let Some(pipe) = &*self.pipe.lock() {
            let _ = nix::unistd::write(pipe, bytes);
        }
    }

    /// A connection has come, the how manieth of this slot.
    pub(crate) fn note_accepted(&self, accepted: u64) {
        if self.slot.is_to_be_recycled_at(accepted) {
            self.successor.express();
        }
    }

    /// The serving thread is not stuck.
    pub(crate) fn beat(&self) {
        self.beat_at(self.millis());
    }

    /// Of several serving threads, the one that has been heard of least has given a sign of life then.
    pub(crate) fn beat_at(&self, millis: u64) {
        self.slot.set_beat(millis);
    }

    /// The time of these beats.
    pub(crate) fn millis(&self) -> u64 {
        self.master.control.millis(Instant::now())
    }

    /// Often enough that three may come late.
    pub(crate) fn beats_every(&self) -> Option<Duration> {
        self.heartbeat.map(|time| (time / 4).max(Duration::from_millis(1)))
    }

    /// In the master, once the worker has it.
    pub(crate) fn close_pipe(&self) {
        *self.pipe.lock() = None;
    }
}
