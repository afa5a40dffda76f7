//! [`Lot`]: where connections that are served request by request wait for their next one. None of them has a thread.
//!
//! One epoll set serves a whole run. It has the listeners, the parked connections, the stop and a few wake-ups. The
//! threads that wait for work wait for this set. Listeners and connections are reported once (`EPOLLONESHOT`), so the
//! thread that gets one has it to itself, and arms it again when it is done. The kernel's list of what is ready is first
//! in, first out, and a thread takes one event at a time, and accepts one connection. So neither newcomers nor busy
//! clients keep the others waiting.
//!
//! The walk of a request: `Seat::next` → [`Lot::wait`] → `Request::run` → [`Visit::run`] → [`Lot::park`].
//! [`places`] has the connections, [`listening`] the listeners, [`stop`] what a stop does to all of them.

mod listening;
mod places;
mod stop;
mod visit;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use crate::connection::Poke;
use crate::lifecycle::{Core, WakeAtCut};
use crate::listen::Listener;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use crate::sync::SegQueue;
use crate::sys::process::Private;
use crate::sys::{Epoll, EventFd, Timer};

use listening::Listening;
use places::{Clock, Places};
pub(super) use visit::Visit;

// Tokens of the set. A parked connection's is its descriptor, so those of others begin above.
const STOP: u64 = 1 << 40;
const STOP_NOW: u64 = STOP + 1;
const GATE: u64 = STOP + 2;
const TIMER: u64 = STOP + 3;
const POKED: u64 = STOP + 4;
const LEAVE: u64 = STOP + 5;
const LISTENER: u64 = 1 << 41;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Lot {
    core: Arc<Core>,
    set: Private<Epoll>,
    places: Places,
    clock: Clock,
    /// Set when a limit of a parked connection, or the rest of a listener, is over.
    timer: Private<Timer>,
    /// The connections that another thread, or the timer, has taken up.
    poked: SegQueue<RawFd>,
    bell: Private<EventFd>,
    listening: Listening,
    /// The number of threads that wait.
    waiting: CachePadded<AtomicUsize>,
    /// Wakes all threads: a stop has nothing left for them to wait for.
    leave: Private<EventFd>,
    /// True once a thread has seen the stop.
    is_stopping: AtomicBool,
    /// How many rounds of [`Lot::end_idle`] have begun.
    rounds: AtomicUsize,
    /// True after the run: nobody waits here any more.
    is_over: AtomicBool,
}

/// What a thread has to do.
pub(super) enum Event {
    /// Serve a connection that was parked.
    Visit(Box<Visit>),
    /// Accept from this listener. No other thread does until it is armed again.
    Listener(usize),
    /// Nothing, but the state of the server may have changed.
    Other,
}

/// The descriptors of a lot.
pub(crate) const OF_A_LOT: usize = 4;

impl Lot {
    pub(super) fn new(core: &Arc<Core>, listeners: &[Listener]) -> io::Result<Arc<Self>> {
        let event_fd = || EventFd::new().map(Private::new);
        let lot = Self {
            core: core.clone(),
            set: Private::new(Epoll::new()?),
            places: Places::default(),
            clock: Clock::default(),
            timer: Private::new(Timer::new()?),
            poked: SegQueue::new(),
            bell: event_fd()?,
            listening: Listening::default(),
            waiting: CachePadded::new(AtomicUsize::new(0)),
            leave: event_fd()?,
            is_stopping: AtomicBool::new(false),
            rounds: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        lot.set.add(core.control.stop_fd(), STOP)?;
        lot.set.add(&*core.control.gate, GATE)?;
        lot.set.add(&*lot.timer, TIMER)?;
        lot.set.add(&*lot.bell, POKED)?;
        lot.set.add(&*lot.leave, LEAVE)?;
        for (index, listener) in (0..).zip(listeners).filter(|(_, listener)| !listener.is_lost()) {
            lot.set.add_once(listener, LISTENER + index)?;
        }
        Ok(Arc::new(lot))
    }

    /// Waits for the next event, for at most `timeout`.
    pub(super) fn wait(&self, timeout: Option<Duration>, listeners: &[Listener]) -> io::Result<Event> {
        self.waiting.fetch_add(1, SeqCst);
        let token = self.set.wait(timeout);
        self.waiting.fetch_sub(1, SeqCst);
        Ok(match token? {
            None | Some(STOP | STOP_NOW | LEAVE) => Event::Other,
            Some(GATE) => {
                self.core.control.gate.clear();
                self.listen_again(listeners);
                Event::Other
            }
            Some(TIMER) => {
                self.look_at_limits(listeners);
                Event::Other
            }
            Some(POKED) => self.next_poked().map_or(Event::Other, Event::Visit),
            Some(token) if token >= LISTENER => Event::Listener((token - LISTENER) as usize),
            Some(fd) => self.take(fd as RawFd).map_or(Event::Other, Event::Visit),
        })
    }

    /// True if a thread waits for work.
    fn has_waiting(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Takes the next connection that was poked. While others are left, the bell goes on ringing.
    fn next_poked(&self) -> Option<Box<Visit>> {
        self.bell.clear();
        let visit = self.poked.pop().and_then(|fd| self.take(fd));
        if !self.poked.is_empty() {
            self.bell.set();
        }
        visit
    }

    fn ring_for(&self, fd: RawFd) {
        self.poked.push(fd);
        self.bell.set();
    }
}

/// Readable while an event waits for a thread.
impl AsFd for Lot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

impl Poke for Lot {
    fn poke(&self, fd: RawFd) {
        if self.places.mark_poked(fd) {
            self.ring_for(fd);
        }
    }
}

/// At the cut, threads that wait here must look at the stop again.
impl WakeAtCut for Lot {
    fn wake(&self) {
        self.leave.set();
    }
}
