//! Decoders that find where one message of a stream ends: lines, netstrings, length prefixes, fixed lengths.
//!
//! A [`Decoder`] does no I/O and keeps no bytes. It looks at the unread bytes, says what is at their front,
//! and remembers only how far it has looked. So the same decoder serves a blocking connection
//! ([`Connection::read_frame`](crate::Connection::read_frame)), an event loop, and your own program
//! ([`FrameBuffer`]). Its answer is a range, not a slice: the caller may move or grow its buffer in the same
//! loop. An [`Encoder`] is the counterpart; every type here is both.
//!
//! | type | a frame is | refuses |
//! |---|---|---|
//! | [`LineDecoder`] | a text before `\n` or `\r\n`, only `\r\n`, or a delimiter | lines over the limit |
//! | [`Netstrings`] | `5:hello,` | lengths over the limit; any other deviation |
//! | [`LengthPrefixed`] | a length of 8, 16 or 32 bits, big-endian, and its bytes | lengths over the limit |
//! | [`Exactly`] | a fixed number of bytes | |
//! | [`Terminated`] | set by a [`Terminator`] for each frame: bytes, a length, or none | as [`LineDecoder`] |
//!
//! Limits are in bytes of payload: [`DEFAULT_MAX_LENGTH`] (64 KiB) unless set. A frame over the limit is
//! refused as soon as that shows. So a reader never holds more than the limit and the bytes of its last read.
//! Each byte is looked at twice at most, in chunks of any size.
//!
//! ```
//! use socketserver::framing::{Encoder, FrameBuffer, FrameError};
//! use socketserver::framing::{LineDecoder, LineEnd, Netstrings};
//!
//! let mut lines = LineDecoder::new(LineEnd::Newline);
//! let mut buffer = FrameBuffer::new(usize::MAX);
//! buffer.push(b"HELO a\r\nMAIL")?;                    // as it arrives
//! assert_eq!(buffer.next(&mut lines)?, Some(&b"HELO a"[..]));
//! assert_eq!(buffer.next(&mut lines)?, None);
//! assert_eq!(buffer.unread(), b"MAIL");
//!
//! let mut out = Vec::new();
//! Netstrings::new().encode(b"hello", &mut out)?;
//! assert_eq!(out, b"5:hello,");
//! assert!(lines.encode(b"220 hi\r\nQUIT", &mut out).is_err());     // two lines
//! # Ok::<(), FrameError>(())
//! ```
//!
//! # A decoder of your own
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
mod parser;
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
pub use parser::Parser;
pub(crate) use parser::Parsing;
pub use prefix::LengthPrefixed;
pub use terminated::{Exactly, Terminated, Terminator};

/// The most bytes of payload that a frame may have by default: 64 KiB.
pub const DEFAULT_MAX_LENGTH: usize = 64 << 10;

/// A frame at the front of the unread bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The range of its payload in the unread bytes.
    pub payload: Range<usize>,
    /// Its length from the front, its end and its prefix included.
    pub len: usize,
}

/// The answer of a [`Decoder`] about the unread bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A frame: take [`len`](Frame::len) bytes from the front.
    Frame(Frame),
    /// This number of bytes (never 0) belongs to no frame, as the rest of a line over the limit. Take them
    /// from the front and ask again.
    Skip(usize),
    /// No whole frame yet: ask again with more bytes.
    More,
}

/// Finds the frames of a stream. It does no I/O and keeps no bytes, see [the module](self).
pub trait Decoder {
    /// Says what is at the front of `unread`, which is all that has arrived and is not yet taken. The caller
    /// then takes the bytes of the answer from the front: none for [`More`](Decoded::More) and for an error.
    /// It may add bytes at the back.
    ///
    /// # Errors
    /// The front is no frame, or it is too long. The next call gives the same error, unless the decoder can
    /// skip the frame ([`OverLong::Discard`]).
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError>;

    /// Forgets how far it has looked. Call it after you have taken or changed other bytes than
    /// [`decode`](Self::decode) said.
    fn reset(&mut self);

    /// True if a part of the present frame was taken already, or is announced. A stream that ends here is cut
    /// off, although no byte is unread.
    fn mid_frame(&self) -> bool {
        false
    }
}

/// Makes frames of payloads.
pub trait Encoder {
    /// Appends `payload` as one frame to `out`. An error leaves `out` as it was. The limits of the decoder do
    /// not apply: the reader sets its own.
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
