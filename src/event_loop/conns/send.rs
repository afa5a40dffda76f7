//! Writing more than one buffer: several at once, and what is read while it is sent.

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
    /// Queues several buffers, in their order, as one [`write`](Self::write) of all would: all of them or none.
    ///
    /// # Errors
    /// As [`write`](Self::write), for the sum of their lengths.
    pub fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<(), WriteError> {
        let id = self.id();
        self.state.write_parts(id, parts)
    }

    /// Sends what a reader gives, to its end, after what was written before and before what is written afterwards
    /// (Twisted's `FileSender`). It is read as the peer takes it, 64 KiB at a time, or as many bytes as the high-water
    /// mark if that is less; no more is in memory, whatever its length. Then
    /// [`transfer_complete`](crate::Protocol::transfer_complete) is called.
    ///
    /// All connections wait for each `read`, so it is for what gives at once: memory, files, decoders of these. A
    /// `read` that fails, also with `WouldBlock`, or panics ends the connection with that error; what was before it
    /// in the queue has been sent by then, what is behind is given up. A connection that is lost drops the reader.
    /// While it is sent, the connection is not idle for limits and drains, and a peer that takes nothing is cut at
    /// the write limit; [`close`](Self::close) sends all of it first. [`queued`](Self::queued) does not count it; for the
    /// water marks and the hard limit, of several that are queued all but the first count, each as the 64 KiB that it may
    /// have in memory: a peer which asks for file after file and reads nothing is paused.
    ///
    /// ```
    /// use std::io::Read;
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{HandlerResult, Protocol, Transport};
    ///
    /// struct Zeros;
    /// impl Protocol for Zeros {
    ///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
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

    /// Sends a file, or a part of it: `..` for what it has now, `0..1000` for the first 1000 bytes. As
    /// [`send_reader`](Self::send_reader); the file's position is neither used nor moved. A file that turns out to be
    /// shorter, since it was truncated meanwhile or the range reaches beyond its end, ends the connection with an
    /// error of kind [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) after what there was. Pipes and devices,
    /// which have no positions, are for [`send_reader`](Self::send_reader).
    ///
    /// # Errors
    /// As [`send_reader`](Self::send_reader). That the file cannot be read shows when its turn comes.
    pub fn send_file(&mut self, file: File, range: impl RangeBounds<u64>) -> Result<(), WriteError> {
        self.send_reader(FilePart::new(file, &range))
    }

    /// Queues bytes for the peer.
    ///
    /// # Errors
    /// [`WriteError::Closed`] after `close`, `abort` or a loss. [`WriteError::QueueFull`] when more than the loop's
    /// limit (8 MiB) would be queued: nothing of it is, and the connection is aborted. A protocol that has more to say
    /// than a peer may take at once writes until [`is_writing_paused`](Self::is_writing_paused), and goes on at
    /// [`resume_writing`](crate::Protocol::resume_writing).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.cx.state.write(self.id, bytes)
    }

    /// Queues `line` and a line feed. The result is a callback's, so that it can be the last expression of one, as
    /// [`Connection::send_line`](crate::Connection::send_line) can.
    ///
    /// # Errors
    /// A [`WriteError`] inside, as [`write`](Self::write) returns it.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> HandlerResult {
        self.write(&[line.as_ref(), b"\n"].concat())?;
        Ok(())
    }

    /// What `write!` and `writeln!` call.
    ///
    /// # Errors
    /// As [`write`](Self::write). A `Display` that fails writes what it had until then.
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

    /// Bytes that are written and not yet taken by the kernel.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.out.len())
    }

    /// Whether more than the high-water mark is queued, or has been and is not yet down to the low one: the time to
    /// stop writing until [`resume_writing`](crate::Protocol::resume_writing).
    pub fn is_writing_paused(&self) -> bool {
        let high = self.cx.state.settings.high_water;
        self.conn().is_some_and(|conn| conn.flow.told_to_pause || conn.out.load() > high)
    }
}

impl State {
    fn write_parts(&mut self, id: ConnId, parts: &[IoSlice<'_>]) -> Result<(), WriteError> {
        let len = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        self.check_room(id, len)?;
        if let Some(conn) = self.conns.get_mut(id) {
            parts.iter().for_each(|part| conn.out.push(part, &mut self.buffers.spares));
        }
        self.mark(id);
        Ok(())
    }

    fn send_source(&mut self, id: ConnId, source: Source) -> Result<(), WriteError> {
        let load = self.conns.get(id).map_or(0, |conn| conn.out.load_of(&source));
        self.check_room(id, load)?;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push_source(source, &mut self.buffers.spares);
            conn.cold(); // so that it is looked after
        }
        self.mark(id);
        Ok(())
    }

    pub(crate) fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), WriteError> {
        self.check_room(id, bytes.len())?;
        let left = self.send_at_once(id, bytes);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push(left, &mut self.buffers.spares);
        }
        self.mark(id);
        Ok(())
    }

    pub(crate) fn write_shared(&mut self, id: ConnId, bytes: &Rc<[u8]>) -> Result<(), WriteError> {
        self.check_room(id, bytes.len())?;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push_shared(bytes, &mut self.buffers.spares);
        }
        self.mark(id);
        Ok(())
    }

    /// Whether so much may be queued; whose queue is full is cut.
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
