//! A connection under TLS: its session, and the stream below it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use crate::event_loop::io::Io;
use crate::net::Socket;
use crate::tls::{Ciphertext, Session};

/// A session above a stream. It answers as the stream does.
#[derive(Debug)]
pub(crate) struct Secured {
    session: Session,
    below: Io,
    /// Output from before the handshake, such as the answer to STARTTLS. It goes first, as it is.
    plain: RefCell<Vec<u8>>,
    /// When the handshake began, and how long it may take.
    began: Instant,
    within: Duration,
}

impl Secured {
    /// Puts a session above a stream, after output that is still to be sent as it is.
    pub(crate) fn new(below: Io, session: Session, plain: Vec<u8>, began: Instant, within: Duration) -> Self {
        Self { session, below, plain: RefCell::new(plain), began, within }
    }

    pub(crate) fn below(&self) -> &Io {
        &self.below
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn into_socket(self) -> Option<(Socket, Option<Session>)> {
        let (socket, _) = self.below.into_socket()?;
        Some((socket, Some(self.session)))
    }

    /// Returns when the handshake began and how long it may take. `None` after it.
    pub(crate) fn handshake_limit(&self) -> Option<(Instant, Duration)> {
        self.session.is_handshaking().then_some((self.began, self.within))
    }

    pub(crate) fn handshake(&self) -> io::Result<()> {
        self.session.handshake(self)
    }

    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.session.recv(self, buf, false)
    }

    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.session.send(self, parts, false)
    }

    /// True if the kernel is to take something that is in no queue of the loop.
    pub(crate) fn wants_write(&self) -> bool {
        !self.plain.borrow().is_empty() || self.session.wants_write()
    }

    /// Sends what is in no queue of the loop. `WouldBlock` while the kernel does not take all of it.
    pub(crate) fn push(&self) -> io::Result<()> {
        self.send_plain()?;
        self.session.push(self, false)
    }

    fn send_plain(&self) -> io::Result<()> {
        let mut plain = self.plain.borrow_mut();
        while !plain.is_empty() {
            let n = self.below.send(&plain)?;
            plain.drain(..n);
        }
        Ok(())
    }
}

impl Ciphertext for Secured {
    fn recv(&self, buf: &mut [u8], _wait: bool) -> io::Result<usize> {
        self.below.recv(buf)
    }

    fn send(&self, parts: &[IoSlice<'_>], _wait: bool) -> io::Result<usize> {
        self.send_plain()?;
        self.below.send_parts(parts)
    }
}
