//! [`LengthPrefixed`]: a length in binary, and its bytes.

use super::{examined, Decoded, Decoder, Encoder, Frame, FrameError, DEFAULT_MAX_LENGTH};

/// Reads messages with their length in front: 8, 16 or 32 bits, big-endian.
///
/// ```
/// use socketserver::framing::{Encoder, FrameBuffer, FrameError, LengthPrefixed};
///
/// let mut strings = LengthPrefixed::u16().max_length(10);
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"\0\x05hello\0\x0b")?;
/// assert_eq!(buffer.next(&mut strings)?, Some(&b"hello"[..]));
/// let refused = buffer.next(&mut strings);
/// assert_eq!(refused, Err(FrameError::TooLong { limit: 10, len: 11 }));
///
/// let mut out = Vec::new();
/// let refused = LengthPrefixed::u8().encode(&[0; 256], &mut out);
/// assert_eq!(refused, Err(FrameError::TooLong { limit: 255, len: 256 }));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LengthPrefixed {
    width: usize,
    max_length: usize,
    /// The length, once the prefix was read.
    size: Option<usize>,
}

impl LengthPrefixed {
    fn new(width: usize) -> Self {
        Self { width, max_length: DEFAULT_MAX_LENGTH, size: None }
    }

    /// Makes a decoder for a prefix of one byte.
    pub fn u8() -> Self {
        Self::new(1)
    }

    /// Makes a decoder for a prefix of two bytes.
    pub fn u16() -> Self {
        Self::new(2)
    }

    /// Makes a decoder for a prefix of four bytes, with at most [`DEFAULT_MAX_LENGTH`] bytes in a message.
    pub fn u32() -> Self {
        Self::new(4)
    }

    /// Sets the most bytes in a message that is read. [`DEFAULT_MAX_LENGTH`] by default.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    fn read_prefix(&mut self, prefix: &[u8]) -> Result<usize, FrameError> {
        examined(prefix.len());
        let len = prefix.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        // Refused before any byte of the payload is buffered.
        if len > self.max_length {
            return Err(FrameError::TooLong { limit: self.max_length, len });
        }
        self.size = Some(len);
        Ok(len)
    }
}

impl Decoder for LengthPrefixed {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        let size = match (self.size, unread.get(..self.width)) {
            (Some(size), _) => size,
            (None, Some(prefix)) => self.read_prefix(prefix)?,
            (None, None) => return Ok(Decoded::More),
        };
        let len = self.width.saturating_add(size);
        if unread.len() < len {
            return Ok(Decoded::More);
        }
        self.reset();
        Ok(Decoded::Frame(Frame { payload: self.width..len, len }))
    }

    fn reset(&mut self) {
        self.size = None;
    }
}

impl Encoder for LengthPrefixed {
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let (len, limit) = (payload.len(), (u32::MAX >> (32 - 8 * self.width)) as usize);
        if len > limit {
            return Err(FrameError::TooLong { limit, len });
        }
        out.extend_from_slice(&(len as u64).to_be_bytes()[8 - self.width..]);
        out.extend_from_slice(payload);
        Ok(())
    }
}
