//! Lines, and stretches of raw bytes between them.

use super::line_end::{Found, Search};
use super::{Decoded, Decoder, Encoder, Frame, FrameError, LineEnd, LineTooLong, DEFAULT_MAX_LENGTH};

/// What becomes of a line over the limit. Either way it is told once, and no part of it is ever given as a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverLong {
    /// The stream cannot be read on: the connection is to be closed.
    #[default]
    Close,
    /// The line is skipped, up to and with its end.
    Discard,
}

/// Bytes that are not lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// So many bytes; then lines again. With 0, lines at once.
    Bytes(u64),
    /// Until [`LineDecoder::set_line_mode`].
    UntilSwitched,
}

/// Reads lines; and, in raw mode, bytes as they come.
///
/// Settings may be changed at any time and hold from the next frame on, also for what has arrived already.
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError, LineDecoder, LineEnd, OverLong, Raw};
///
/// let mut lines = LineDecoder::new(LineEnd::CrLf).max_length(8).over_long(OverLong::Discard);
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"body 5\r\n\r\nabcmuch too long\r\nbye\r\n")?;
/// assert_eq!(buffer.next(&mut lines)?, Some(&b"body 5"[..]));
/// lines.set_raw_mode(Raw::Bytes(5));
/// assert_eq!(buffer.next(&mut lines)?, Some(&b"\r\nabc"[..]));
/// assert!(!lines.is_raw());
/// assert_eq!(buffer.next(&mut lines).unwrap_err().to_string(), "a line of more than 8 bytes");
/// assert_eq!(buffer.next(&mut lines)?, Some(&b"bye"[..]));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LineDecoder {
    search: Search,
    max_length: usize,
    over_long: OverLong,
    discarding: bool,
    raw: Option<Raw>,
}

impl Default for LineDecoder {
    /// With [`LineEnd::Newline`].
    fn default() -> Self {
        Self::new(LineEnd::default())
    }
}

impl LineDecoder {
    /// In line mode, with at most [`DEFAULT_MAX_LENGTH`] bytes in a line, and [`OverLong::Close`].
    pub fn new(end: LineEnd) -> Self {
        let (max_length, over_long) = (DEFAULT_MAX_LENGTH, OverLong::Close);
        Self { search: Search::new(end), max_length, over_long, discarding: false, raw: None }
    }

    /// The most bytes in a line, its end not counted.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.set_max_length(bytes);
        self
    }

    /// What becomes of a longer one.
    #[must_use]
    pub fn over_long(mut self, policy: OverLong) -> Self {
        self.set_over_long(policy);
        self
    }

    /// Another line end.
    pub fn set_line_end(&mut self, end: LineEnd) {
        self.search = Search::new(end);
    }

    /// Another limit, in bytes.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Another policy for lines over the limit.
    pub fn set_over_long(&mut self, policy: OverLong) {
        self.over_long = policy;
    }

    /// From here on, frames are raw: each is what there is, up to the number of bytes. A caller may take fewer bytes of
    /// one than it has, in [`Raw::UntilSwitched`] only.
    pub fn set_raw_mode(&mut self, raw: Raw) {
        self.raw = (raw != Raw::Bytes(0)).then_some(raw);
    }

    /// From here on, frames are lines.
    pub fn set_line_mode(&mut self) {
        self.raw = None;
    }

    /// How the next frame is raw; `None` where it is a line.
    pub fn raw(&self) -> Option<Raw> {
        self.raw.filter(|_| !self.discarding)
    }

    /// Whether the next frame is raw.
    pub fn is_raw(&self) -> bool {
        self.raw().is_some()
    }

    /// Whether the rest of a line that was too long is being skipped.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// What becomes of a line over the limit.
    pub fn policy(&self) -> OverLong {
        self.over_long
    }

    /// The limit, in bytes.
    pub fn limit(&self) -> usize {
        self.max_length
    }

    /// A line that has been reported as too long: skips it, whatever the policy.
    pub fn discard_line(&mut self) {
        self.discarding = true;
    }

    fn raw_piece(&mut self, raw: Raw, available: usize) -> Decoded {
        if available == 0 {
            return Decoded::More;
        }
        let mut len = available;
        if let Raw::Bytes(left) = raw {
            len = usize::try_from(left).map_or(available, |left| left.min(available));
            self.set_raw_mode(Raw::Bytes(left - len as u64));
        }
        Decoded::Frame(Frame { payload: 0..len, len })
    }

    fn line(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        let found = self.search.find(unread);
        if self.discarding {
            return Ok(self.skip(found, unread));
        }
        let len = found.map_or_else(|| unread.len() - self.search.begun(unread), |line| line.text);
        if len > self.max_length {
            self.discarding = self.over_long == OverLong::Discard;
            return Err(LineTooLong { limit: self.max_length, len }.into());
        }
        Ok(found.map_or(Decoded::More, |line| {
            self.search.reset();
            Decoded::Frame(Frame { payload: 0..line.text, len: line.len })
        }))
    }

    fn skip(&mut self, found: Option<Found>, unread: &[u8]) -> Decoded {
        let n = found.map_or_else(|| unread.len() - self.search.begun(unread), |line| line.len);
        if found.is_some() {
            self.discarding = false;
            self.search.reset();
        } else {
            self.search.shift(n);
        }
        if n == 0 {
            Decoded::More
        } else {
            Decoded::Skip(n)
        }
    }
}

impl Decoder for LineDecoder {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        match self.raw() {
            Some(raw) => Ok(self.raw_piece(raw, unread.len())),
            None => self.line(unread),
        }
    }

    /// The mode stays, and so does the discarding of a line.
    fn reset(&mut self) {
        self.search.reset();
    }

    /// While a line is discarded, and until [`Raw::Bytes`] are complete.
    fn mid_frame(&self) -> bool {
        self.discarding || matches!(self.raw, Some(Raw::Bytes(_)))
    }
}

impl Encoder for LineDecoder {
    /// Appends a line, ended by the delimiter, by `\r\n`, or by `\n` for [`LineEnd::Newline`]. Of these two, both
    /// refuse text that contains `\r` or `\n`, so that no reader, however lenient, sees two lines where one was sent.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        self.search.append(payload, out)
    }
}
