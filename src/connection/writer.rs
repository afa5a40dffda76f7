//! Writing to a connection from other threads.

use std::fmt;
use std::sync::Arc;

use crate::mailbox::Mailbox;

/// Writes to a connection from any thread. Clone it, keep it in a list of members, send to it. It comes from
/// [`Connection::writer`](crate::Connection::writer).
///
/// Messages are queued whole and in order. The thread that serves the connection sends them when it flushes,
/// waits for the peer, or ends. A message never lands within the handler's output between two flushes.
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
    /// is shared, not copied: one message to a whole room.
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
        let bytes = message.len().saturating_add(OVERHEAD);
        if !self.mailbox.reserve(bytes, self.capacity) {
            return Err(SendError::Full);
        }
        self.mailbox.send(message).map_err(|_| {
            self.mailbox.release(bytes); // it was closed in between
            SendError::Closed
        })
    }

    /// Queues a message and a line feed, as [`send`](Self::send) does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_line(&self, line: impl AsRef<[u8]>) -> Result<(), SendError> {
        self.send([line.as_ref(), b"\n"].concat())
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

/// The queue between the writers and the thread that serves the connection.
pub(super) type Messages = Mailbox<Arc<[u8]>>;

/// Takes the next message, for the thread that serves the connection. The message no longer counts as queued.
pub(super) fn take(mailbox: &Messages) -> Option<Arc<[u8]>> {
    let message = mailbox.take()?;
    mailbox.release(message.len() + OVERHEAD);
    Some(message)
}
