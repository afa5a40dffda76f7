//! Writing: bytes, several buffers at once, formatted text, readers and files.
//!
//! Everything is queued and sent after the callback, so the small pieces of one callback are one system call. The
//! queue is bounded: above the high-water mark the loop reads no more from the peer, and at `max_queued` it cuts the
//! connection. A peer that does not read must cost the others nothing.

use std::fmt;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::ops::RangeBounds;
use std::rc::Rc;

use crate::error::HandlerResult;
use crate::event_loop::io::source::{FilePart, Source};
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::lost::{LostReason, WriteError};
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Queues several buffers in order, as one [`write`](Self::write) would: all of them or none.
    ///
    /// # Errors
    /// As [`write`](Self::write), for the sum of their lengths.
    pub fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<(), WriteError> {
        let id = self.id();
        self.state.write_parts(id, parts)
    }

    /// Queues a reader and sends it to its end, in order with what is written (Twisted's `FileSender`). Then
    /// [`transfer_complete`](crate::Protocol::transfer_complete) is called. It is read as the peer takes it, in
    /// pieces of 64 KiB, or of the high-water mark if that is less. Only one piece is in memory.
    ///
    /// All connections wait for each `read`, so use readers that give at once: memory, files, decoders of these. A
    /// `read` that fails, also with `WouldBlock`, or panics, ends the connection with that error. What was queued
    /// before the reader has been sent then; what is behind it is dropped. A lost connection drops the reader.
    ///
    /// While a reader is sent, the connection is not idle, for limits and for drains. A peer that takes nothing is cut
    /// at the write limit. [`close`](Self::close) sends all of the reader first.
    ///
    /// [`queued`](Self::queued) does not count readers. For the water marks and the hard limit, each reader after the
    /// first counts as the 64 KiB that it may have in memory. So a peer that asks for file after file and reads nothing
    /// is paused.
    ///
    /// ```
    /// use std::io::Read;
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{HandlerResult, Protocol, Transport};
    ///
    /// struct Zeros;
    /// impl Protocol for Zeros {
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
    ///         transport.write(b"zeros: ")?;
    ///         transport.send_reader(std::io::repeat(b'0').take(data.len() as u64))?;
    ///         transport.send_line(".")
    ///     }
    /// }
    ///
    /// let mut test = TestLoop::new()?;
    /// let client = test.connect(Zeros);
    /// test.feed(client, b"xxx");
    /// assert_eq!(test.output(client), b"zeros: 000.\n");
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](Self::write), for what it counts.
    pub fn send_reader(&mut self, reader: impl Read + 'static) -> Result<(), WriteError> {
        let (id, most) = (self.id(), self.state.settings.high_water);
        self.state.send_source(id, Source::new(reader, most))
    }

    /// Sends a file or a part of it, as [`send_reader`](Self::send_reader) does: `..` for what it has now, `0..1000`
    /// for the first 1000 bytes. The file's position is neither used nor moved.
    ///
    /// A file may be shorter than the range, or be truncated meanwhile. Then the connection sends what there is, and
    /// ends with an error of kind [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof). Pipes and devices have no
    /// positions; use [`send_reader`](Self::send_reader) for them.
    ///
    /// # Errors
    /// As [`send_reader`](Self::send_reader). An unreadable file fails only when its turn comes.
    pub fn send_file(&mut self, file: File, range: impl RangeBounds<u64>) -> Result<(), WriteError> {
        self.send_reader(FilePart::new(file, &range))
    }

    /// Queues bytes for the peer.
    ///
    /// # Errors
    /// [`WriteError::Closed`] after `close`, `abort` or a loss. [`WriteError::QueueFull`] if more than the loop's
    /// limit (8 MiB) would be queued; then nothing of it is queued, and the connection is aborted. A protocol with
    /// much output writes until [`is_writing_paused`](Self::is_writing_paused), and goes on at
    /// [`resume_writing`](crate::Protocol::resume_writing).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.cx.state.write(self.id, bytes)
    }

    /// Queues `line` and a line feed. The result can be the last expression of a callback, as that of
    /// [`Connection::send_line`](crate::Connection::send_line) can.
    ///
    /// # Errors
    /// A [`WriteError`] inside, as [`write`](Self::write) returns it.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> HandlerResult {
        self.write(&[line.as_ref(), b"\n"].concat())?;
        Ok(())
    }

    /// Queues formatted text. `write!` and `writeln!` call it.
    ///
    /// # Errors
    /// As [`write`](Self::write). If a `Display` fails, the text before the failure is queued.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), WriteError> {
        match text.as_str() {
            Some(text) => self.write(text.as_bytes()),
            None => {
                let mut formatted = String::new();
                let _ = fmt::write(&mut formatted, text);
                self.write(formatted.as_bytes())
            }
        }
    }

    /// Returns the number of bytes that are written and not yet taken by the kernel.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.out.len())
    }

    /// True if the queue has risen above the high-water mark, and not yet fallen to the low one. Then stop writing
    /// until [`resume_writing`](crate::Protocol::resume_writing).
    pub fn is_writing_paused(&self) -> bool {
        let high = self.cx.state.settings.high_water;
        self.conn().is_some_and(|conn| conn.flow.told_to_pause || conn.out.load() > high)
    }
}

impl State {
    /// Queues all parts, or none.
    fn write_parts(&mut self, id: ConnId, parts: &[IoSlice<'_>]) -> Result<(), WriteError> {
        let len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        self.check_room(id, len)?;
        if let Some(conn) = self.conns.get_mut(id) {
            parts.iter().for_each(|part| conn.out.push(part, &mut self.buffers.spares));
        }
        self.mark(id);
        Ok(())
    }

    /// Queues a reader.
    fn send_source(&mut self, id: ConnId, source: Source) -> Result<(), WriteError> {
        let load = self.conns.get(id).map_or(0, |conn| conn.out.load_of(&source));
        self.check_room(id, load)?;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push_source(source, &mut self.buffers.spares);
            conn.cold(); // `settle_cold` looks after connections with cold state only
        }
        self.mark(id);
        Ok(())
    }

    /// Queues bytes. A large piece goes to the kernel first, which saves its copy.
    pub(crate) fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), WriteError> {
        self.check_room(id, bytes.len())?;
        let left = self.send_at_once(id, bytes);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push(left, &mut self.buffers.spares);
        }
        self.mark(id);
        Ok(())
    }

    /// Queues a text that several queues share, without a copy.
    pub(crate) fn write_shared(&mut self, id: ConnId, bytes: &Rc<[u8]>) -> Result<(), WriteError> {
        self.check_room(id, bytes.len())?;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push_shared(bytes, &mut self.buffers.spares);
        }
        self.mark(id);
        Ok(())
    }

    /// Checks that `more` bytes may be queued. If the queue would be too long, the connection is cut. Otherwise
    /// others, such as the members of a chat, would go on writing.
    pub(crate) fn check_room(&mut self, id: ConnId, more: usize) -> Result<(), WriteError> {
        let Some(conn) = self.conns.get(id).filter(|conn| conn.takes_output()) else {
            return Err(WriteError::Closed);
        };
        let limit = self.settings.max_queued;
        if conn.out.load().saturating_add(more) <= limit {
            return Ok(());
        }
        let full = crate::event_loop::state::lost::QueueFull { limit };
        self.end(id, LostReason::Overflow(full));
        Err(WriteError::QueueFull(full))
    }
}
