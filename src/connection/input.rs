//! The read buffer. It is made at the first read, and grows for a long frame.

use std::cell::{Cell, RefCell};
use std::io;
use std::io::Read as _;
use std::ops::Range;
use std::time::Instant;

use super::event::Event;
use super::output::Output;
use super::wire::{Buffered, Place, Wire};
use crate::error::{text_of_peer, PeerFault};
use crate::framing::{Decoded, Decoder, Frame, LineDecoder};

/// The largest buffer that a thread keeps for its next connection, in bytes. Without a connection it has no use for more.
const LARGEST_SPARE: usize = 64 << 10;

/// Registers the destructor of this thread's spare buffer: see `output::warm_up`.
pub(super) fn warm_up() {
    SPARE.with(|_| ());
}

thread_local! {
    /// The buffer of this thread's last connection, ended or parked. The next connection uses it, so short ones need no
    /// allocation.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes that were read and not yet consumed, and how far they were searched for a line end.
#[derive(Debug)]
pub(super) struct Input {
    unread: Unread,
    lines: LineDecoder,
}

/// The unread bytes, `buf[start..end]`.
#[derive(Debug)]
struct Unread {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    size: u32,
    /// True if the search for a line or a frame has begun, and has not found its end.
    begun: bool,
    /// True if a byte has been consumed since the last look: see [`Input::check_progress`].
    used: bool,
    /// True if the last search without a wait has left a part of a line or a frame, and nothing was taken since.
    partial: bool,
}

/// A line in the buffer.
pub(super) struct Line {
    /// Its length without its end.
    text: usize,
    /// Its length with its end.
    pub(super) len: usize,
    /// True if it has an end. The stream may have ended before.
    pub(super) whole: bool,
}

impl Input {
    pub(super) fn new(size: usize, line_limit: usize) -> Self {
        let size = u32::try_from(size).unwrap_or(u32::MAX); // it has been checked: 1 GiB at most
        let unread = Unread { buf: Vec::new(), start: 0, end: 0, size, begun: false, partial: false, used: false };
        Self { unread, lines: LineDecoder::default().max_length(line_limit) }
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.unread.consume(n);
        (self.unread.begun, self.unread.partial) = (false, false);
        self.lines.reset();
    }

    /// True if all that was read has been consumed.
    pub(super) fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// Fails if input is buffered, and nothing of it has been consumed since the last call.
    pub(super) fn check_progress(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unread.used) && !self.unread.is_empty() {
            let why = "the handler has read nothing of the request: read it, or answer Next::More or Next::Close";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(())
    }

    /// Waits for more of a request, behind what is buffered of it. Fails if `limit` bytes are.
    pub(super) fn wait_for_more(&mut self, wire: &Wire, output: &RefCell<Output>, limit: usize) -> io::Result<()> {
        self.check_length(limit)?;
        match self.unread.read_more(wire, output, Place::Within)? {
            0 => Err(cut_off()),
            _ => Ok(()),
        }
    }

    /// Takes what there is behind what is buffered, without a wait. `None` if there is nothing.
    pub(super) fn take_in(
        &mut self,
        recv: impl FnOnce(&mut [u8]) -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let taken = recv(self.unread.room())?;
        self.unread.end += taken.unwrap_or(0);
        Ok(taken)
    }

    /// Fails if `limit` bytes are buffered of a request that is not whole.
    pub(super) fn check_length(&self, limit: usize) -> io::Result<()> {
        if self.unread.data().len() < limit {
            return Ok(());
        }
        let why = format!("a request of more than {limit} bytes, and not whole (max_request_length)");
        Err(io::Error::new(io::ErrorKind::InvalidData, PeerFault::new(why)))
    }

    /// Gives the buffer to this thread's next connection, if all of it has been consumed.
    pub(super) fn fold(&mut self) {
        if self.is_empty() {
            self.unread.rewind();
            self.unread.give_up();
        }
    }

    /// Returns the buffered bytes. If there are none, it reads first. Empty at the end of the stream.
    pub(super) fn fill(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<&[u8]> {
        if self.unread.is_empty() {
            self.unread.read_more(wire, output, Place::Empty)?;
        }
        Ok(self.unread.data())
    }

    /// True if the next request has begun: a byte of it is buffered, or comes. False at the end of the stream.
    pub(super) fn next_request(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<bool> {
        wire.mark_requests();
        if !self.unread.is_empty() {
            wire.request_begins();
            return Ok(true);
        }
        Ok(self.unread.read_more(wire, output, Place::Request)? > 0)
    }

    pub(super) fn read(&mut self, wire: &Wire, output: &RefCell<Output>, buf: &mut [u8]) -> io::Result<usize> {
        // A large buffer is read into directly, which saves the copy.
        if self.unread.is_empty() && buf.len() >= self.unread.size() {
            return wire.recv(output, buf, Place::Empty);
        }
        let n = self.fill(wire, output)?.read(buf)?;
        self.consume(n);
        Ok(n)
    }

    /// Finds the next line, and leaves it in the buffer. If the stream ends first, the rest is the line; its
    /// length is 0 at the end.
    pub(super) fn line(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<Line> {
        Ok(match self.unread.frame(wire, output, &mut self.lines)? {
            Some(frame) => Line { text: frame.payload.end, len: frame.len, whole: true },
            None => Line { text: self.unread.data().len(), len: self.unread.data().len(), whole: false },
        })
    }

    /// Appends the bytes up to the delimiter, or to the end of the stream, and returns how many there were.
    pub(super) fn read_until(
        &mut self,
        wire: &Wire,
        output: &RefCell<Output>,
        delimiter: u8,
        into: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let before = into.len();
        if into.is_empty() && !self.unread.is_empty() {
            wire.piece_begins();
        }
        loop {
            if self.unread.is_empty() {
                let place = if into.is_empty() { Place::Piece } else { Place::Within };
                self.unread.read_more(wire, output, place)?;
            }
            let data = self.unread.data();
            let found = memchr::memchr(delimiter, data);
            let n = found.map_or(data.len(), |at| at + 1);
            into.extend_from_slice(&data[..n]);
            self.consume(n);
            if found.is_some() || n == 0 {
                return Ok(into.len() - before);
            }
        }
    }

    /// Consumes a line, and returns it with its end.
    pub(super) fn take_line(&mut self, line: &Line) -> io::Result<String> {
        self.take_text(line.len, line.len)
    }

    /// Consumes a line, and returns it without its end.
    pub(super) fn take_line_text(&mut self, line: &Line) -> io::Result<String> {
        self.take_text(line.text, line.len)
    }

    fn take_text(&mut self, text: usize, len: usize) -> io::Result<String> {
        let copy = self.unread.data()[..len].to_vec();
        // A line that is not UTF-8 is consumed, or the next call would fail for it again.
        self.consume(len);
        let mut line = text_of_peer(copy)?;
        line.truncate(text);
        Ok(line)
    }

    /// Consumes the next frame, and returns its payload. `None` at the end of the stream.
    pub(super) fn frame<D: Decoder + ?Sized>(
        &mut self,
        wire: &Wire,
        output: &RefCell<Output>,
        decoder: &mut D,
    ) -> io::Result<Option<&[u8]>> {
        self.lines.reset();
        match self.unread.frame(wire, output, decoder)? {
            Some(frame) => Ok(Some(self.unread.take(frame))),
            // A part of a frame may be the front of something else: it is never given as a whole.
            None if self.unread.is_empty() && !decoder.mid_frame() => Ok(None),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a frame")),
        }
    }

    /// Waits for the next event; `None` if `until` comes first.
    pub(super) fn wait(
        &mut self,
        wire: &Wire,
        output: &RefCell<Output>,
        until: Option<Instant>,
    ) -> io::Result<Option<Event>> {
        let unread = &mut self.unread;
        let buffered = match (unread.partial, unread.is_empty()) {
            (true, _) => Buffered::Part,
            (_, true) => Buffered::Nothing,
            (_, false) => Buffered::News,
        };
        let event = wire.next_event(output, buffered, until, || unread.try_read_more(wire))?;
        // Whatever the handler reads by, it is to look at the whole again.
        unread.partial &= event != Some(Event::Input);
        Ok(event)
    }

    /// Consumes the next line, and returns it without its end. `None` if no whole line has come.
    pub(super) fn try_line(&mut self, wire: &Wire) -> io::Result<Option<String>> {
        match self.unread.try_frame(wire, &mut self.lines)? {
            Some(frame) => self.take_text(frame.payload.end, frame.len).map(Some),
            None => Ok(None),
        }
    }

    /// Consumes the next frame, and returns its payload. `None` if no whole frame has come.
    pub(super) fn try_frame<D: Decoder + ?Sized>(&mut self, wire: &Wire, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.lines.reset();
        let frame = self.unread.try_frame(wire, decoder)?;
        Ok(frame.map(|frame| self.unread.take(frame)))
    }

    /// Reads what is there. `None` if nothing has come, and `Some(0)` at the end of the stream.
    pub(super) fn try_read(&mut self, wire: &Wire, buf: &mut [u8]) -> io::Result<Option<usize>> {
        if self.unread.is_empty() {
            return wire.try_recv(buf, true);
        }
        let n = self.unread.data().read(buf)?;
        self.consume(n);
        Ok(Some(n))
    }

    /// Consumes and returns all buffered bytes.
    pub(super) fn take_unread(&mut self) -> Vec<u8> {
        let unread = self.unread.data().to_vec();
        self.consume(unread.len());
        unread
    }

    /// Returns the buffer, for input that is thrown away.
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        self.lines.reset();
        self.unread.scratch()
    }
}

pub(super) fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a request")
}

impl Unread {
    fn data(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn size(&self) -> usize {
        self.size as usize
    }

    fn consume(&mut self, n: usize) {
        self.used |= n > 0;
        self.start = (self.start + n).min(self.end);
        if self.is_empty() {
            self.rewind();
        }
    }

    /// Begins at the front of the buffer again. A buffer that has grown is dropped.
    fn rewind(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.buf.len() > self.size() {
            self.buf = Vec::new();
        }
    }

    /// Consumes a frame, and lends its payload. The buffer must not move until the next read, so this does
    /// not rewind.
    fn take(&mut self, frame: Frame) -> &[u8] {
        let Range { start, end } = frame.payload;
        let at = self.start;
        self.used = true;
        self.start = (at + frame.len).min(self.end);
        &self.buf[at + start..at + end]
    }

    /// Finds the next frame, and leaves it in the buffer. `None` if the stream ends first.
    fn frame<D: Decoder + ?Sized>(
        &mut self,
        wire: &Wire,
        output: &RefCell<Output>,
        decoder: &mut D,
    ) -> io::Result<Option<Frame>> {
        // After a time limit the search goes on: the request is still the same.
        if !std::mem::replace(&mut self.begun, true) && !self.is_empty() {
            wire.piece_begins();
        }
        loop {
            match decoder.decode(self.data())? {
                Decoded::Frame(frame) => {
                    (self.begun, self.partial) = (false, false);
                    return Ok(Some(frame));
                }
                Decoded::Skip(n) => self.consume(n),
                Decoded::More => {
                    let at_boundary = self.is_empty() && !decoder.mid_frame();
                    let place = if at_boundary { Place::Piece } else { Place::Within };
                    if self.read_more(wire, output, place)? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// As [`frame`](Self::frame), without a wait. `None` if no whole frame has come.
    fn try_frame<D: Decoder + ?Sized>(&mut self, wire: &Wire, decoder: &mut D) -> io::Result<Option<Frame>> {
        if !std::mem::replace(&mut self.begun, true) && !self.is_empty() {
            wire.piece_begins();
        }
        loop {
            match decoder.decode(self.data())? {
                Decoded::Frame(frame) => {
                    (self.begun, self.partial) = (false, false);
                    return Ok(Some(frame));
                }
                Decoded::Skip(n) => self.consume(n),
                Decoded::More => {
                    self.partial = !self.is_empty() || decoder.mid_frame();
                    if !matches!(self.try_read_more(wire)?, Some(1..)) {
                        return Ok(None);
                    }
                    if !self.partial {
                        wire.piece_begins();
                    }
                }
            }
        }
    }

    /// Reads once into the free part of the buffer.
    fn read_more(&mut self, wire: &Wire, output: &RefCell<Output>, place: Place) -> io::Result<usize> {
        let n = wire.recv(output, self.room(), place)?;
        self.end += n;
        Ok(n)
    }

    /// As [`read_more`](Self::read_more), without a wait. `None` if nothing has come.
    fn try_read_more(&mut self, wire: &Wire) -> io::Result<Option<usize>> {
        let idle = !self.partial;
        let n = wire.try_recv(self.room(), idle)?;
        self.end += n.unwrap_or(0);
        Ok(n)
    }

    /// Returns the free part of the buffer. The buffer is made, moved or grown first, if it has none.
    fn room(&mut self) -> &mut [u8] {
        if self.is_empty() {
            self.rewind();
        }
        if self.end == self.buf.len() {
            if self.start > 0 {
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.buf.is_empty() {
                self.make();
            } else {
                // The decoder's limit bounds this: it fails before a frame grows beyond.
                self.buf.resize(self.buf.len() * 2, 0);
            }
        }
        &mut self.buf[self.end..]
    }

    fn scratch(&mut self) -> &mut [u8] {
        if self.buf.is_empty() {
            self.make();
        }
        (self.start, self.end) = (0, 0);
        &mut self.buf
    }

    /// Makes the buffer, or takes that of this thread's last connection.
    fn make(&mut self) {
        let spare = SPARE.try_with(Cell::take).unwrap_or_default();
        self.buf = if spare.len() == self.size() { spare } else { vec![0; self.size()] };
    }

    /// Gives the buffer to this thread's next connection. One that has grown is not kept: memory must not follow the
    /// longest frame ever.
    fn give_up(&mut self) {
        let buf = std::mem::take(&mut self.buf);
        if !buf.is_empty() && buf.len() == self.size() && buf.len() <= LARGEST_SPARE {
            let _ = SPARE.try_with(|spare| spare.set(buf));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.give_up();
    }
}
