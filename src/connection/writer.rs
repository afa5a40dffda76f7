//! Writing to a connection from other threads.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::sys::EventFd;

/// Writes to a connection from any thread: clone it, keep it in a room, send to it. From
/// [`Connection::writer`](crate::Connection::writer).
///
/// Messages are queued whole and in order; the thread that serves the connection sends them, which it does while it
/// waits for the peer. A message never lands in the middle of what the handler has written between two flushes.
///
/// ```
/// use std::io::Read;
/// use socketserver::Connection;
/// let (mut conn, mut client) = Connection::pair()?;
/// let writer = conn.writer()?;
/// std::thread::spawn(move || writer.send(&b"news\n"[..])).join().unwrap()?;
/// drop(conn);                                  // what is queued is sent at the end, too
/// let mut got = String::new();
/// client.read_to_string(&mut got)?;
/// assert_eq!(got, "news\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionWriter {
    mailbox: Arc<Mailbox>,
}

impl ConnectionWriter {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox }
    }

    /// Queues a message; `Ok` says that it is queued, not that the peer has it. Never blocks. An `Arc<[u8]>` is shared,
    /// not copied: one message to a whole room.
    ///
    /// # Errors
    /// [`SendError::Full`] when the peer reads too slowly and
    /// [`writer_capacity`](crate::ServerBuilder::writer_capacity) bytes wait already; [`SendError::Closed`] when the
    /// connection has ended.
    pub fn send(&self, message: impl Into<Arc<[u8]>>) -> Result<(), SendError> {
        self.mailbox.put(message.into())
    }

    /// How many bytes wait to be sent, 64 for each message included.
    pub fn queued(&self) -> usize {
        self.mailbox.bytes.load(SeqCst)
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

/// What a message costs besides its bytes, so that a million empty ones are bounded too.
const OVERHEAD: usize = 64;

/// The queue between the writers and the one who serves the connection.
#[derive(Debug)]
pub(super) struct Mailbox {
    queue: SegQueue<Arc<[u8]>>,
    bytes: AtomicUsize,
    capacity: usize,
    closed: AtomicBool,
    /// Whether the bell has been rung since the last look, so that many messages cost one wake-up.
    rung: AtomicBool,
    pub(super) bell: EventFd,
}

impl Mailbox {
    pub(super) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self {
            queue: SegQueue::new(),
            bytes: AtomicUsize::new(0),
            capacity,
            closed: AtomicBool::new(false),
            rung: AtomicBool::new(false),
            bell: EventFd::new()?,
        })
    }

    fn put(&self, message: Arc<[u8]>) -> Result<(), SendError> {
        if self.closed.load(SeqCst) {
            return Err(SendError::Closed);
        }
        let more = |n: usize| n.checked_add(message.len() + OVERHEAD).filter(|n| *n <= self.capacity);
        self.bytes.fetch_update(SeqCst, SeqCst, more).map_err(|_| SendError::Full)?;
        self.queue.push(message);
        if !self.rung.swap(true, SeqCst) {
            self.bell.set();
        }
        Ok(())
    }

    /// For the owner: messages that come from now on ring again.
    pub(super) fn hush(&self) {
        if self.rung.load(SeqCst) {
            self.bell.clear();
            self.rung.store(false, SeqCst);
        }
    }

    /// For the owner, whom the bell has woken: also a ring that came late, after the look that took its message.
    pub(super) fn answer(&self) {
        self.bell.clear();
    }

    pub(super) fn take(&self) -> Option<Arc<[u8]>> {
        let message = self.queue.pop()?;
        self.bytes.fetch_sub(message.len() + OVERHEAD, SeqCst);
        Some(message)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }
}
