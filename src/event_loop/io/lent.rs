//! The connection of a handler, lent to a loop.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::connection::Wire;
use crate::net::{Addr, PeerCredentials};
use crate::sys::Lent;

/// A connection whose owner waits in a call.
#[derive(Debug)]
pub(crate) struct LentIo {
    wire: Lent<Wire>,
    /// What the owner had read before: it comes first.
    ahead: RefCell<io::Cursor<Vec<u8>>>,
}

impl LentIo {
    pub(crate) fn new(wire: Lent<Wire>, ahead: Vec<u8>) -> Self {
        Self { wire, ahead: RefCell::new(io::Cursor::new(ahead)) }
    }

    fn io<R>(&self, act: impl FnOnce(&Wire) -> io::Result<R>) -> io::Result<R> {
        self.wire.with(act).unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    pub(crate) fn with_fd<R>(&self, act: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.wire.with(|wire| act(wire.as_fd()))
    }

    pub(crate) fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.io(Wire::peer_credentials)
    }

    pub(crate) fn local_addr(&self) -> Option<Addr> {
        self.io(Wire::local_addr).ok()
    }

    pub(crate) fn has_ahead(&self) -> bool {
        let ahead = self.ahead.borrow();
        ahead.position() < ahead.get_ref().len() as u64
    }

    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.ahead.borrow_mut().read(buf)? {
            0 => self.io(|wire| wire.recv_direct(buf)),
            n => Ok(n),
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.io(|wire| wire.send_direct(bytes))
    }

    pub(crate) fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.io(|wire| wire.send_parts_direct(parts))
    }

    pub(crate) fn shut_write(&self) {
        self.wire.with(Wire::shut_write);
    }

    pub(crate) fn reset_at_close(&self) {
        self.wire.with(Wire::reset_at_close);
    }

    pub(crate) fn set_no_delay(&self, on: bool) -> io::Result<()> {
        self.io(|wire| wire.set_no_delay(on))
    }

    pub(crate) fn set_keep_alive(&self, time: Option<Duration>) -> io::Result<()> {
        self.io(|wire| wire.set_keep_alive(time))
    }

    pub(crate) fn hang_up(&self, shut: bool) -> Option<io::Error> {
        self.wire.with(|wire| wire.hang_up(shut)).unwrap_or_else(|| Some(io::ErrorKind::NotConnected.into()))
    }

    /// The protocol's part is done; what its owner must know to close it.
    pub(crate) fn give_back(&self, left_unread: bool, by_the_stop: bool) {
        self.wire.with(|wire| {
            if left_unread || self.has_ahead() {
                wire.leaves_unread();
            }
            if by_the_stop {
                wire.is_ended_by_the_stop();
            }
        });
    }
}
