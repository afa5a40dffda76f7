//! [`StopSwitch`]: the request to stop, as far as a signal handler makes it.
//!
//! A handler may use atomics, read the clock and `write` to an eventfd (signal-safety(7)). It may not lock,
//! allocate or panic. So the stop has no condition variable: every wait is a wait for a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::fork;
use super::process::Private;
use super::shared::SharedRef;
use super::wishes::{ChildPipes, Wish, Wishes};
use super::EventFd;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering::SeqCst};
use crate::sync::now;

const RUN: u8 = 0;
const DRAIN: u8 = 1;
const NOW: u8 = 2;

/// The stop as it stands, in memory that forked children see too.
#[derive(Debug, Default)]
pub(crate) struct StopLevel {
    level: AtomicU8,
    /// The time of the first request to stop: nanoseconds after the switch's epoch, plus one. Zero before a
    /// request.
    stopped_at: AtomicU64,
    /// The mark of the process that has begun to serve last. Zero: none has.
    served_by: AtomicU64,
}

impl StopLevel {
    /// Takes the request over from the memory of the process that this one was forked from.
    pub(crate) fn carry_on(&self, old: &Self) {
        self.level.store(old.level.load(SeqCst), SeqCst);
        self.stopped_at.store(old.stopped_at.load(SeqCst), SeqCst);
    }

    pub(crate) fn clear(&self) {
        self.level.store(RUN, SeqCst);
        self.stopped_at.store(0, SeqCst);
    }
}

/// What a signal of this process means for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ear {
    /// The signal stops the server.
    Obeys,
    /// This process was forked since the bind, and no process serves yet. This one may be about to.
    Waits,
    /// Another process serves.
    Deaf,
}

/// Requests a stop, and wakes the threads that wait. Each eventfd wakes other threads.
#[derive(Debug)]
pub(crate) struct StopSwitch {
    state: SharedRef<StopLevel>,
    /// Times in shared memory count from here.
    pub(crate) epoch: Instant,
    /// The mark of the process whose server this is.
    owner: AtomicU64,
    /// True if this is a forked child. A child keeps none of the eventfds below.
    in_child: AtomicBool,
    /// Where a forked child asks its parent for what it may not do itself.
    parent: Mutex<Option<Parent>>,
    /// In a forked child: the level that it has asked its parent for.
    asked: AtomicU8,
    /// In a forked child: true once it has seen that its parent is gone.
    is_orphan: AtomicBool,
    /// What children have instead of the eventfds. Made before the first fork.
    pipes: OnceLock<Arc<ChildPipes>>,
    /// Readable from the request to stop until the next run, for all threads. Every wait includes it, by
    /// [`stop_fd`](StopSwitch::stop_fd).
    stop: Private<EventFd>,
    /// Readable from the urgent stop until the next run. Threads that know of the stop already wait for it.
    pub(crate) now: Private<EventFd>,
    /// Set for the thread that supervises or drains: a connection or a worker ended, the limit was changed,
    /// or the stop became urgent.
    pub(crate) events: Private<EventFd>,
}

/// The way from a forked child to its parent.
#[derive(Debug)]
struct Parent {
    wishes: SharedRef<Wishes>,
    pipes: Arc<ChildPipes>,
}

