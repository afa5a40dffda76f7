//! A connection hands its socket to an event loop, which gives it back for the close.
//!
//! The socket moves, so no reference has to outlive anything. Its session of TLS moves along.

use std::cell::OnceCell;
use std::sync::Arc;

use super::{Connection, Ending};
use crate::config::Limits;
use crate::connection::wire::ParentDeadline;
use crate::net::{Moved, Socket};
use crate::proxy::ProxyHeader;
use crate::tls::Session;

/// What a loop is given.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Session>,
    /// Input that was read and not consumed. The loop serves it first.
    pub(crate) unread: Vec<u8>,
    pub(crate) limits: Limits,
    pub(crate) proxy: Option<Arc<ProxyHeader>>,
    pub(crate) id: u64,
    pub(crate) moved: Moved,
    /// In a forked child: the loop writes for the parent when a request must have ended.
    pub(crate) parent_deadline: Option<ParentDeadline>,
}

/// What a loop gives back.
#[derive(Debug)]
pub(crate) struct GivenBack {
    pub(crate) socket: Socket,
    pub(crate) tls: Option<Session>,
    pub(crate) parent_deadline: Option<ParentDeadline>,
    pub(crate) happened: Happened,
}

/// What has happened to a connection in the loop, as far as its close must know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Happened {
    /// True if anything has been read.
    pub(crate) heard: bool,
    /// True if the peer has ended the stream.
    pub(crate) ended: bool,
    /// True if sending has failed.
    pub(crate) broken: bool,
    /// True if reading has failed.
    pub(crate) failed: bool,
    /// True if the stop has ended the connection: later input is not read any more.
    pub(crate) stopped: bool,
    pub(crate) ending: Ending,
    pub(crate) moved: Moved,
}

impl Connection {
    /// Hands the socket over. `None` if it is away already. Output must have been flushed before.
    pub(crate) fn hand_over(&mut self) -> Option<HandedOver> {
        let socket = self.wire.socket.take()?;
        let unread = self.input.take_unread();
        let (limits, parent_deadline) = (self.wire.limits(), self.wire.parent_deadline.take());
        let (proxy, tls) = (self.wire.proxy.clone(), self.wire.tls.take());
        let (id, moved) = (self.id(), self.moved());
        Some(HandedOver { socket, tls, unread, limits, proxy, id, moved, parent_deadline })
    }

    /// Takes the socket back.
    pub(crate) fn take_back(&mut self, given: GivenBack) {
        let GivenBack { socket, tls, parent_deadline, happened } = given;
        self.wire.socket = Some(socket);
        self.wire.tls = tls.map_or_else(OnceCell::new, OnceCell::from);
        if let Some(deadline) = parent_deadline {
            let _ = self.wire.parent_deadline.set(deadline);
        }
        self.wire.set_moved(happened.moved);
        self.wire.note(|p| {
            p.heard |= happened.heard;
            p.ended |= happened.ended;
            p.broken |= happened.broken;
            p.failed |= happened.failed;
            p.stopped |= happened.stopped;
            p.ending = happened.ending;
        });
    }

    /// Leaves the registry if the socket does not come back, before the loop closes it. Else the registry
    /// would shut the next socket that gets its number.
    pub(crate) fn leave_if_away(&self) {
        if self.wire.socket.is_none() {
            self.wire.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read, Write};

    use super::*;

    fn nothing_happened() -> Happened {
        let ending = Ending::Usual;
        let moved = Moved::default();
        Happened { heard: false, ended: false, broken: false, failed: false, stopped: false, ending, moved }
    }

    #[test]
    fn a_socket_comes_back_as_it_went() {
        let (mut conn, mut client) = Connection::pair().unwrap();
        client.write_all(b"line\nread ahead").unwrap();
        let mut line = String::new();
        BufRead::read_line(&mut conn, &mut line).unwrap();
        let HandedOver { socket, unread, parent_deadline, .. } = conn.hand_over().unwrap();
        assert_eq!((line.as_str(), unread.as_slice()), ("line\n", &b"read ahead"[..]));
        assert!(conn.hand_over().is_none() && conn.local_addr().is_err(), "nobody has it but the loop");
        conn.take_back(GivenBack { socket, tls: None, parent_deadline, happened: nothing_happened() });
        conn.leave_if_away();
        assert!(conn.wire.is_registered() && !conn.wire.has_lost_peer());
        conn.write_all(b"hello").unwrap();
        drop(conn);
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
    }

    #[test]
    fn a_socket_that_does_not_come_back_leaves_the_registry() {
        let (mut conn, _client) = Connection::pair().unwrap();
        let handed = conn.hand_over().unwrap();
        conn.leave_if_away();
        assert!(!conn.wire.is_registered());
        drop(handed);
        assert!(conn.write_all(b"hello").and_then(|()| conn.flush()).is_err());
    }

    #[test]
    fn what_has_happened_is_known_at_the_close() {
        let (mut conn, _client) = Connection::pair().unwrap();
        let HandedOver { socket, parent_deadline, .. } = conn.hand_over().unwrap();
        let happened = Happened { ended: true, broken: true, ending: Ending::Reset, ..nothing_happened() };
        conn.take_back(GivenBack { socket, tls: None, parent_deadline, happened });
        let wire = conn.wire();
        assert!(wire.has_ended() && wire.is_broken() && !wire.is_stopped() && wire.ending() == Ending::Reset);
    }
}
