//! [`LineDecoder`]: lines, and raw bytes between them.

use super::line_end::{Found, Search};
use super::{Decoded, Decoder, Encoder, Frame, FrameError, LineEnd, LineTooLong, DEFAULT_MAX_LENGTH};

/// The policy for a line over the limit. Both policies report it once, and never give a part of it as a line.
/// A peer could hide a command in that part, behind the bytes that a filter in front has read as one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverLong {
    /// The stream cannot be read any further: close the connection.
    #[default]
    Close,
    /// The line is skipped, its end included.
    Discard,
}

/// Bytes that are not lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// This number of bytes, then lines again. With 0, lines at once.
    Bytes(u64),
    /// Until [`LineDecoder::set_line_mode`].
    UntilSwitched,
}

/// Reads lines. In raw mode it reads bytes as they come.
///
/// Settings may be changed at any time. They hold from the next frame on, also for bytes that have arrived
/// already.
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError};
/// use socketserver::framing::{LineDecoder, LineEnd, OverLong, Raw};
///
/// let lines = LineDecoder::new(LineEnd::CrLf).max_length(8);
/// let mut lines = lines.over_long(OverLong::Discard);
/// let mut buffer = FrameBuffer::new(1024);
/// buffer.push(b"body 5\r\n\r\nabcmuch too long\r\nbye\r\n")?;
/// assert_eq!(buffer.next(&mut lines)?, Some(&b"body 5"[..]));
/// lines.set_raw_mode(Raw::Bytes(5));
/// assert_eq!(buffer.next(&mut lines)?, Some(&b"\r\nabc"[..]));
/// assert!(!lines.is_raw());
/// let too_long = buffer.next(&mut lines).unwrap_err();
/// assert_eq!(too_long.to_string(), "a line of more than 8 bytes");
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
    /// Makes a decoder with [`LineEnd::Newline`].
    fn default() -> Self {
        Self::new(LineEnd::default())
    }
}

impl LineDecoder {
    /// Makes a decoder in line mode, with at most [`DEFAULT_MAX_LENGTH`] bytes in a line, and
    /// [`OverLong::Close`].
    pub fn new(end: LineEnd) -> Self {
        let (max_length, over_long) = (DEFAULT_MAX_LENGTH, OverLong::Close);
        Self { search: Search::new(end), max_length, over_long, discarding: false, raw: None }
    }

    /// Sets the most bytes in a line, without its end.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.set_max_length(bytes);
        self
    }

    /// Sets the policy for lines over the limit.
    #[must_use]
    pub fn over_long(mut self, policy: OverLong) -> Self {
        self.set_over_long(policy);
        self
    }

    /// Changes the line end.
    pub fn set_line_end(&mut self, end: LineEnd) {
        self.search = Search::new(end);
    }

    /// Changes the limit, in bytes.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.max_length = bytes;
    }

    /// Changes the policy for lines over the limit.
    pub fn set_over_long(&mut self, policy: OverLong) {
        self.over_long = policy;
    }

    /// Switches to raw mode: each frame is all that has arrived, up to the number of bytes. In
    /// [`Raw::UntilSwitched`] the caller may take fewer bytes than the frame has.
    pub fn set_raw_mode(&mut self, raw: Raw) {
        self.raw = (raw != Raw::Bytes(0)).then_some(raw);
    }

    /// Switches to line mode: frames are lines.
    pub fn set_line_mode(&mut self) {
        self.raw = None;
    }

    /// Returns the raw mode of the next frame. `None` if it is a line.
    pub fn raw(&self) -> Option<Raw> {
        self.raw.filter(|_| !self.discarding)
    }

    /// True if the next frame is raw.
    pub fn is_raw(&self) -> bool {
        self.raw().is_some()
    }

    /// True if the rest of a line over the limit is being skipped.
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Returns the policy for lines over the limit.
    pub fn policy(&self) -> OverLong {
        self.over_long
    }

    /// Returns the limit, in bytes.
    pub fn limit(&self) -> usize {
        self.max_length
    }

    /// Skips the line that was reported as too long, whatever the policy is.
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
        // A line of just the limit is fine, also if its `\r` has come and its `\n` has not.
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
        // The beginning of a line end must stay, or the end would not be seen when the rest comes.
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

    /// Keeps the mode, and the discarding of a line.
    fn reset(&mut self) {
        self.search.reset();
    }

    /// True while a line is discarded, and until [`Raw::Bytes`] are complete.
    fn mid_frame(&self) -> bool {
        self.discarding || matches!(self.raw, Some(Raw::Bytes(_)))
    }
}

impl Encoder for LineDecoder {
    /// Appends a line and its end: the delimiter, `\r\n`, or `\n` for [`LineEnd::Newline`]. The last two
    /// refuse text that contains `\r` or `\n`. So no reader sees two lines for one that was sent.
    fn encode(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        self.search.append(payload, out)
    }
}