impl StopSwitch {
    pub(crate) fn new(state: SharedRef<StopLevel>, epoch: Instant) -> io::Result<Self> {
        let event_fd = || EventFd::new().map(Private::new);
        let (stop, now, events) = (event_fd()?, event_fd()?, event_fd()?);
        let owner = AtomicU64::new(fork::this_process());
        let (parent, asked, pipes) = (Mutex::new(None), AtomicU8::new(RUN), OnceLock::new());
        let (in_child, is_orphan) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { state, epoch, owner, in_child, parent, asked, is_orphan, pipes, stop, now, events })
    }

    /// True if the server is this process's: it was made here, or has been served here. False in a process that was
    /// forked since.
    pub(crate) fn is_own(&self) -> bool {
        self.owner.load(SeqCst) == fork::this_process()
    }

    /// Tells the processes that this one was forked from, and those with the same memory, that it serves.
    pub(crate) fn tell_who_serves(&self) {
        self.state.served_by.store(fork::this_process(), SeqCst);
    }

    /// Makes the server this process's, once it has memory and descriptors of its own.
    pub(crate) fn own(&self) {
        self.owner.store(fork::this_process(), SeqCst);
        self.tell_who_serves();
    }

    /// Returns what a signal of this process means for the server. Async-signal-safe.
    pub(crate) fn ear(&self) -> Ear {
        let (owner, server) = (self.owner.load(SeqCst), self.state.served_by.load(SeqCst));
        match (fork::is_this_process(owner), server) {
            (true, server) if server == 0 || server == owner => Ear::Obeys,
            (false, 0) => Ear::Waits,
            _ => Ear::Deaf,
        }
    }

    /// Marks a forked child, which closes the eventfds. What it asks for it writes into `wishes`, and rings by
    /// these pipes.
    pub(crate) fn enter_child(&self, wishes: SharedRef<Wishes>, pipes: Arc<ChildPipes>) {
        *self.parent.lock() = Some(Parent { wishes, pipes });
        self.in_child.store(true, SeqCst);
    }

    /// Returns the pipes for children. Call it before each fork: after a stop it makes one anew.
    pub(crate) fn pipes(&self) -> io::Result<&Arc<ChildPipes>> {
        if self.pipes.get().is_none() {
            let _ = self.pipes.set(Arc::new(ChildPipes::new()?));
        }
        let pipes = self.pipes.get().ok_or(io::ErrorKind::NotFound)?;
        if !self.stopping() {
            pipes.reopen_stop()?;
        }
        // A stop may have come before there was a pipe for it.
        if self.stopping() {
            pipes.close_stop();
        }
        Ok(pipes)
    }

    /// Returns the pipes for children, if there may be some.
    pub(crate) fn made_pipes(&self) -> Option<&Arc<ChildPipes>> {
        self.pipes.get()
    }

    /// In a forked child, asks the parent, and returns true. It does not wait for a stop, and for nothing else
    /// longer than 100 ms.
    pub(crate) fn wish(&self, wish: Wish) -> bool {
        if !self.in_child() {
            return false;
        }
        if let Some(parent) = &*self.parent.lock() {
            parent.wishes.express(wish);
            parent.pipes.ring();
            if !matches!(wish, Wish::Stop | Wish::StopNow) {
                parent.wishes.wait();
            }
        }
        true
    }

    /// Returns the eventfds.
    pub(crate) fn eventfds(&self) -> [&Private<EventFd>; 3] {
        [&self.stop, &self.now, &self.events]
    }

    /// Returns what is readable from the request to stop until the next run.
    pub(crate) fn stop_fd(&self) -> BorrowedFd<'_> {
        match self.pipes.get() {
            Some(pipes) if self.in_child() => pipes.stop(),
            _ => self.stop.as_fd(),
        }
    }

    pub(crate) fn in_child(&self) -> bool {
        self.in_child.load(SeqCst)
    }

    /// Returns the eventfd of the urgent stop. A forked child has none: its parent ends it instead.
    pub(crate) fn urgent(&self) -> Option<BorrowedFd<'_>> {
        (!self.in_child()).then(|| self.now.as_fd())
    }

    /// Wakes the thread that supervises or drains. Async-signal-safe.
    pub(crate) fn wake_supervisor(&self) {
        if !self.in_child() {
            self.events.set();
        }
    }

    /// Returns `at` in milliseconds after the server was made. Children write times for their parent so.
    pub(crate) fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }

    /// Requests a drain. Async-signal-safe. It does not wait: it may be called in a handler, which a wait
    /// would deadlock.
    pub(crate) fn request_stop(&self) {
        self.raise_to(DRAIN);
    }

    /// Requests an urgent stop, which waits for no connection. It also ends a drain in progress.
    pub(crate) fn request_stop_now(&self) {
        self.raise_to(NOW);
    }

    /// Tells the forked children of a stop that another process has requested: the master of this worker.
    pub(crate) fn pass_stop_on(&self) {
        if self.stopping() && !self.in_child() {
            self.pipes.get().into_iter().for_each(|pipes| pipes.close_stop());
        }
    }

    fn raise_to(&self, level: u8) {
        if self.wish(if level == NOW { Wish::StopNow } else { Wish::Stop }) {
            self.asked.fetch_max(level, SeqCst);
            return;
        }
        let nanos = u64::try_from((now() - self.epoch).as_nanos()).unwrap_or(u64::MAX - 1);
        // Once is enough, unless a run begins meanwhile. The state of a worker is in memory that the worker can
        // write, so it is not waited for.
        for _ in 0..16 {
            // The drain limit counts from the first request. A second one must not prolong the drain.
            let _ = self.state.stopped_at.compare_exchange(0, nanos + 1, SeqCst, SeqCst);
            // The state comes before the eventfds: a thread that is woken must find it.
            self.state.level.fetch_max(level, SeqCst);
            if level == NOW {
                self.now.set();
            }
            self.stop.set();
            if let Some(pipes) = self.pipes.get() {
                pipes.close_stop();
            }
            self.wake_supervisor();
            // A run that began in between may have cleared a part of this. Then once more, for that run.
            if self.state.level.load(SeqCst) >= level && self.state.stopped_at.load(SeqCst) != 0 {
                return;
            }
        }
    }

    /// Call it if [`stop_fd`](Self::stop_fd) is readable. In a forked child it is also if the parent is gone, which has
    /// told no stop.
    pub(crate) fn note_lost_parent(&self) {
        // The parent tells a stop before it closes the pipe.
        if self.in_child() && self.state.stopped_at.load(SeqCst) == 0 {
            self.is_orphan.store(true, SeqCst);
        }
    }

    /// True in a forked child whose parent is gone. No stop comes any more, and waits for it would end at once, for ever.
    pub(crate) fn has_lost_parent(&self) -> bool {
        self.is_orphan.load(SeqCst)
    }

    pub(crate) fn stopping(&self) -> bool {
        self.state.level.load(SeqCst) != RUN || self.asked.load(SeqCst) != RUN
    }

    /// True if the stop leaves connections no time.
    pub(crate) fn is_urgent(&self) -> bool {
        self.state.level.load(SeqCst) == NOW
    }

    /// Returns the time at which connections are cut, if a drain may take `limit`. `None` before a stop is
    /// requested.
    pub(crate) fn drain_deadline(&self, limit: Duration) -> Option<Instant> {
        match (self.state.stopped_at.load(SeqCst), self.state.level.load(SeqCst)) {
            (0, _) | (_, RUN) => None,
            (at, NOW) => Some(self.epoch + Duration::from_nanos(at - 1)),
            (at, _) => (self.epoch + Duration::from_nanos(at - 1)).checked_add(limit),
        }
    }

    /// Takes back a stop that a run has obeyed. [`clear_eventfds`](Self::clear_eventfds) must follow:
    /// `raise_to` has the same order, and looks again.
    pub(crate) fn lower(&self) {
        self.state.clear();
    }

    /// Clears what announced the stop that was lowered.
    pub(crate) fn clear_eventfds(&self) {
        self.stop.clear();
        self.now.clear();
        self.events.clear();
        // A request that came in between is for this run. Its eventfds may have been cleared: set them again.
        match self.state.level.load(SeqCst) {
            RUN => {}
            level => self.raise_to(level),
        }
    }
}
