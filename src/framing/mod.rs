//! Where one message of a stream ends and the next begins: lines, netstrings, length prefixes, fixed lengths.
//!
//! A [`Decoder`] does no I/O and keeps no bytes. It looks at all that is unread, says what is at its front, and
//! remembers only how far it has looked. So one and the same decoder reads from a blocking connection
//! ([`Connection::read_frame`](crate::Connection::read_frame)) and from chunks that arrive by other ways
//! ([`FrameBuffer`]). An [`Encoder`] is its counterpart; every type here is both.
//!
//! | type | a frame is | refuses |
//! |---|---|---|
//! | [`LineDecoder`] | what stands before a line end: `\n` or `\r\n`, strictly `\r\n`, or a delimiter | lines over the limit |
//! | [`Netstrings`] | `5:hello,` | lengths over the limit; any other deviation |
//! | [`LengthPrefixed`] | a length of 8, 16 or 32 bits, big-endian, and so many bytes | lengths over the limit |
//! | [`Exactly`] | always so many bytes | |
//! | [`Terminated`] | what a [`Terminator`] says, anew for each frame: bytes, a length, or none | as [`LineDecoder`] |
//!
//! Limits are in bytes of payload, [`DEFAULT_MAX_LENGTH`] (64 KiB) unless set. A frame over the limit is refused as
//! soon as that shows, so that a reader never holds more than the limit and what came with its last read. Each byte is
//! looked at twice at most, however the stream is cut into chunks.
//!
//! ```
//! use socketserver::framing::{Encoder, FrameBuffer, FrameError, LineDecoder, LineEnd, Netstrings};
//!
//! let mut lines = LineDecoder::new(LineEnd::Newline);
//! let mut buffer = FrameBuffer::new(usize::MAX);
//! buffer.push(b"HELO a\r\nMAIL")?;                                     // as it arrives
//! assert_eq!(buffer.next(&mut lines)?, Some(&b"HELO a"[..]));
//! assert_eq!(buffer.next(&mut lines)?, None);
//! assert_eq!(buffer.unread(), b"MAIL");
//!
//! let mut out = Vec::new();
//! Netstrings::new().encode(b"hello", &mut out)?;
//! assert_eq!(out, b"5:hello,");
//! assert!(lines.encode(b"220 hi\r\nQUIT", &mut out).is_err());         // two lines where one was meant
//! # Ok::<(), FrameError>(())
//! ```
//!
//! # Writing one's own
//!
//! ```
//! use socketserver::framing::{Decoded, Decoder, Frame, FrameBuffer, FrameError};
//!
//! /// A frame is one character, of a byte below 128 or of two bytes.
//! struct Characters;
//!
//! impl Decoder for Characters {
//!     fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
//!         let len = match unread {
//!             [first, ..] if *first < 128 => 1,
//!             [_, _, ..] => 2,
//!             _ => return Ok(Decoded::More),
//!         };
//!         Ok(Decoded::Frame(Frame { payload: 0..len, len }))
//!     }
//!
//!     fn reset(&mut self) {}
//! }
//!
//! let mut buffer = FrameBuffer::new(1024);
//! buffer.push(b"a\x82\xa0\x82")?;
//! assert_eq!(buffer.next(&mut Characters)?, Some(&b"a"[..]));
//! assert_eq!(buffer.next(&mut Characters)?, Some(&b"\x82\xa0"[..]));
//! assert_eq!(buffer.next(&mut Characters)?, None);
//! # Ok::<(), FrameError>(())
//! ```

mod buffer;
mod error;
mod line_end;
mod lines;
mod netstring;
mod prefix;
mod terminated;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use buffer::FrameBuffer;
pub use error::{FrameError, LineTooLong};
pub use line_end::LineEnd;
pub use lines::{LineDecoder, OverLong, Raw};
pub use netstring::Netstrings;
pub use prefix::LengthPrefixed;
pub use terminated::{Exactly, Terminated, Terminator};

/// The most bytes of payload a frame may have where nothing else is set: 64 KiB.
pub const DEFAULT_MAX_LENGTH: usize = 64 << 10;

/// A frame at the front of what is unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Where its payload stands in what is unread.
    pub payload: Range<usize>,
    /// How many bytes it takes from the front, its end and its prefix included.
    pub len: usize,
}

/// What a [`Decoder`] says about what is unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A frame: take [`len`](Frame::len) bytes from the front.
    Frame(Frame),
    /// So many bytes, never 0, that belong to no frame, as the rest of a line that was too long: take them from the
    /// front and ask again.
    Skip(usize),
    /// No whole frame yet: ask again with more bytes.
    More,
}

/// Finds the frames of a stream. Does no I/O and keeps no bytes; see [the module](self).
pub trait Decoder {
    /// What is at the front of `unread`, which is all that has arrived and is not yet taken. Between two calls, the
    /// caller takes from the front what the answer says (nothing for [`More`](Decoded::More) and for an error), and
    /// may add at the back.
    ///
    /// # Errors
    /// What is at the front is no frame, or too long. The next call says so again, unless the decoder has a way past
    /// it ([`OverLong::Discard`]).
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError>;

    /// Forgets how far it has looked. For a caller who has taken or changed bytes otherwise than as
    /// [`decode`](Self::decode) said.
    fn reset(&mut self);

    /// Whether a part of the present frame is taken already, or announced, so that a stream that ends here is cut off
    /// although nothing is unread.
    fn mid_frame(&self) -> bool {
        false
    }
}

/// Makes frames of payloads.
pub trait Encoder {
    /// Appends `payload` as one frame to `out`, which an error leaves as it was. Limits of the reading side do not
    /// apply: they are the peer's to set.
    ///
    /// # Errors
    /// A decoder of the same kind would not read it as one frame.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError>;
}

/// Counts the bytes that decoders look at, for the tests.
#[cfg(test)]
use tests::examined;
#[cfg(not(test))]
#[inline(always)]
fn examined(_bytes: usize) {}
