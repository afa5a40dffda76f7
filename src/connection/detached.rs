//! A connection that leaves its handler: for an event loop, or for other code.
//!
//! It stays its server's: in the counts, under the limit, in the drain. [`Home`] is what ties it to the server.

use std::fmt;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Connection, HandedOver};
use crate::admit::Permit;
use crate::config::Limits;
use crate::lifecycle::{ConnectionSlot, Core, StopCall};
use crate::net::{Addr, Birth, Moved, Socket};
use crate::observe::{Account, Outcome};
use crate::proxy::ProxyHeader;
use crate::sys;
use crate::tls::Session;

/// A connection without its handler: the socket, what was read ahead, and the session of TLS if there is one. It comes
/// from [`Connection::detach`], or from a socket that the program has.
///
/// An event loop goes on with it by [`Context::adopt`](crate::Context::adopt). It may go to another thread. If it is
/// dropped, the connection closes at once, and counts as served.
pub struct Detached {
    // In this order, so that a drop leaves the registry, closes the socket, then counts the end.
    registered: Option<Registered>,
    socket: Socket,
    /// Locked never, so that a value can be shared, and an error that has it inside can be one of a handler.
    tls: Mutex<Option<Session>>,
    unread: Vec<u8>,
    limits: Limits,
    proxy: Option<Arc<ProxyHeader>>,
    moved: Moved,
    peer: Addr,
    birth: Birth,
    home: Option<Box<Home>>,
}

/// The entry in the registry, by which a drain cuts the connection. It is left before the socket is closed.
pub(crate) struct Registered(Arc<Core>, Option<Arc<ConnectionSlot>>);

impl Drop for Registered {
    fn drop(&mut self) {
        self.1.take().into_iter().for_each(|slot| self.0.registry.leave(slot));
    }
}

/// What ties a connection to the server that has accepted it.
pub(crate) struct Home {
    pub(crate) core: Arc<Core>,
    /// `None` before a loop has the connection, and when the socket is about to be closed.
    registered: Option<Registered>,
    berth: Arc<Berth>,
    peer: Addr,
    is_counted: bool,
    /// Called when the server stops.
    at_stop: Option<Arc<StopCall>>,
    /// True if the server has been heard to stop.
    pub(crate) is_stopping: bool,
}

/// Where the permit of a detached connection waits for the connection's end. The handler may return before that, or after.
#[derive(Debug, Default)]
pub(crate) struct Berth(Mutex<Mooring>);

#[derive(Debug, Default)]
enum Mooring {
    #[default]
    Free,
    Taken {
        /// Given back when the connection ends.
        _permit: Permit,
    },
    Closed,
}

impl Berth {
    /// Keeps the permit until the connection has ended. If it has, the permit comes back now.
    pub(crate) fn keep(&self, permit: Permit) {
        let mut mooring = self.0.lock();
        if matches!(*mooring, Mooring::Free) {
            *mooring = Mooring::Taken { _permit: permit };
        }
    }

    fn close(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), Mooring::Closed);
        drop(before); // not under the lock: it wakes threads
    }
}

impl Home {
    /// Leaves the registry. Call it before the socket is closed.
    pub(crate) fn leave(&mut self) {
        self.registered = None;
    }

    /// Calls this when the server stops, on any thread. True if it has been stopped already.
    pub(crate) fn at_stop(&mut self, call: impl Fn() + Send + Sync + 'static) -> bool {
        let call: Arc<StopCall> = Arc::new(call);
        self.core.stop_calls.add(&call);
        self.at_stop = Some(call);
        // First the entry, then the look: so the stop finds the entry, or this thread the stop.
        self.core.control.stopping()
    }

    /// Counts and reports the end of the connection, whose socket is closed.
    pub(crate) fn report_end(&mut self, lost: bool, outcome: &Outcome, account: Option<Account>) {
        self.is_counted = true;
        let (monitor, phase) = (&self.core.monitor, self.core.stop_phase());
        monitor.report_end(&self.peer, lost, outcome, phase);
        account.into_iter().for_each(|account| monitor.tell_end(account, &self.peer, lost, outcome));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.leave();
        if !self.is_counted {
            self.report_end(false, &Outcome::Served, None);
        }
        // Last: when nothing is in progress, everything is counted.
        self.berth.close();
    }
}

