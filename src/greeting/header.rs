//! [`HeaderStep`]: reads the header of a proxy from a socket, and no byte beyond it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{GreetingError, Progress, Step};
use crate::net::Socket;
use crate::observe::GreetingFailure;
use crate::proxy::{ProxyError, ProxyHeader, LONGEST};
use crate::sys::socket;

/// The most bytes that a look takes. Most headers are shorter.
const LOOK: usize = 512;

/// Reads a header. Each look leaves the bytes in the kernel (`MSG_PEEK`); then exactly those of the header are
/// taken out. So the client's first byte stays there for the handler, and a wait for more bytes is a wait.
#[derive(Debug, Default)]
pub(crate) struct HeaderStep {
    /// What has been taken out so far: the beginning of a header.
    head: Vec<u8>,
    header: Option<ProxyHeader>,
}

impl HeaderStep {
    /// Returns the header, once the step is done.
    pub(crate) fn take(&mut self) -> Option<ProxyHeader> {
        self.header.take()
    }

    /// Looks at what has come. Returns the number of bytes that belong to the header.
    fn look(&mut self, socket: &Socket, buffer: &mut [u8; LOOK]) -> Result<Option<usize>, GreetingError> {
        let before = self.head.len();
        // A header that is not whole has less than the most, so there is always room for a byte.
        let most = LOOK.min(LONGEST - before);
        let n = match socket::peek(socket.as_fd(), &mut buffer[..most]) {
            Ok(0) => return Err(GreetingError::of_socket(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Ok(None),
            Err(e) => return Err(GreetingError::of_socket(e)),
        };
        self.head.extend_from_slice(&buffer[..n]);
        match ProxyHeader::parse(&self.head).map_err(malformed)? {
            Some((header, length)) => {
                self.header = Some(header);
                self.head.truncate(length);
                Ok(Some(length - before))
            }
            None => Ok(Some(n)),
        }
    }
}

impl Step for HeaderStep {
    fn advance(&mut self, socket: &Socket) -> Result<Progress, GreetingError> {
        let mut buffer = [0; LOOK];
        while self.header.is_none() {
            let Some(n) = self.look(socket, &mut buffer)? else { return Ok(Progress::WantsRead) };
            take_out(socket, &mut buffer[..n])?;
        }
        Ok(Progress::Done)
    }
}

/// Takes bytes out of the kernel that a look has shown.
fn take_out(socket: &Socket, mut bytes: &mut [u8]) -> Result<(), GreetingError> {
    while !bytes.is_empty() {
        match socket::recv(socket.as_fd().as_raw_fd(), bytes, false) {
            Ok(0) => return Err(GreetingError::of_socket(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => bytes = &mut bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(GreetingError::of_socket(e)),
        }
    }
    Ok(())
}

fn malformed(why: ProxyError) -> GreetingError {
    GreetingError::new(GreetingFailure::Header, io::Error::new(io::ErrorKind::InvalidData, why))
}
