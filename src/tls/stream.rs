//! [`Ciphertext`]: the stream below a session.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::socket;

/// The stream that carries the encrypted bytes: a socket, or a test's memory. `wait` is true if the call may wait, as
/// long as the socket's timeout says.
#[cfg_attr(not(feature = "__tls"), allow(dead_code))]
pub(crate) trait Ciphertext {
    fn recv(&self, buf: &mut [u8], wait: bool) -> io::Result<usize>;

    fn send(&self, parts: &[IoSlice<'_>], wait: bool) -> io::Result<usize>;
}

impl Ciphertext for BorrowedFd<'_> {
    fn recv(&self, buf: &mut [u8], wait: bool) -> io::Result<usize> {
        socket::recv(self.as_raw_fd(), buf, wait)
    }

    fn send(&self, parts: &[IoSlice<'_>], wait: bool) -> io::Result<usize> {
        socket::send_parts(self.as_raw_fd(), parts, wait)
    }
}