impl Connection {
    /// Takes the connection out of its handler. When the handler has returned, an event loop goes on with it, as
    /// after an HTTP upgrade ([`Context::adopt`](crate::Context::adopt)), or other code of the program. What is
    /// buffered is sent first. What was read ahead goes along, and under TLS the session.
    ///
    /// The connection still belongs to the server. Until it ends, it is active and takes a permit; then it is
    /// counted. It hears of a stop of the server, and the drain limit cuts it. The server's time limits go along, as
    /// the handler has set them. The result of the handler is not counted any more; an error is logged.
    ///
    /// Afterwards this value is an empty connection, and each call on it is an error. Handles for other threads
    /// ([`writer`](Self::writer), [`waker`](Self::waker)) have ended.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use socketserver::{handler, Connection, HandlerResult, Protocol, Reactor};
    /// use socketserver::{ServerBuilder, Threading, Transport};
    ///
    /// struct Echo;
    /// impl Protocol for Echo {
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
    ///         Ok(transport.write(data)?)
    ///     }
    /// }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let events = reactor.handle();
    /// let looping = events.clone();
    /// let upgrade = handler(move |conn: &mut Connection| {
    ///     if conn.next_line()?.as_deref() == Some("UPGRADE") {
    ///         conn.send_line("OK")?;
    ///         let detached = conn.detach()?;
    ///         looping.call_from_thread(|cx| _ = cx.adopt(detached, Echo))?;
    ///     }
    ///     Ok(())
    /// });
    /// let mut server = ServerBuilder::new()
    ///     .strategy(Threading::new())
    ///     .bind_tcp("127.0.0.1:0", upgrade)?;
    /// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    /// let client = std::thread::spawn(move || {
    ///     let mut client = std::net::TcpStream::connect(addr).unwrap();
    ///     client.write_all(b"UPGRADE\nread ahead").unwrap();
    ///     let mut answer = [0; 13];
    ///     client.read_exact(&mut answer).unwrap();
    ///     assert_eq!(&answer, b"OK\nread ahead");
    ///     handle.shutdown();
    ///     assert_eq!(client.read(&mut answer).unwrap(), 0);
    ///     events.stop().unwrap();
    /// });
    /// let serving = std::thread::spawn(move || server.serve_forever());
    /// reactor.run()?;
    /// client.join().unwrap();
    /// assert_eq!(serving.join().unwrap()?.served, 1);
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of a flush: then nothing has changed. [`NotConnected`](io::ErrorKind::NotConnected) at a second call.
    /// [`Unsupported`](io::ErrorKind::Unsupported) in a child of [`Forking`](crate::Forking), which ends with its handler.
    pub fn detach(&mut self) -> io::Result<Detached> {
        if self.wire.parent_deadline.get().is_some() {
            let why = "a connection cannot outlive the process of its handler";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        if self.is_detached() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the connection was detached before"));
        }
        self.flush()?;
        self.wire.close_writers();
        self.flush()?; // a writer's last message may have come in between
        let Some(handed) = self.hand_over() else { return Err(io::ErrorKind::NotConnected.into()) };
        let (core, peer) = (self.server().core.clone(), self.wire.peer().clone());
        // A connection that watched the stop itself had no entry.
        let HandedOver { socket, tls, unread, limits, proxy, moved, .. } = handed;
        let fd = socket.as_fd().as_raw_fd();
        let slot = self.wire.take_slot().unwrap_or_else(|| core.registry.enter(fd));
        if core.control.is_cut() {
            let _ = sys::socket::shut_both(fd); // the cut may have come before the entry
        }
        let berth = self.wire.make_berth().clone();
        let home = Home {
            core: core.clone(),
            registered: None,
            berth,
            peer: peer.clone(),
            is_counted: false,
            at_stop: None,
            is_stopping: false,
        };
        let (registered, tls) = (Some(Registered(core, Some(slot))), Mutex::new(tls));
        let (birth, home) = (self.wire.take_birth(), Some(Box::new(home)));
        Ok(Detached { registered, socket, tls, unread, limits, proxy, moved, peer, birth, home })
    }

    /// Returns the place for the permit, if the connection was detached.
    pub(crate) fn berth(&self) -> Option<&Arc<Berth>> {
        self.wire.berth()
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.berth().is_some()
    }
}

impl Detached {
    /// Returns the peer's address, as [`Connection::peer_addr`] does. [`Addr::Unnamed`] for a socket of the program's.
    pub fn peer_addr(&self) -> &Addr {
        &self.peer
    }

    /// Returns the input that was read ahead. A loop that adopts the connection delivers it first.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Adds input that the program has read ahead, behind what is there.
    #[must_use]
    pub fn with_unread(mut self, input: &[u8]) -> Self {
        self.unread.extend_from_slice(input);
        self
    }

    /// Returns the socket, which is blocking and without a time limit, and the input that was read ahead. For the server the connection ends here,
    /// and counts as served.
    ///
    /// # Errors
    /// The value itself, under TLS: without its session nobody can go on.
    // As `mpsc::Sender::send` returns what it could not send.
    #[allow(clippy::result_large_err)]
    pub fn into_socket(mut self) -> Result<(OwnedFd, Vec<u8>), Self> {
        if self.tls.get_mut().is_some() {
            return Err(self);
        }
        // The handler's limits were armed there.
        let _ = sys::socket::set_read_timeout(self.as_fd(), None);
        let _ = sys::socket::set_write_timeout(self.as_fd(), None);
        Ok((self.socket.into(), self.unread))
    }

    /// Takes it apart, for a loop.
    pub(crate) fn into_parts(self) -> (HandedOver, Addr, Birth, Option<Box<Home>>) {
        let Self { registered, socket, tls, unread, limits, proxy, moved, peer, birth, mut home } = self;
        if let Some(home) = &mut home {
            home.registered = registered;
        }
        let (tls, id) = (tls.into_inner(), birth.id);
        let handed = HandedOver { socket, tls, unread, limits, proxy, id, moved, parent_deadline: None };
        (handed, peer, birth, home)
    }

    fn of(socket: Socket, peer: Addr) -> Self {
        Self {
            registered: None,
            socket,
            tls: Mutex::new(None),
            unread: Vec::new(),
            limits: Limits::default(),
            proxy: None,
            moved: Moved::default(),
            peer,
            birth: Birth::default(),
            home: None,
        }
    }
}

impl AsFd for Detached {
    /// Returns the socket, for options.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A socket of the program's own. No server counts it, and no limits hold but the loop's.
impl From<TcpStream> for Detached {
    fn from(socket: TcpStream) -> Self {
        let peer = socket.peer_addr().map_or(Addr::Unnamed, Addr::Ip);
        Self::of(Socket::Tcp(socket), peer)
    }
}

/// As for a [`TcpStream`].
impl From<UnixStream> for Detached {
    fn from(socket: UnixStream) -> Self {
        Self::of(Socket::Unix(socket), Addr::Unnamed)
    }
}
