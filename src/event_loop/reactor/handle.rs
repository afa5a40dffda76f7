//! The loop from other threads.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::SegQueue;

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::team::Team;
use crate::event_loop::state::context::Context;
use crate::lifecycle::{Core, ServerHandle};
use crate::sys::EventFd;

pub(crate) type SentCall = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// What other threads want of the loop, in order.
pub(crate) struct Inbox {
    calls: SegQueue<SentCall>,
    pub(crate) bell: EventFd,
    /// Whether the bell has been rung since the loop last looked.
    rung: AtomicBool,
    closed: AtomicBool,
    /// Bytes that other loops have sent, and the loop has not taken.
    held: AtomicUsize,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        let (rung, closed, held) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { calls: SegQueue::new(), bell: EventFd::new()?, rung, closed, held })
    }

    pub(crate) fn send(&self, call: SentCall) -> Result<(), ReactorGone> {
        if self.closed.load(SeqCst) {
            return Err(ReactorGone);
        }
        self.calls.push(call);
        if !self.rung.swap(true, SeqCst) {
            self.bell.set();
        }
        Ok(())
    }

    /// What has been sent until now. What comes from here on rings again.
    pub(crate) fn take(&self) -> Vec<SentCall> {
        self.bell.clear();
        self.rung.store(false, SeqCst);
        std::iter::from_fn(|| self.calls.pop()).take(self.calls.len()).collect()
    }

    /// Keeps a place for so many bytes, if there is one among `limit`.
    pub(crate) fn reserve(&self, bytes: usize, limit: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        self.held.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// They are the loop's own now.
    pub(crate) fn took(&self, bytes: usize) {
        self.held.fetch_sub(bytes, SeqCst);
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, SeqCst);
        drop(self.take());
    }
}

/// The loop from other threads: the only way in, since a [`Reactor`](crate::Reactor) does not leave its own. Clone it,
/// keep it, send it.
///
/// Of the loops of [`EventLoops`](crate::EventLoops) each has its own, which [`Context::handle`] gives, in
/// [`start_factory`](crate::Factory::start_factory) at the earliest. Its calls are that loop's; what is meant for a
/// connection goes to the loop that has it, whichever handle is used.
///
/// ```
/// use std::time::Duration;
/// use socketserver::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let handle = reactor.handle();
/// let other = std::thread::spawn(move || handle.call_from_thread(|cx| cx.stop()));
/// reactor.run()?;                                       // until the call from the other thread
/// assert!(other.join().unwrap().is_ok());
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Clone)]
pub struct ReactorHandle {
    inbox: Arc<Inbox>,
    team: Arc<Team>,
    core: Arc<Core>,
}

impl ReactorHandle {
    pub(crate) fn new(team: &Arc<Team>, number: usize, core: &Arc<Core>) -> Self {
        Self { inbox: team.inbox(number).clone(), team: team.clone(), core: core.clone() }
    }

    /// Of the loop that has this connection; of this handle's, where the connection is none of the server's.
    fn inbox_of(&self, id: ConnId) -> &Arc<Inbox> {
        self.team.inbox_at(id.home()).unwrap_or(&self.inbox)
    }

    /// Has `call` called by the loop, which is woken: in the order of the calls, those of one thread and those of
    /// several, as they arrive. Calls that are sent while others run wait for the next turn. Before the loop runs they
    /// are kept.
    /// A panic in it is contained and logged.
    ///
    /// # Errors
    /// [`ReactorGone`] once the reactor has been dropped. A call that is sent at that very moment may be dropped.
    pub fn call_from_thread(&self, call: impl FnOnce(&mut Context<'_>) + Send + 'static) -> Result<(), ReactorGone> {
        self.inbox.send(Box::new(call))
    }

    /// Queues bytes for a connection. That it is gone by then does not show; use
    /// [`call_from_thread`](Self::call_from_thread) and [`Context::write_to`] to know. Until the loop takes them they count
    /// for no limit: who sends faster than the loop turns asks by such a call now and then.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn write(&self, id: ConnId, bytes: impl Into<Vec<u8>>) -> Result<(), ReactorGone> {
        let bytes = bytes.into();
        self.inbox_of(id).send(Box::new(move |cx| {
            cx.write_to(id, &bytes);
        }))
    }

    /// Sends a message to a connection's [`Protocol::message`](crate::Protocol::message). That the connection is gone by
    /// then does not show.
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn post(&self, id: ConnId, message: impl Any + Send) -> Result<(), ReactorGone> {
        self.inbox_of(id).send(Box::new(move |cx| {
            cx.post(id, message);
        }))
    }

    /// As [`Context::stop`].
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn stop(&self) -> Result<(), ReactorGone> {
        self.call_from_thread(|cx| cx.stop())
    }

    /// As [`Context::shutdown`].
    ///
    /// # Errors
    /// As [`call_from_thread`](Self::call_from_thread).
    pub fn shutdown(&self, grace: Duration) -> Result<(), ReactorGone> {
        self.call_from_thread(move |cx| cx.shutdown(grace))
    }

    /// Counters, limits, pause and stop, as a server has them.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.core.clone() }
    }
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle").finish_non_exhaustive()
    }
}

/// The reactor has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReactorGone;

impl fmt::Display for ReactorGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor has been dropped")
    }
}

impl std::error::Error for ReactorGone {}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;
    use crate::sys;

    /// The count that the bell holds: how often it was rung since it was looked at.
    fn rung(inbox: &Inbox) -> u64 {
        let mut count = [0; 8];
        match sys::read_if_ready(inbox.bell.as_fd(), &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn many_calls_ring_once() {
        let inbox = Arc::new(Inbox::new().unwrap());
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let inbox = inbox.clone();
                thread::spawn(move || (0..250).for_each(|_| inbox.send(Box::new(|_| ())).unwrap()))
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(rung(&inbox), 1, "one system call for a thousand calls");
        assert_eq!((inbox.take().len(), rung(&inbox)), (1000, 0));
        inbox.send(Box::new(|_| ())).unwrap();
        assert_eq!((rung(&inbox), inbox.take().len()), (1, 1), "what comes after the look rings again");
    }

    #[test]
    fn no_call_is_left_without_a_ring() {
        let inbox = Arc::new(Inbox::new().unwrap());
        let theirs = inbox.clone();
        let sender = thread::spawn(move || (0..20_000).for_each(|_| theirs.send(Box::new(|_| ())).unwrap()));
        let mut taken = 0;
        while taken < 20_000 {
            let ready = sys::poll([Some(inbox.bell.as_fd())], None, Some(Duration::from_secs(10))).unwrap();
            assert!(!ready.none(), "{taken} taken, and nobody rings");
            taken += inbox.take().len();
        }
        sender.join().unwrap();
    }
}
