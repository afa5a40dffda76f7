//! Writing to a connection from other threads.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::shortcut::{Open, Shortcut, Tried, Written};
use crate::mailbox::Mailbox;

/// Writes to a connection from any thread. Clone it, keep it in a list of members, send to it. It comes from
/// [`Connection::writer`](crate::Connection::writer).
///
/// Messages are queued whole and in order. The thread that serves the connection sends them when it flushes,
/// waits for the peer, or ends. A message never lands within the handler's output between two flushes.
///
/// While that thread waits for its peer and the queue is empty, the sender's thread writes a message of up to 16 KiB
/// to the socket at once. That never blocks either, and saves a wake-up. Over TLS, and in a burst, messages are
/// queued.
///
/// ```
/// use std::io::Read;
/// use socketserver::Connection;
/// let (mut conn, mut client) = Connection::pair()?;
/// let writer = conn.writer()?;
/// std::thread::spawn(move || writer.send_line("news")).join().unwrap()?;
/// drop(conn);                                  // the queue is sent at the end, too
/// let mut got = String::new();
/// client.read_to_string(&mut got)?;
/// assert_eq!(got, "news\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionWriter {
    mailbox: Arc<Messages>,
    /// How many bytes may wait.
    capacity: usize,
}

impl ConnectionWriter {
    pub(super) fn new(mailbox: Arc<Messages>, capacity: usize) -> Self {
        Self { mailbox, capacity }
    }

    /// Queues a message; `Ok` says that it is queued, not that the peer has it. Never blocks. An `Arc<[u8]>`
    /// is shared, not copied: one message to a whole room. A `String` goes by [`send_line`](Self::send_line), or as
    /// `text.into_bytes()`.
    ///
    /// # Errors
    /// [`SendError::Full`] when the peer reads too slowly and
    /// [`writer_capacity`](crate::ServerBuilder::writer_capacity) bytes wait already; [`SendError::Closed`]
    /// when the connection has ended.
    pub fn send(&self, message: impl Into<Arc<[u8]>>) -> Result<(), SendError> {
        let message = message.into();
        if self.mailbox.is_closed() {
            return Err(SendError::Closed);
        }
        let bytes = cost(&message);
        if !self.mailbox.reserve(bytes, self.capacity) {
            return Err(SendError::Full);
        }
        self.pass_on(message, bytes)
    }

    /// Queues a message as [`send`](Self::send) does, but waits up to `timeout` for room in the queue. So a peer that
    /// reads slowly loses nothing, but the sender waits for it.
    ///
    /// Do not call it in the connection's own handler: that thread makes the room, so the wait would be in vain.
    ///
    /// ```
    /// use std::time::Duration;
    /// use socketserver::connection::SendError;
    /// use socketserver::Connection;
    ///
    /// let (conn, _client) = Connection::pair()?;
    /// let writer = conn.writer()?;
    /// writer.send_timeout(&b"news\n"[..], Duration::from_secs(5))?;
    /// drop(conn);
    /// let late = writer.send_timeout(&b"more\n"[..], Duration::from_secs(5));
    /// assert_eq!(late, Err(SendError::Closed)); // at once
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SendError::Full`] if there is no room in time, and at once for a message of more than
    /// [`writer_capacity`](crate::ServerBuilder::writer_capacity) bytes less 64. [`SendError::Closed`] as soon as the
    /// connection has ended.
    pub fn send_timeout(&self, message: impl Into<Arc<[u8]>>, timeout: Duration) -> Result<(), SendError> {
        let message = message.into();
        let bytes = cost(&message);
        self.mailbox.reserve_within(bytes, self.capacity, timeout)?;
        self.pass_on(message, bytes)
    }

    fn pass_on(&self, message: Arc<[u8]>, bytes: usize) -> Result<(), SendError> {
        match self.mailbox.shortcut.try_send(&message, || !self.mailbox.is_empty()) {
            Tried::Sent => self.mailbox.give_back(bytes),
            Tried::Begun => self.mailbox.wake(),
            Tried::No => return self.queue(message, bytes),
        }
        Ok(())
    }

    fn queue(&self, message: Arc<[u8]>, bytes: usize) -> Result<(), SendError> {
        self.mailbox.send(message).map_err(|_| {
            self.mailbox.release(bytes); // it was closed in between
            SendError::Closed
        })?;
        self.mailbox.poke();
        Ok(())
    }

    /// Queues a message and a line feed, as [`send`](Self::send) does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_line(&self, line: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.send([line.as_ref(), b"\n"].concat())
    }

    /// Ends the connection, in order. The queue takes no more messages, and what it has is sent. The handler's next
    /// wait for input reads the end of the stream; a wait in progress ends at once. A second call changes nothing.
    ///
    /// A peer that takes nothing holds the end up until the
    /// [`write_timeout`](crate::ServerBuilder::write_timeout). If the handler fails in the middle of a line because of
    /// the end, the connection counts as disconnected.
    ///
    /// ```
    /// use socketserver::Connection;
    ///
    /// let (mut conn, client) = Connection::pair()?;
    /// let writer = conn.writer()?;
    /// writer.send_line("you have been silent for too long")?;
    /// writer.close();
    /// assert_eq!(conn.next_line()?, None);
    /// drop(conn);
    /// assert_eq!(std::io::read_to_string(client)?, "you have been silent for too long\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.mailbox.end();
    }

    /// Returns the number of bytes in the queue, 64 for each message included.
    pub fn queued(&self) -> usize {
        self.mailbox.reserved()
    }
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The queue is full: the peer reads too slowly. Skip the message, or cut the member.
    Full,
    /// The connection has ended.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the connection's queue is full: its peer reads too slowly",
            Self::Closed => "the connection has ended",
        })
    }
}

