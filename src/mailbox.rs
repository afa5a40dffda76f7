//! [`Bell`] wakes one thread by a descriptor. [`Mailbox`] is a queue with a bell: any thread sends, the owner takes.
//!
//! The queue does not know what it carries or what that costs: the writers of a connection send bytes, an event loop
//! gets calls. Many messages cost one wake-up, which is one system call.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use crate::sync::SegQueue;
use crate::sys::EventFd;

/// Wakes its owner, which waits until the descriptor becomes readable. Calls that come before the owner looks are one
/// wake-up, and one system call.
#[derive(Debug)]
pub(crate) struct Bell {
    event: EventFd,
    /// True if the owner was woken since the last [`clear`](Self::clear). The next call need not.
    is_woken: AtomicBool,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new()?, is_woken: AtomicBool::new(false) })
    }

    /// Wakes the owner. Async-signal-safe.
    pub(crate) fn ring(&self) {
        if !self.is_woken.swap(true, SeqCst) {
            self.event.set();
        }
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.is_woken.load(SeqCst)
    }

    /// Makes calls that come from now on wake the owner again. The owner calls it before it looks at what the calls were
    /// for.
    pub(crate) fn clear(&self) {
        // A caller may be held up between its mark and its wake-up, and wake the owner for what was seen long ago. So
        // an owner that was woken clears the descriptor, whatever the mark says.
        self.event.clear();
        self.is_woken.store(false, SeqCst);
    }

    /// True if the owner was woken. Then it is cleared too.
    pub(crate) fn take(&self) -> bool {
        let is_woken = self.is_woken();
        if is_woken {
            self.clear();
        }
        is_woken
    }

    /// Clears a descriptor that is readable without a mark: it woke the owner too late. The owner must look at the mark
    /// again before its next wait.
    pub(crate) fn clear_late(&self) {
        if !self.is_woken() {
            self.event.clear();
        }
    }

    /// Gives it a descriptor that no other process has. A wake-up that was not seen is seen by it.
    fn renew(&self) -> io::Result<()> {
        self.event.renew()?;
        if self.is_woken() {
            self.event.set();
        }
        Ok(())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A queue with one owner. The owner waits until its descriptor becomes readable.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    queue: SegQueue<T>,
    bell: Bell,
    is_closed: AtomicBool,
    /// The bytes that are reserved, and not released yet.
    bytes: AtomicUsize,
}

/// The mailbox has been closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

impl<T> Mailbox<T> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            queue: SegQueue::new(),
            bell: Bell::new()?,
            is_closed: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
        })
    }

    /// Queues a message and wakes the owner. A message that is sent while the mailbox is closed may be lost.
    pub(crate) fn send(&self, message: T) -> Result<(), Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        // The message comes before the mark: an owner that clears the mark before the swap finds the message.
        self.queue.push(message);
        self.bell.ring();
        Ok(())
    }

    /// Wakes the owner without a message.
    pub(crate) fn wake(&self) {
        self.bell.ring();
    }

    /// Makes messages that come from now on wake the owner again. The owner calls it before it takes.
    pub(crate) fn clear(&self) {
        self.bell.clear();
    }

    /// True if a message has come since the last [`clear`](Self::clear).
    pub(crate) fn is_woken(&self) -> bool {
        self.bell.is_woken()
    }

    /// As [`clear`](Self::clear), but without a system call if no message has come.
    pub(crate) fn clear_if_woken(&self) {
        self.bell.take();
    }

    /// Gives the mailbox a descriptor that no other process has. Messages that are queued wake the owner by it.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.bell.renew()
    }

    /// Takes the next message.
    pub(crate) fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// True if no message waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Clears, and takes the messages that are there now. Those that come meanwhile wake the owner again.
    pub(crate) fn take_all(&self) -> Vec<T> {
        self.clear();
        std::iter::from_fn(|| self.take()).take(self.queue.len()).collect()
    }

    /// True if no more than `limit` bytes are reserved together with these. They are reserved then.
    pub(crate) fn reserve(&self, bytes: usize, limit: usize) -> bool {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= limit);
        self.bytes.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Gives back the bytes of a message that has been taken.
    pub(crate) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, SeqCst);
    }

    /// Returns the number of reserved bytes.
    pub(crate) fn reserved(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// Makes further messages fail. Queued messages stay until they are taken.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, SeqCst);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(SeqCst)
    }
}

/// The descriptor is readable once a message has come.
impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
impl<T> Mailbox<T> {
    /// Wakes as a sender does that was held up between its mark and its wake-up, until its message was taken.
    pub(crate) fn wake_late(&self) {
        self.bell.event.set();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::sys;

    /// Returns the number of wake-ups since the last look.
    fn wakes(mailbox: &Mailbox<usize>) -> u64 {
        let mut count = [0; 8];
        match sys::read_if_ready(mailbox.as_fd(), &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(_) => 0,
        }
    }

    #[test]
    fn many_messages_wake_once() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let mailbox = mailbox.clone();
                thread::spawn(move || (0..250).for_each(|n| mailbox.send(n).unwrap()))
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert_eq!(wakes(&mailbox), 1, "one system call for a thousand messages");
        assert_eq!((mailbox.take_all().len(), wakes(&mailbox)), (1000, 0));
        mailbox.send(1).unwrap();
        assert_eq!((wakes(&mailbox), mailbox.take_all().len()), (1, 1), "what comes after the look wakes again");
    }

    #[test]
    fn no_message_is_left_without_a_wake_up() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let theirs = mailbox.clone();
        let sender = thread::spawn(move || (0..20_000).for_each(|n| theirs.send(n).unwrap()));
        let mut taken = 0;
        while taken < 20_000 {
            let ready = sys::poll([Some(mailbox.as_fd())], None, Some(Duration::from_secs(10))).unwrap();
            assert!(!ready.none(), "{taken} taken, and nothing wakes the owner");
            taken += mailbox.take_all().len();
        }
        sender.join().unwrap();
    }

    #[test]
    fn a_closed_mailbox_takes_nothing_and_keeps_what_it_has() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.send(1).unwrap();
        mailbox.close();
        assert_eq!(mailbox.send(2), Err(Closed));
        assert_eq!(mailbox.take_all(), [1]);
    }

    #[test]
    fn bytes_are_reserved_up_to_the_limit() {
        let mailbox = Mailbox::<usize>::new().unwrap();
        assert!(mailbox.reserve(6, 10) && !mailbox.reserve(5, 10) && mailbox.reserve(4, 10));
        assert!(!mailbox.reserve(usize::MAX, usize::MAX), "an overflow is more than any limit");
        mailbox.release(6);
        assert_eq!(mailbox.reserved(), 4);
    }
}
