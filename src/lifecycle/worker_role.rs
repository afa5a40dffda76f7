//! A worker's side: what it is, and what it tells its master.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::lifecycle::{Core, DeskRef};
use crate::sys::process;

/// What the worker has written into its pipe when it is ready. Other bytes are its last words.
pub(crate) const READY: u8 = 0;

/// The part of a worker's core that makes it one. Its master holds it too.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) master: Arc<Core>,
    pub(crate) desk: DeskRef,
    /// Its number among the workers, which its successor has after it.
    pub(crate) place: usize,
    /// How long its heart may stand still.
    pub(crate) heartbeat: Option<Duration>,
    /// What it tells its master with; the master lets go of it.
    pub(crate) pipe: Mutex<Option<OwnedFd>>,
    is_ready: AtomicBool,
}

impl Post {
    pub(crate) fn new(
        master: &Arc<Core>,
        desk: DeskRef,
        place: usize,
        heartbeat: Option<Duration>,
        pipe: OwnedFd,
    ) -> Self {
        let (pipe, is_ready) = (Mutex::new(Some(pipe)), AtomicBool::new(false));
        Self { master: master.clone(), desk, place, heartbeat, pipe, is_ready }
    }

    /// It listens.
    pub(crate) fn tell_ready(&self) {
        if !self.is_ready.load(SeqCst) && !self.is_ready.swap(true, SeqCst) {
            self.tell(&[READY]);
        }
    }

    /// Into the pipe; a master that is gone, or has no room, does not hear it.
    pub(crate) fn tell(&self, bytes: &[u8]) {
        if let Some(pipe) = &*self.pipe.lock() {
            let _ = nix::unistd::write(pipe, bytes);
        }
    }

    /// A connection has come, the how manieth of this desk.
    pub(crate) fn has_accepted(&self, accepted: u64) {
        if self.desk.is_to_be_recycled_at(accepted) {
            self.want_successor();
        }
    }

    /// Asks the master for a successor. Async-signal-safe.
    pub(crate) fn want_successor(&self) {
        if self.desk.want_successor() {
            self.master.control.ring();
        }
    }

    /// The serving thread is not stuck.
    pub(crate) fn beat(&self) {
        self.beat_at(self.millis());
    }

    /// Of several serving threads, the one that has been heard of least has given a sign of life then.
    pub(crate) fn beat_at(&self, millis: u64) {
        self.desk.set_beat(millis);
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
    pub(crate) fn let_go(&self) {
        *self.pipe.lock() = None;
    }

    /// In the worker: its own children have no business with it.
    pub(crate) fn keep(&self) {
        self.pipe.lock().iter().for_each(process::own);
    }
}
