//! A buffer for streams that arrive in chunks.

use super::{Decoded, Decoder, FrameError, Parser, Parsing};

/// A buffer for a stream. Chunks go in at the back, frames come out at the front.
///
/// It grows as needed up to its limit. Once it is found empty, it holds no memory.
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError, LineDecoder};
///
/// let (mut buffer, mut lines) = (FrameBuffer::new(16), LineDecoder::default());
/// for chunk in ["one\ntw", "o\nthr"] {
///     buffer.push(chunk.as_bytes())?;
///     while let Some(line) = buffer.next(&mut lines)? {
///         assert_eq!(line.len(), 3);
///     }
/// }
/// assert_eq!(buffer.unread(), b"thr");                     // cut off, if this was all
/// assert_eq!(buffer.push(&[0; 14]), Err(FrameError::TooLong { limit: 16, len: 17 }));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct FrameBuffer {
    buf: Vec<u8>,
    start: usize,
    limit: usize,
}

/// Memory up to this size is given back only when the buffer is empty.
const SMALL: usize = 8 << 10;

impl FrameBuffer {
    /// Makes an empty buffer for at most `limit` unread bytes. Give `usize::MAX` if the decoder's own limit
    /// is enough.
    pub const fn new(limit: usize) -> Self {
        Self { buf: Vec::new(), start: 0, limit }
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if more bytes would be unread than the limit. Nothing of the chunk is taken.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), FrameError> {
        let len = self.unread().len() + chunk.len();
        if len > self.limit {
            return Err(FrameError::TooLong { limit: self.limit, len });
        }
        // Room at the front is used before the buffer grows.
        self.compact();
        self.buf.extend_from_slice(chunk);
        Ok(())
    }

    /// Takes the next frame and returns its payload. `None` if more must be pushed first. Call it until
    /// `None`: then it also frees memory.
    ///
    /// # Errors
    /// The decoder's. Nothing is taken.
    pub fn next<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> Result<Option<&[u8]>, FrameError> {
        loop {
            match decoder.decode(self.unread())? {
                Decoded::Frame(frame) => {
                    // The payload is lent from the buffer, so nothing moves here. `push` moves it later.
                    let at = self.start;
                    self.start = at + frame.len;
                    return Ok(Some(&self.buf[at..][frame.payload]));
                }
                Decoded::Skip(n) => self.consume(n),
                Decoded::More => {
                    self.consume(0);
                    return Ok(None);
                }
            }
        }
    }

    /// Takes the next item that `parser` makes, as [`next`](Self::next) takes a frame.
    ///
    /// # Errors
    /// The parser's. Nothing is taken.
    pub fn next_item<P: Parser>(&mut self, parser: &mut P) -> Result<Option<P::Item>, FrameError> {
        let mut parsing = Parsing::new(parser);
        self.next(&mut parsing)?;
        Ok(parsing.into_item())
    }

    /// Returns the bytes that are not yet taken. At the end of the stream, they are a frame that was cut off.
    pub fn unread(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Takes `n` bytes from the front, or all if there are fewer. If the number is not from a decoder, you
    /// must [reset](Decoder::reset) the decoder.
    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.buf.len());
        if self.start == self.buf.len() {
            self.clear();
        } else {
            self.compact();
        }
    }

    /// Takes all bytes, and frees the memory.
    pub fn clear(&mut self) {
        (self.buf, self.start) = (Vec::new(), 0);
    }

    /// True if no byte is unread.
    pub fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    /// Moves the unread bytes to the front, if the free part there is at least as large. So each byte is
    /// moved once on average.
    fn compact(&mut self) {
        if self.start >= self.unread().len() {
            self.buf.drain(..self.start);
            self.start = 0;
            if self.buf.capacity() > SMALL {
                self.buf.shrink_to(self.buf.len() * 2);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buf.capacity()
    }
}
