//! The search for the end of a line. It goes on where it stopped.
//!
//! A search that begins anew with each read takes a time that grows with the square of the length, and the
//! peer chooses both. Tests count the bytes that are looked at: each byte twice at most.

use memchr::memchr;

use super::{examined, FrameError};

/// The bytes that end a line. Two programs that disagree on them can be made to see different messages in one
/// stream (SMTP smuggling). So there is a lenient and a strict kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LineEnd {
    /// `\n` or `\r\n`, as people type them. A `\r` elsewhere is data.
    #[default]
    Newline,
    /// `\r\n` only. A `\n` or a `\r` alone is data.
    CrLf,
    /// These bytes. The first match from the left counts. An empty delimiter never matches.
    Delimiter(Vec<u8>),
}

/// A line that was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Its length without the end.
    pub(super) text: usize,
    /// Its length with the end.
    pub(super) len: usize,
}

/// A line end, and how far it was searched for. `scanned` bytes hold no line end. The last `matched` of them
/// may begin a delimiter. (The other kinds see that in the last byte.)
#[derive(Debug, Clone)]
pub(super) struct Search {
    end: End,
    scanned: usize,
    matched: usize,
}

#[derive(Debug, Clone)]
enum End {
    Newline,
    CrLf,
    Delimiter(Box<Delimiter>),
}

/// A delimiter, prepared for the search of Knuth, Morris and Pratt. If a delimiter arrives byte by byte, any
/// other search looks at bytes again.
#[derive(Debug, Clone)]
struct Delimiter {
    bytes: Vec<u8>,
    /// `fall[n]`: if the byte after the first `n + 1` does not match, this number of bytes still match.
    fall: Vec<usize>,
}

impl Delimiter {
    fn new(bytes: Vec<u8>) -> Self {
        // The usual table: the delimiter is searched within itself.
        let mut fall = vec![0; bytes.len()];
        let mut matched = 0;
        for at in 1..bytes.len() {
            while matched > 0 && bytes[at] != bytes[matched] {
                matched = fall[matched - 1];
            }
            matched += usize::from(bytes[at] == bytes[matched]);
            fall[at] = matched;
        }
        Self { bytes, fall }
    }

    /// Searches from `at`, where the last `matched` bytes match. Returns the end of the first match, and the
    /// number of bytes that match at the end.
    fn find(&self, unread: &[u8], mut at: usize, mut matched: usize) -> (Option<usize>, usize) {
        let Some(first) = self.bytes.first() else { return (None, 0) };
        while at < unread.len() {
            // Nothing matches: `memchr` skips to the next first byte, which is many times faster.
            if matched == 0 {
                let Some(n) = find_byte(*first, &unread[at..]) else { return (None, 0) };
                (at, matched) = (at + n + 1, 1);
            } else if self.matches(unread[at], matched) {
                (at, matched) = (at + 1, matched + 1);
            } else {
                matched = self.fall[matched - 1];
            }
            if matched == self.bytes.len() {
                return (Some(at), matched);
            }
        }
        (None, matched)
    }

    fn matches(&self, byte: u8, matched: usize) -> bool {
        examined(1);
        byte == self.bytes[matched]
    }
}

fn find_byte(byte: u8, within: &[u8]) -> Option<usize> {
    let found = memchr(byte, within);
    examined(found.map_or(within.len(), |at| at + 1));
    found
}

impl Search {
    pub(super) fn new(end: LineEnd) -> Self {
        let end = match end {
            LineEnd::Newline => End::Newline,
            LineEnd::CrLf => End::CrLf,
            LineEnd::Delimiter(bytes) => End::Delimiter(Box::new(Delimiter::new(bytes))),
        };
        Self { end, scanned: 0, matched: 0 }
    }

    pub(super) fn reset(&mut self) {
        (self.scanned, self.matched) = (0, 0);
    }

    /// Notes that `n` bytes have been taken from the front.
    pub(super) fn shift(&mut self, n: usize) {
        self.scanned = self.scanned.saturating_sub(n);
    }

    /// Finds the first line. A second call before anything is taken gives the same, and looks at one byte.
    pub(super) fn find(&mut self, unread: &[u8]) -> Option<Found> {
        self.scanned = self.scanned.min(unread.len());
        let end = match &self.end {
            End::Newline => find_byte(b'\n', &unread[self.scanned..]).map(|at| self.scanned + at + 1),
            End::CrLf => find_crlf(unread, self.scanned),
            End::Delimiter(delimiter) => {
                let (end, matched) = delimiter.find(unread, self.scanned, self.matched);
                self.matched = if end.is_some() { matched - 1 } else { matched };
                end
            }
        };
        // The last byte of a line end that was found is looked at again, if the caller asks again.
        self.scanned = end.map_or(unread.len(), |len| len - 1);
        end.map(|len| Found { text: self.text_len(&unread[..len]), len })
    }

    fn text_len(&self, line: &[u8]) -> usize {
        match &self.end {
            End::Newline => line.len() - 1 - usize::from(line.ends_with(b"\r\n")),
            End::CrLf => line.len() - 2,
            End::Delimiter(delimiter) => line.len().saturating_sub(delimiter.bytes.len()),
        }
    }

    /// Returns the number of bytes at the end of `unread` that may begin a line end. Call it after
    /// [`find`](Self::find).
    pub(super) fn begun(&self, unread: &[u8]) -> usize {
        match &self.end {
            End::Newline | End::CrLf => usize::from(unread.ends_with(b"\r")),
            End::Delimiter(_) => self.matched.min(unread.len()),
        }
    }

    /// Appends `text` and the line end. It is an error if a reader would find another line end first.
    pub(super) fn append(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let (end, begins): (&[u8], _) = match &self.end {
            End::Newline => (b"\n", has_line_end(text)),
            End::CrLf => (b"\r\n", has_line_end(text)),
            End::Delimiter(delimiter) => (&delimiter.bytes, false),
        };
        if begins {
            return Err(FrameError::Unencodable("the text contains a line end"));
        }
        let start = out.len();
        out.extend_from_slice(text);
        out.extend_from_slice(end);
        // `text` may end with the front of the delimiter, and match early together with it. So search the
        // whole.
        if let End::Delimiter(delimiter) = &self.end {
            if delimiter.find(&out[start..], 0, 0).0 != Some(out.len() - start) {
                out.truncate(start);
                return Err(FrameError::Unencodable("the text contains the delimiter, or begins it at its end"));
            }
        }
        Ok(())
    }
}

/// Returns the end of the first `\r\n` that ends after `from`.
fn find_crlf(unread: &[u8], mut from: usize) -> Option<usize> {
    loop {
        from += find_byte(b'\n', &unread[from..])? + 1;
        if unread[..from].ends_with(b"\r\n") {
            return Some(from);
        }
    }
}

/// True if the text contains a `\r` or a `\n`, also a single one. Some readers end a line there, and would
/// read a line that was never sent.
fn has_line_end(text: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', text).is_some()
}
