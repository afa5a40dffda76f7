//! A queue from other threads, with a bell.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::{fmt, io};

use crossbeam::queue::SegQueue;

use crate::sys::EventFd;

/// What other threads want of the loop, in order.
pub(crate) struct Inbox<C> {
    calls: SegQueue<C>,
    pub(crate) bell: EventFd,
    /// Whether the bell has been rung since the loop last looked.
    rung: AtomicBool,
    closed: AtomicBool,
    /// Bytes that other loops have sent, and the loop has not taken.
    held: AtomicUsize,
}

impl<C> Inbox<C> {
    pub(crate) fn new() -> io::Result<Self> {
        let (rung, closed, held) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
        Ok(Self { calls: SegQueue::new(), bell: EventFd::new()?, rung, closed, held })
    }

    pub(crate) fn send(&self, call: C) -> Result<(), ReactorGone> {
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
    pub(crate) fn take(&self) -> Vec<C> {
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
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::sys;

    /// The count that the bell holds: how often it was rung since it was looked at.
    fn rung(inbox: &Inbox<()>) -> u64 {
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
                thread::spawn(move || (0..250).for_each(|_| inbox.send(()).unwrap()))
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(rung(&inbox), 1, "one system call for a thousand calls");
        assert_eq!((inbox.take().len(), rung(&inbox)), (1000, 0));
        inbox.send(()).unwrap();
        assert_eq!((rung(&inbox), inbox.take().len()), (1, 1), "what comes after the look rings again");
    }

    #[test]
    fn no_call_is_left_without_a_ring() {
        let inbox = Arc::new(Inbox::new().unwrap());
        let theirs = inbox.clone();
        let sender = thread::spawn(move || (0..20_000).for_each(|_| theirs.send(()).unwrap()));
        let mut taken = 0;
        while taken < 20_000 {
            let ready = sys::poll([Some(inbox.bell.as_fd())], None, Some(Duration::from_secs(10))).unwrap();
            assert!(!ready.none(), "{taken} taken, and nobody rings");
            taken += inbox.take().len();
        }
        sender.join().unwrap();
    }
}
