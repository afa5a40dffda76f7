//! [`Connection`] as the standard library's streams.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::Connection;

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.halves().0.read(buf)
    }

    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        self.halves().0.read_to_string(text)
    }
}

impl BufRead for Connection {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill(&self.wire, &self.output)
    }

    fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    /// As the standard library's, without a bound. If `into` is empty, the wait for the first byte counts as the
    /// wait for a line: it is idle.
    fn read_until(&mut self, delimiter: u8, into: &mut Vec<u8>) -> io::Result<usize> {
        self.halves().0.read_until(delimiter, into)
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        self.halves().0.read_line(line)
    }
}

impl Write for Connection {
    /// Always takes all of `data`.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.get_mut().write(&self.wire, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush(self.output.get_mut())
    }
}

impl AsFd for Connection {
    /// Returns the socket, for options. A read from it misses the bytes in the buffer.
    ///
    /// A duplicate may outlive the handler. The connection counts as ended, and its permit is free, when the
    /// handler has returned. The peer reads the end of the stream only when the duplicate is closed too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}
