//! The read buffer: made at the first read, grown for a long line, scanned once.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::io::Read as _;

use super::output::Output;
use super::wire::Wire;

/// Inside an [`io::Error`] of kind [`InvalidData`](io::ErrorKind::InvalidData): a line is longer than the server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineTooLong {
    /// The most bytes a line may have, its end not counted.
    pub limit: usize,
}

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of more than {} bytes", self.limit)
    }
}

impl std::error::Error for LineTooLong {}

impl From<LineTooLong> for io::Error {
    fn from(e: LineTooLong) -> Self {
        Self::new(io::ErrorKind::InvalidData, e)
    }
}

/// What has been read and not yet consumed: `buf[start..end]`, of which `scanned` bytes hold no line end.
#[derive(Debug)]
pub(super) struct Input {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    scanned: usize,
    size: usize,
    line_limit: usize,
}

impl Input {
    pub(super) fn new(size: usize, line_limit: usize) -> Self {
        Self { buf: Vec::new(), start: 0, end: 0, scanned: 0, size, line_limit }
    }

    fn data(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.end);
        self.scanned = self.scanned.saturating_sub(n);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buf.len() > self.size {
                self.buf = Vec::new();
            }
        }
    }

    /// What is buffered; if that is nothing, what the next read brings. Empty at the end of the stream.
    pub(super) fn fill(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.read_more(wire, output)?;
        }
        Ok(self.data())
    }

    pub(super) fn read(&mut self, wire: &Wire, output: &RefCell<Output>, buf: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end && buf.len() >= self.size {
            return wire.recv(output, buf, true);
        }
        let n = self.fill(wire, output)?.read(buf)?;
        self.consume(n);
        Ok(n)
    }

    /// One read into the free part of the buffer, which is made, moved or grown for it.
    fn read_more(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<usize> {
        if self.end == self.buf.len() {
            if self.start > 0 {
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.buf.is_empty() {
                self.buf = vec![0; self.size];
            } else {
                self.buf.resize(self.buf.len() * 2, 0);
            }
        }
        let empty = self.start == self.end;
        let n = wire.recv(output, &mut self.buf[self.end..], empty)?;
        self.end += n;
        Ok(n)
    }

    /// The length of the next line, its end included; of what is left, if the stream ends before; 0 at its end.
    pub(super) fn line(&mut self, wire: &Wire, output: &RefCell<Output>) -> io::Result<usize> {
        loop {
            let data = self.data();
            if let Some(at) = memchr::memchr(b'\n', &data[self.scanned..]) {
                let len = self.scanned + at + 1;
                return if strip_end(&data[..len]).len() > self.line_limit { self.too_long() } else { Ok(len) };
            }
            let (len, may_end) = (data.len(), data.ends_with(b"\r"));
            self.scanned = len;
            if len > self.line_limit + usize::from(may_end) {
                return self.too_long();
            }
            if self.read_more(wire, output)? == 0 {
                return Ok(self.end - self.start);
            }
        }
    }

    fn too_long(&self) -> io::Result<usize> {
        Err(LineTooLong { limit: self.line_limit }.into())
    }

    /// Consumes `n` buffered bytes as text.
    pub(super) fn take_text(&mut self, n: usize) -> io::Result<String> {
        let text = String::from_utf8(self.data()[..n].to_vec());
        self.consume(n);
        text.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.utf8_error()))
    }

    pub(super) fn starts_with_line(&self, n: usize) -> bool {
        self.data()[..n].ends_with(b"\n")
    }

    /// Room to read into what nobody will look at.
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        if self.buf.is_empty() {
            self.buf = vec![0; self.size];
        }
        (self.start, self.end, self.scanned) = (0, 0, 0);
        &mut self.buf
    }
}

/// A line without its `\n` or `\r\n`.
pub(super) fn strip_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
