//! [`Exactly`] (fixed lengths) and [`Terminated`] (asynchat's terminators, which change during a dialogue).

use std::num::NonZeroUsize;

use super::{Decoded, Decoder, Encoder, Frame, FrameError, LineDecoder, LineEnd, Raw};

/// Reads frames of a fixed number of bytes. Not of 0 bytes: such frames would never end.
///
/// ```
/// use socketserver::framing::{Exactly, FrameBuffer, FrameError};
///
/// let mut three = Exactly(3.try_into().unwrap());
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"abcdefg")?;
/// assert_eq!(buffer.next(&mut three)?, Some(&b"abc"[..]));
/// assert_eq!(buffer.next(&mut three)?, Some(&b"def"[..]));
/// assert_eq!(buffer.next(&mut three)?, None);
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exactly(pub NonZeroUsize);

impl Decoder for Exactly {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        let len = self.0.get();
        if unread.len() < len {
            return Ok(Decoded::More);
        }
        Ok(Decoded::Frame(Frame { payload: 0..len, len }))
    }

    fn reset(&mut self) {}
}

impl Encoder for Exactly {
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        if payload.len() != self.0.get() {
            return Err(FrameError::Unencodable("it is not of the fixed length"));
        }
        out.extend_from_slice(payload);
        Ok(())
    }
}

/// The end of a frame that [`Terminated`] reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terminator {
    /// These bytes. They are no part of the payload.
    Bytes(Vec<u8>),
    /// A number of bytes.
    Length(NonZeroUsize),
    /// No end: each frame is all that has arrived.
    None,
}

/// Reads frames up to a [`Terminator`], as Python's `asynchat` does.
///
/// The terminator stays until another is set, also a length. (In `asynchat` a length becomes 0 after its
/// first use, which means "everything": the rest is then collected without a bound). A new one holds from the
/// next frame on, also for bytes that have arrived already.
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError, Terminated, Terminator};
///
/// let mut request = Terminated::new(Terminator::Bytes(b"\r\n\r\n".to_vec()));
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"Content-Length: 5\r\n\r\nhelloContent-")?;
/// assert_eq!(buffer.next(&mut request)?, Some(&b"Content-Length: 5"[..]));
/// request.set_terminator(Terminator::Length(5.try_into().unwrap()));
/// assert_eq!(buffer.next(&mut request)?, Some(&b"hello"[..]));
/// request.set_terminator(Terminator::Bytes(b"\r\n\r\n".to_vec()));
/// assert_eq!(buffer.next(&mut request)?, None);
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Terminated {
    /// Reads up to bytes. In raw mode it reads frames without an end.
    lines: LineDecoder,
    length: Option<Exactly>,
}

impl Terminated {
    /// Makes a decoder with at most [`DEFAULT_MAX_LENGTH`](super::DEFAULT_MAX_LENGTH) bytes before a
    /// terminator of bytes.
    pub fn new(terminator: Terminator) -> Self {
        let mut new = Self { lines: LineDecoder::default(), length: None };
        new.set_terminator(terminator);
        new
    }

    /// Sets the most bytes before a terminator of bytes. A length is its own limit.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.lines.set_max_length(bytes);
        self
    }

    /// Changes the end of the next frame and of those after it.
    pub fn set_terminator(&mut self, terminator: Terminator) {
        self.length = None;
        self.lines.set_line_mode();
        match terminator {
            Terminator::Bytes(bytes) => self.lines.set_line_end(LineEnd::Delimiter(bytes)),
            Terminator::Length(n) => self.length = Some(Exactly(n)),
            Terminator::None => self.lines.set_raw_mode(Raw::UntilSwitched),
        }
    }
}

impl Decoder for Terminated {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        match &mut self.length {
            Some(exactly) => exactly.decode(unread),
            None => self.lines.decode(unread),
        }
    }

    fn reset(&mut self) {
        self.lines.reset();
    }
}

impl Encoder for Terminated {
    /// Appends the payload and its terminator. Without a terminator, the payload alone.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        match &self.length {
            Some(exactly) => exactly.encode(payload, out),
            None if self.lines.is_raw() => {
                out.extend_from_slice(payload);
                Ok(())
            }
            None => self.lines.encode(payload, out),
        }
    }
}
