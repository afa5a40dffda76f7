//! The gate: where threads wait for a permit, or rest until a connection ends.
//!
//! One thread at a time waits for the gate's eventfd; the others queue behind its lock. A signal handler and
//! an ending connection can set an eventfd, but neither can notify a condition variable.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::permit::Permit;
use crate::config::AtLimit;
use crate::lifecycle::{Awaited, Core};
use crate::sync::{left, MutexGuard};
use crate::sys;

/// The gate's answer to a thread that wants a permit.
pub(crate) enum Answer {
    Permit(Permit),
    /// The limit is reached, and the server refuses there.
    Full,
    /// The watched descriptor is readable.
    Watched,
    Timeout,
    /// The server stops. During a drain: the drain is over.
    Stopped,
}

/// The gate, as one thread uses it.
pub(crate) struct Gate<'a> {
    core: &'a Arc<Core>,
    /// The wait ends when this becomes readable.
    watched: Option<BorrowedFd<'a>>,
}

impl<'a> Gate<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, watched: Option<BorrowedFd<'a>>) -> Self {
        Self { core, watched }
    }

    /// Gives a permit: the `reserved` permit, or a new one. Below the limit it does so at once. At the limit
    /// it waits or answers [`Full`](Answer::Full), as the server is set. While accepting is paused it waits
    /// for the resume.
    pub(crate) fn permit(&self, mut reserved: Option<Permit>, deadline: Option<Instant>) -> io::Result<Answer> {
        if !self.core.control.paused() {
            if let Some(permit) = reserved.take().or_else(|| Permit::reserve(self.core)) {
                return Ok(Answer::Permit(permit));
            }
            if self.refuses() {
                return Ok(Answer::Full);
            }
        }
        self.wait(reserved, deadline, false)
    }

    fn refuses(&self) -> bool {
        matches!(self.core.settings.at_limit, AtLimit::Refuse(_))
    }

    /// Gives a permit for a connection that was queued at the stop. It waits until the drain is over.
    pub(crate) fn permit_at_stop(&self, deadline: Option<Instant>) -> io::Result<Answer> {
        self.wait(None, deadline, true)
    }

    /// Waits for a permit. With a `reserved` permit it waits for the resume only.
    fn wait(&self, mut reserved: Option<Permit>, deadline: Option<Instant>, at_stop: bool) -> io::Result<Answer> {
        // A drain may be brought forward at any time, so its end is asked for anew in each round.
        let (core, control) = (self.core, &self.core.control);
        let drain = || core.drain_deadline().filter(|_| at_stop);
        let until = || drain().into_iter().chain(deadline).min();
        let is_over = || control.stopping() != at_stop || control.is_cut() || left(drain()) == Some(Duration::ZERO);
        let gate = match until() {
            None => Some(core.admission.gate.lock()),
            Some(until) => core.admission.gate.try_lock_until(until),
        };
        // One thread waits for the eventfd; the others queue for its lock. Without the lock a thread must not
        // clear the eventfd or the mark: it would take the wake-up from the thread that has the lock.
        let Some(gate) = gate else { return Ok(if is_over() { Answer::Stopped } else { Answer::Timeout }) };
        let _awaiting = Awaiting::mark(core, gate, Awaited::Permit);
        loop {
            // Cleared before the looks below: a change after them sets it again, and ends the wait.
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
                // A pause is over, and the limit is reached.
                if !at_stop && self.refuses() {
                    return Ok(Answer::Full);
                }
            }
            // During a drain `stop` stays readable, and would end each wait at once.
            let stop = if at_stop { control.now.as_fd() } else { control.stop_fd() };
            let ready = sys::poll([Some(control.gate.as_fd()), Some(stop), self.watched], None, left(until()))?;
            if ready.has(2) {
                return Ok(Answer::Watched);
            }
        }
    }

    /// Rests until one of our connections ends, the server stops, or the time is over. In a drain it rests until
    /// the drain is over. The end of a child of [`Forking`](crate::Forking) makes the watched descriptor readable.
    pub(crate) fn rest(&self, time: Duration, awaited: Awaited) -> io::Result<()> {
        let core = self.core;
        let stops = core.control.stopping();
        let time = left(core.drain_deadline().filter(|_| stops)).map_or(time, |left| left.min(time));
        let Some(gate) = core.admission.gate.try_lock() else {
            // Another thread waits at the gate. Its rest is over when it drops the lock.
            drop(core.admission.gate.try_lock_for(time));
            return Ok(());
        };
        let _awaiting = Awaiting::mark(core, gate, awaited);
        core.control.gate.clear();
        // During a drain `stop` stays readable, and would end each rest at once.
        let stop = if stops { core.control.now.as_fd() } else { core.control.stop_fd() };
        sys::poll([Some(core.control.gate.as_fd()), Some(stop), self.watched], None, Some(time)).map(drop)
    }
}

/// Marks the thread as waiting at the gate. While the mark lives, a permit that comes back sets the gate's
/// eventfd. Without a mark, a permit that comes back costs no system call. The mark holds the gate's lock.
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
