//! Netstrings: `5:hello,`.

use super::{examined, Decoded, Decoder, Encoder, Frame, FrameError, DEFAULT_MAX_LENGTH};

/// Reads netstrings: the length in decimal digits, a colon, the bytes, a comma.
///
/// It is strict: no sign, no space, no zero in front of another digit. A length has one spelling; another
/// program could read `01:a,` as something else. Memory grows with the bytes that arrive, never with the
/// announced length.
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError, Netstrings};
///
/// let mut strings = Netstrings::new().max_length(10);
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"5:hello,0:,11")?;
/// assert_eq!(buffer.next(&mut strings)?, Some(&b"hello"[..]));
/// assert_eq!(buffer.next(&mut strings)?, Some(&b""[..]));
/// let refused = buffer.next(&mut strings);                 // before the colon
/// assert_eq!(refused, Err(FrameError::TooLong { limit: 10, len: 11 }));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Netstrings {
    max_length: usize,
    /// The number of bytes that were read of the length and its colon.
    header: usize,
    size: usize,
    colon: bool,
}

impl Default for Netstrings {
    fn default() -> Self {
        Self::new()
    }
}

impl Netstrings {
    /// Makes a decoder with at most [`DEFAULT_MAX_LENGTH`] bytes in a string.
    pub fn new() -> Self {
        Self { max_length: DEFAULT_MAX_LENGTH, header: 0, size: 0, colon: false }
    }

    /// Sets the most bytes in a string.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    /// Reads one byte of the length. A wrong byte changes nothing, so the next call gives the same error.
    fn length_byte(&mut self, byte: u8) -> Result<(), FrameError> {
        examined(1);
        match byte {
            b':' if self.header > 0 => self.colon = true,
            b'0'..=b'9' if self.header > 0 && self.size == 0 => {
                return Err(FrameError::Malformed("a netstring's length begins with a superfluous zero"));
            }
            b'0'..=b'9' => {
                let len = self.size.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                // Refused here, before the colon and before any allocation.
                if len > self.max_length {
                    return Err(FrameError::TooLong { limit: self.max_length, len });
                }
                self.size = len;
            }
            _ => return Err(FrameError::Malformed("a netstring begins with its length in digits and a colon")),
        }
        self.header += 1;
        Ok(())
    }
}

impl Decoder for Netstrings {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        while !self.colon {
            let Some(byte) = unread.get(self.header) else { return Ok(Decoded::More) };
            self.length_byte(*byte)?;
        }
        let end = self.header.saturating_add(self.size);
        let Some(comma) = unread.get(end) else { return Ok(Decoded::More) };
        examined(1);
        if *comma != b',' {
            return Err(FrameError::Malformed("a netstring ends with a comma"));
        }
        let payload = self.header..end;
        self.reset();
        Ok(Decoded::Frame(Frame { payload, len: end + 1 }))
    }

    fn reset(&mut self) {
        (self.header, self.size, self.colon) = (0, 0, false);
    }
}

impl Encoder for Netstrings {
    /// Never fails.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        out.extend_from_slice(payload.len().to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(payload);
        out.push(b',');
        Ok(())
    }
}