impl std::error::Error for SendError {}

/// The cost of a message besides its bytes, so that a million empty messages are bounded too.
const OVERHEAD: usize = 64;

fn cost(message: &[u8]) -> usize {
    message.len().saturating_add(OVERHEAD)
}

/// Where parked connections wait: none has a thread that would see its messages.
pub(crate) trait Poke: fmt::Debug + Send + Sync {
    /// Has the connection with this descriptor taken up, if it is parked.
    fn poke(&self, fd: RawFd);
}

/// The queue between the writers and the thread that serves the connection.
#[derive(Debug)]
pub(super) struct Messages {
    mailbox: Mailbox<Arc<[u8]>>,
    /// True if a writer has ended the connection.
    is_ended: AtomicBool,
    /// The number of writers that wait for room. While it is zero, a message that is taken costs no lock.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    has_room: Condvar,
    pub(super) shortcut: Shortcut,
    /// Set before the connection is parked for the first time.
    lot: OnceLock<(Weak<dyn Poke>, RawFd)>,
    /// True once `lot` is set.
    parks: AtomicBool,
}

impl Messages {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            mailbox: Mailbox::new()?,
            is_ended: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            lock: Mutex::new(()),
            has_room: Condvar::new(),
            shortcut: Shortcut::default(),
            lot: OnceLock::new(),
            parks: AtomicBool::new(false),
        })
    }

    /// Takes the next message, for the thread that serves the connection. The message no longer counts as queued.
    pub(super) fn take(&self) -> Option<Arc<[u8]>> {
        let message = self.mailbox.take()?;
        self.give_back(cost(&message));
        Some(message)
    }

    /// Takes the end of the shortcut, which adds to `rest` what is left of a message that a sender has begun. Returns how
    /// many bytes senders have written.
    pub(super) fn close_shortcut(&self, open: Open<'_>, rest: &mut Vec<u8>) -> u64 {
        let Written { bytes, begun } = open.close();
        if let Some((message, sent)) = begun {
            rest.extend_from_slice(&message[sent..]);
            self.give_back(cost(&message));
        }
        bytes
    }

    /// Makes room for other messages.
    fn give_back(&self, bytes: usize) {
        self.mailbox.release(bytes);
        self.wake_waiting();
    }

    /// Makes further messages fail, and ends the waits for room.
    pub(super) fn close(&self) {
        self.mailbox.close();
        self.wake_waiting();
    }

    fn end(&self) {
        self.is_ended.store(true, SeqCst);
        self.close();
        self.mailbox.wake();
        self.poke();
    }

    /// Notes where the connection is parked. Further messages have it taken up there.
    pub(super) fn poke_by(&self, lot: impl FnOnce() -> Weak<dyn Poke>, fd: RawFd) {
        self.lot.get_or_init(|| (lot(), fd));
        // Before the look at the queue. A sender queues, then looks here: so one of the two sees the other.
        self.parks.store(true, SeqCst);
    }

    fn poke(&self) {
        if !self.parks.load(SeqCst) {
            return;
        }
        if let Some((lot, fd)) = self.lot.get() {
            lot.upgrade().into_iter().for_each(|lot| lot.poke(*fd));
        }
    }

    /// True if a writer has ended the connection.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(SeqCst)
    }

    fn wake_waiting(&self) {
        if self.waiting.load(SeqCst) > 0 {
            // Once the lock was free, a writer that has not seen the change is in its wait, and is woken.
            drop(self.lock.lock());
            self.has_room.notify_all();
        }
    }

    fn reserve_within(&self, bytes: usize, capacity: usize, timeout: Duration) -> Result<(), SendError> {
        let until = Instant::now().checked_add(timeout);
        let mut lock = self.lock.lock();
        // The count first, then the look. So a thread that makes room sees this writer, or this writer the room.
        self.waiting.fetch_add(1, SeqCst);
        let mut is_over = bytes > capacity;
        let result = loop {
            if self.is_closed() {
                break Err(SendError::Closed);
            }
            if self.reserve(bytes, capacity) {
                break Ok(());
            }
            if is_over {
                break Err(SendError::Full);
            }
            match until {
                Some(at) => is_over = self.has_room.wait_until(&mut lock, at).timed_out(),
                None => self.has_room.wait(&mut lock),
            }
        };
        self.waiting.fetch_sub(1, SeqCst);
        result
    }
}

impl Deref for Messages {
    type Target = Mailbox<Arc<[u8]>>;

    fn deref(&self) -> &Self::Target {
        &self.mailbox
    }
}
