//! What a connection knows of itself, for logs: its number, its age, and how much it has moved.

use std::time::Instant;

use super::Connection;
use crate::net::Moved;
use crate::observe::Account;
#[cfg(doc)]
use crate::observe::Observer;

impl Connection {
    /// Returns the number of the connection, from 1. No other connection of the server has it, and the
    /// [`Observer`] is told the same number. So lines of the handler and of an access log find each other. With
    /// [`PreForking`](crate::PreForking) the numbers of one worker are not consecutive. 0 without a server
    /// ([`pair`](Self::pair)).
    pub fn id(&self) -> u64 {
        self.wire.birth.id
    }

    /// Returns when the connection was accepted. `None` in a server without an [`Observer`], which does not ask for the
    /// time: [`observer(())`](crate::ServerBuilder::observer) is the least that makes it do so.
    pub fn started(&self) -> Option<Instant> {
        self.wire.birth.record.as_ref().map(|record| record.at)
    }

    /// Returns how many bytes were read from the peer so far, those in the read buffer included. Under TLS: the bytes
    /// that it protects.
    pub fn bytes_read(&self) -> u64 {
        self.wire.moved.get().read
    }

    /// Returns how many bytes the kernel has taken for the peer so far. What is still in the write buffer is not among
    /// them. Under TLS: the bytes that it protects.
    pub fn bytes_written(&self) -> u64 {
        self.wire.moved.get().written
    }

    pub(super) fn moved(&self) -> Moved {
        self.wire.moved.get()
    }

    /// Takes what observers are told at the end.
    pub(crate) fn take_account(&mut self) -> Account {
        let wire = &mut self.wire;
        Account {
            birth: std::mem::take(&mut wire.birth),
            moved: wire.moved.get(),
            was_handled: true,
            proxy: wire.proxy.take(),
            tls: wire.tls.get().map(|tls| tls.info()),
        }
    }
}
