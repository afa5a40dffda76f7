//! The gate: where threads wait for a permit, or rest until a connection ends.
//!
//! One thread at a time waits for the gate's eventfd; the others queue behind its lock. A signal handler and an ending
//! connection can set an eventfd, but neither can notify a condition variable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::permit::Permit;
use crate::config::AtLimit;
use crate::lifecycle::{Awaited, Core};
use crate::sync::{left, MutexGuard};
use crate::sys;

/// What the gate answers.
pub(crate) enum Answer {
    Permit(Permit),
    /// The limit is reached, and the server refuses there.
    Full,
    /// The watched descriptor is readable.
    Watched,
    Timeout,
    /// The server stops; at a stop: the drain is over.
    Stopped,
}

/// The gate, as one thread comes to it.
pub(crate) struct Gate<'a> {
    core: &'a Arc<Core>,
    /// Ends the wait when it becomes readable.
    watched: Option<BorrowedFd<'a>>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, watched: Option<BorrowedFd<'a>>) -> Self {
        Self { core, watched }
    }

    /// A permit: the `reserved` one, or another, at once as a rule. At the limit it waits or answers
    /// [`Full`](Answer::Full), as the server is set; while accepting is paused it waits for the resume.
    pub(crate) fn permit(&self, mut reserved: Option<Permit>, deadline: Option<Instant>) -> io::Result<Answer> {
        if !self.core.control.paused() {
            if let Some(permit) = reserved.take().or_else(|| Permit::reserve(self.core)) {
                return Ok(Answer::Permit(permit));
            }
            if matches!(self.core.settings.at_limit, AtLimit::Refuse(_)) {
                return Ok(Answer::Full);
            }
        }
        self.wait(reserved, deadline, false)
    }

    /// A permit for what was queued at the stop, until the drain is over.
    pub(crate) fn permit_at_stop(&self, deadline: Option<Instant>) -> io::Result<Answer> {
        self.wait(None, deadline, true)
    }

    /// Waits for a permit; with a `reserved` one, for the resume only.
    fn wait(&self, mut reserved: Option<Permit>, deadline: Option<Instant>, at_stop: bool) -> io::Result<Answer> {
        let (core, control) = (self.core, &self.core.control);
        let drain = || core.drain_deadline().filter(|_| at_stop);
        let until = || drain().into_iter().chain(deadline).min();
        let is_over = || control.stopping() != at_stop || control.is_cut() || left(drain()) == Some(Duration::ZERO);
        let gate = match until() {
            None => Some(core.admission.gate.lock()),
            Some(until) => core.admission.gate.try_lock_until(until),
        };
        // Without the lock the eventfd is not this thread's to clear: another one waits for it.
        let Some(gate) = gate else { return Ok(if is_over() { Answer::Stopped } else { Answer::Timeout }) };
        let _awaiting = Awaiting::mark(core, gate, Awaited::Permit);
        loop {
            // Cleared before the looks below, so that what changes after them ends the wait.
            control.gate.clear();
            if is_over() {
                return Ok(Answer::Stopped);
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(Answer::Timeout);
            }
            if !control.paused() {
                if let Some(permit) = reserved.take().or_else(|| Permit::reserve(core)) {
                    return Ok(Answer::Permit(permit));
                }
            }
            let stop = if at_stop { &control.now } else { &control.stop };
            let ready = sys::poll([Some(control.gate.as_fd()), Some(stop.as_fd()), self.watched], None, left(until()))?;
            if ready.has(2) {
                return Ok(Answer::Watched);
            }
        }
    }

    /// Rests until one of our connections ends, the server stops, or the time is over.
    pub(crate) fn rest(&self, time: Duration) -> io::Result<()> {
        let core = self.core;
        let Some(gate) = core.admission.gate.try_lock() else {
            drop(core.admission.gate.try_lock_for(time)); // another thread rests already: as long as that one
            return Ok(());
        };
        let _awaiting = Awaiting::mark(core, gate, Awaited::End);
        core.control.gate.clear();
        sys::poll([Some(core.control.gate.as_fd()), Some(core.control.stop.as_fd())], None, Some(time)).map(drop)
    }
}

/// While it lives, a permit that comes back sets the gate's eventfd. It holds the gate's lock to its end.
struct Awaiting<'a> {
    core: &'a Core,
    _gate: MutexGuard<'a, ()>,
}

impl<'a> Awaiting<'a> {
    fn mark(core: &'a Core, gate: MutexGuard<'a, ()>, awaited: Awaited) -> Self {
        core.admission.permits.await_return(awaited);
        Self { core, _gate: gate }
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.core.admission.permits.await_return(Awaited::Nothing);
    }
}
