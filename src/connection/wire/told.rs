//! What a forked child tells its parent, in memory that both see.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::net::Moved;
use crate::sys::shared::SharedRef;

/// What a forked child tells its parent while it serves, in memory that both see.
#[derive(Debug)]
pub(crate) struct Told {
    /// The time at which the request must have ended: milliseconds after the control's epoch. 0: no limit
    /// runs. By it the parent ends a child that spins, and none that rightly waits for its next request.
    pub(crate) deadline: AtomicU64,
    /// [`EXECUTES`] if the child becomes another program, whose exit code then counts. A child may write anything here,
    /// so no other number means that, and it is not of type bool.
    executes: AtomicU64,
    /// The bytes that were read and written so far.
    pub(crate) read: AtomicU64,
    pub(crate) written: AtomicU64,
}

/// No stray write looks like this.
const EXECUTES: u64 = 0x5a17_ec5e_c0de_0001;

impl Told {
    /// True if the child has become another program, or was about to.
    pub(crate) fn executes(&self) -> bool {
        self.executes.load(SeqCst) == EXECUTES
    }
}

/// In a forked child: the place where the parent reads when the request must have ended, and how far it has come.
pub(crate) struct ParentDeadline {
    pub(super) place: SharedRef<Told>,
    /// The last value written there, so that an equal value is not written again.
    pub(super) last: Cell<u64>,
}

impl ParentDeadline {
    /// Writes a deadline in the milliseconds of `Control::millis`. 0: there is none.
    pub(crate) fn set(&self, millis: u64) {
        if millis != self.last.replace(millis) {
            self.place.deadline.store(millis, SeqCst);
        }
    }

    /// Notes if this process becomes another program.
    pub(in crate::connection) fn note_program(&self, executes: bool) {
        self.place.executes.store(if executes { EXECUTES } else { 0 }, SeqCst);
    }

    pub(crate) fn set_moved(&self, moved: Moved) {
        self.place.read.store(moved.read, Relaxed);
        self.place.written.store(moved.written, Relaxed);
    }
}

impl fmt::Debug for ParentDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ParentDeadline").field(&self.last.get()).finish()
    }
}
