//! The two directions of a connection, lent as two values.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};

use super::input::Input;
use super::output::Output;
use super::wire::Wire;
use crate::error::text_of_peer;
use crate::framing::Decoder;

/// The reading half of a [`Connection`](crate::Connection): Python's `rfile`.
#[derive(Debug)]
pub struct ReadHalf<'a> {
    input: &'a mut Input,
    output: &'a RefCell<Output>,
    wire: &'a Wire,
}

impl<'a> ReadHalf<'a> {
    pub(super) fn new(input: &'a mut Input, output: &'a RefCell<Output>, wire: &'a Wire) -> Self {
        Self { input, output, wire }
    }

    /// As [`Connection::read_line`](crate::Connection::read_line).
    ///
    /// # Errors
    /// The same.
    pub fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let next = self.input.line(self.wire, self.output)?;
        line.push_str(&self.input.take_line(&next)?);
        Ok(next.len)
    }

    /// As [`Connection::next_line`](crate::Connection::next_line).
    ///
    /// # Errors
    /// The same.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        let next = self.input.line(self.wire, self.output)?;
        if next.len == 0 {
            return Ok(None);
        }
        if !next.whole {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended within a line"));
        }
        self.input.take_line_text(&next).map(Some)
    }

    /// As [`Connection::read_frame`](crate::Connection::read_frame).
    ///
    /// # Errors
    /// The same.
    pub fn read_frame<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.input.frame(self.wire, self.output, decoder)
    }

    /// As [`Connection::try_next_line`](crate::Connection::try_next_line).
    ///
    /// # Errors
    /// The same.
    pub fn try_next_line(&mut self) -> io::Result<Option<String>> {
        self.input.try_line(self.wire)
    }

    /// As [`Connection::try_read_frame`](crate::Connection::try_read_frame).
    ///
    /// # Errors
    /// The same.
    pub fn try_read_frame<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.input.try_frame(self.wire, decoder)
    }
}

impl Read for ReadHalf<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(self.wire, self.output, buf)
    }

    // Overridden for its error: text that is not UTF-8 is the peer's fault.
    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let n = self.read_to_end(&mut bytes)?;
        text.push_str(&text_of_peer(bytes)?);
        Ok(n)
    }
}

impl BufRead for ReadHalf<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill(self.wire, self.output)
    }

    fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    fn read_until(&mut self, delimiter: u8, into: &mut Vec<u8>) -> io::Result<usize> {
        self.input.read_until(self.wire, self.output, delimiter, into)
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        ReadHalf::read_line(self, line)
    }
}

/// The writing half of a [`Connection`](crate::Connection): Python's `wfile`.
#[derive(Debug)]
pub struct WriteHalf<'a> {
    output: &'a RefCell<Output>,
    wire: &'a Wire,
}

impl<'a> WriteHalf<'a> {
    pub(super) fn new(output: &'a RefCell<Output>, wire: &'a Wire) -> Self {
        Self { output, wire }
    }
}

impl Write for WriteHalf<'_> {
    /// Always takes all of `data`.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.borrow_mut().write(self.wire, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush(&mut self.output.borrow_mut())
    }
}
