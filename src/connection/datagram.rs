//! Stage 4 for datagrams: [`Datagram`], from which a handler reads, and to which it writes its reply.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::config::{Limit, LimitExceeded, FIRST_LOOK, LAST_LOOK};
use crate::error::{text_of_peer, PeerFault};
use crate::lifecycle::ServerHandle;
use crate::net::{gone, no_reply_to, Addr, Moved, Packet, Unsent, LONGEST_V4};
use crate::observe::Account;
use crate::sys;

/// A datagram, as its handler sees it. Read from it what the peer has sent, and write the reply to it.
///
/// The reply is collected, and sent as one datagram after the handler has returned `Ok`. Nothing is sent after an
/// error, or if nothing was written. The reply leaves from the address that the datagram was sent to. For an empty
/// reply, or several, call [`send_to`](Self::send_to). Reading ([`Read`], [`BufRead`]) never waits: the whole
/// datagram is there.
///
/// ```
/// use std::io::{BufRead, Write};
/// use socketserver::{datagram_handler, Sequential, UdpServer};
///
/// let greet = datagram_handler(|datagram| {
///     let mut name = String::new();
///     datagram.read_line(&mut name)?;
///     Ok(write!(datagram, "hello {}", name.trim_end())?)
/// });
/// let mut server = UdpServer::with_strategy("127.0.0.1:0", greet, Sequential)?;
/// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// client.connect(server.local_addr().socket_addr().unwrap())?;
/// client.send(b"Ada\n")?;
/// assert!(server.handle_request(None)?);
/// let mut reply = [0; 100];
/// let n = client.recv(&mut reply)?;
/// assert_eq!(&reply[..n], b"hello Ada");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Datagram {
    packet: Packet,
    /// The number of bytes that were read.
    read: usize,
    reply: Vec<u8>,
    /// The length of a reply that is too long. It is not sent then.
    too_long: Option<usize>,
    /// True if a send has found no peer.
    lost: bool,
    /// The bytes of what was sent.
    written: u64,
    since: Instant,
    server: ServerHandle,
}

impl Datagram {
    pub(crate) fn new(packet: Packet, server: ServerHandle) -> Self {
        let since = Instant::now();
        Self { packet, read: 0, reply: Vec::new(), too_long: None, lost: false, written: 0, since, server }
    }

    /// Returns the whole datagram, also the part that was read already. Empty if the peer has sent an empty
    /// one.
    pub fn data(&self) -> &[u8] {
        &self.packet.data
    }

    /// True if the peer has sent more than [`max_packet_size`](crate::ServerBuilder::max_packet_size) bytes.
    /// The rest is lost.
    pub fn is_truncated(&self) -> bool {
        self.packet.len > self.packet.data.len()
    }

    /// Returns the number of bytes that the peer has sent.
    pub fn original_len(&self) -> usize {
        self.packet.len
    }

    /// Returns the address of the sender. A UDP sender can claim any address, so think of what a small
    /// request may make the server send to a third party. [`Addr::Unnamed`] for a Unix socket that is bound
    /// to no name: no reply can reach it.
    pub fn peer_addr(&self) -> Addr {
        self.packet.peer.clone()
    }

    /// Returns the address that the datagram was sent to. On a server that is bound to all addresses, it is
    /// one of the machine's addresses, or the group or broadcast address.
    pub fn local_addr(&self) -> Addr {
        self.packet.local.clone()
    }

    /// Returns the server's handle. `datagram.server().shutdown()` stops the server from inside a handler.
    pub fn server(&self) -> &ServerHandle {
        &self.server
    }

    /// Sends a separate datagram at once, from the server's socket, to the peer or to any other address. It
    /// waits while the queue of the receiving Unix socket is full.
    /// [`write_timeout`](crate::ServerBuilder::write_timeout),
    /// [`request_timeout`](crate::ServerBuilder::request_timeout) and the end of a drain bound the wait.
    ///
    /// # Errors
    /// - [`DatagramTooLong`] inside an [`io::ErrorKind::InvalidInput`] for more bytes than a datagram can
    ///   have;
    /// - [`io::ErrorKind::TimedOut`] at a limit ([`Limit::of`] returns it);
    /// - [`io::ErrorKind::NotConnected`] if no socket has this address, for [`Addr::Unnamed`], and after the
    ///   server was dropped;
    /// - the errors of sendmsg(2).
    pub fn send_to(&mut self, to: &Addr, bytes: &[u8]) -> io::Result<()> {
        self.send(to, bytes)
    }

    /// Sends the reply, if anything was written.
    pub(crate) fn send_reply(&mut self) -> io::Result<()> {
        if let Some(size) = self.too_long {
            return Err(self.too_long_by(size, &self.packet.peer));
        }
        if self.reply.is_empty() {
            return Ok(());
        }
        let (reply, peer) = (std::mem::take(&mut self.reply), self.packet.peer.clone());
        self.send(&peer, &reply)
    }

    /// Takes what observers are told at the end.
    pub(crate) fn take_account(&mut self) -> Account {
        let moved = Moved { read: self.packet.len as u64, written: self.written };
        Account { birth: std::mem::take(&mut self.packet.birth), moved, was_handled: true, ..Account::default() }
    }

    pub(crate) fn peer_ref(&self) -> &Addr {
        &self.packet.peer
    }

    pub(crate) fn has_lost_peer(&self) -> bool {
        self.lost
    }

    /// Sends one datagram, and waits if a queue is full.
    fn send(&mut self, to: &Addr, bytes: &[u8]) -> io::Result<()> {
        if *to == Addr::Unnamed {
            let why = "the peer has no address to reply to: its socket is bound to no name";
            // Nothing else has this address: it is a reply.
            return Err(io::Error::new(io::ErrorKind::NotConnected, PeerFault::new(why)));
        }
        let gone =
            || io::Error::new(io::ErrorKind::NotConnected, "the server has been dropped, and its socket is closed");
        let socket = self.packet.socket.upgrade().ok_or_else(gone)?;
        // The peer expects the reply from the address that it has asked. For other addresses the kernel
        // chooses.
        let from = self.packet.from.filter(|_| *to == self.packet.peer);
        let (began, mut pause) = (Instant::now(), FIRST_LOOK);
        loop {
            if self.server.core.control.is_cut() {
                return Err(self.drain_exceeded());
            }
            let waits = match socket.send(bytes, to, from) {
                Ok(()) => {
                    self.written += bytes.len() as u64;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => to.ip().map(|_| socket.as_fd()),
                Err(e) => return Err(self.explain(e, to, bytes.len())),
            };
            // The kernel reports room in another Unix socket's queue only to a socket that is connected to
            // it. The server's socket is not, so it tries again: after 1 ms at first, after 50 ms at last.
            self.wait(began, waits, if waits.is_some() { None } else { Some(pause) })?;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Waits for room, for at most `pause`, and at most until the first limit.
    fn wait(&self, began: Instant, write: Option<BorrowedFd<'_>>, pause: Option<Duration>) -> io::Result<()> {
        let (control, config) = (&self.server.core.control, &self.server.core.settings);
        let limit = |since: Instant, limit, after: Option<Duration>| {
            let after = after?;
            Some((since.checked_add(after)?, LimitExceeded { limit, after }))
        };
        let limits =
            [limit(began, Limit::Write, config.limits.write), limit(self.since, Limit::Request, config.limits.request)];
        let first = limits.into_iter().flatten().min_by_key(|(at, _)| *at);
        let drain = control.drain_deadline(config.drain_timeout);
        let now = Instant::now();
        if let Some((_, exceeded)) = first.filter(|(at, _)| *at <= now) {
            return Err(exceeded.into());
        }
        // The drain limit may pass here first: this thread may be the one that drains.
        if drain.is_some_and(|at| at <= now) {
            control.cut();
            return Err(self.drain_exceeded());
        }
        let until = first.map(|(at, _)| at).into_iter().chain(drain).min();
        let left = until.map(|at| at.saturating_duration_since(now));
        let stop = if drain.is_some() { control.urgent() } else { Some(control.stop_fd()) };
        sys::poll([stop], write, left.into_iter().chain(pause).min()).map(drop)
    }

    fn drain_exceeded(&self) -> io::Error {
        LimitExceeded { limit: Limit::Drain, after: self.server.core.settings.drain_timeout }.into()
    }

    /// Makes an error for people out of the error of a failed send.
    fn explain(&mut self, e: io::Error, to: &Addr, size: usize) -> io::Error {
        match Unsent::of(&e, to) {
            Unsent::TooLong => self.too_long_by(size, to),
            Unsent::Gone => {
                self.lost = true;
                gone(to)
            }
            Unsent::NoReply if *to == self.packet.peer => no_reply_to(to, &e),
            Unsent::NoReply | Unsent::Other => {
                self.lost = true;
                e
            }
        }
    }

    fn too_long_by(&self, size: usize, to: &Addr) -> io::Error {
        DatagramTooLong::new(size, self.longest_to(to)).into()
    }

    fn longest_to(&self, to: &Addr) -> usize {
        self.packet.socket.upgrade().map_or(LONGEST_V4, |socket| socket.longest_to(to))
    }
}

impl Read for Datagram {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut rest = self.packet.data.get(self.read..).unwrap_or_default();
        let n = rest.read(buf)?;
        self.read += n;
        Ok(n)
    }

    // Overridden for its error: text that is not UTF-8 is the peer's fault.
    fn read_to_string(&mut self, text: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let n = self.read_to_end(&mut bytes)?;
        text.push_str(&text_of_peer(bytes)?);
        Ok(n)
    }
}

impl BufRead for Datagram {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.packet.data.get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, n: usize) {
        self.read = (self.read + n).min(self.packet.data.len());
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let n = self.read_until(b'\n', &mut bytes)?;
        line.push_str(&text_of_peer(bytes)?);
        Ok(n)
    }
}

/// # Errors
/// [`DatagramTooLong`] inside an [`io::ErrorKind::InvalidInput`], as soon as the reply is longer than a
/// datagram to this peer can be. Nothing is sent then, and the request has failed.
impl Write for Datagram {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = self.too_long.unwrap_or(self.reply.len()) + bytes.len();
        // The exact limit takes a system call. The lowest limit of all does without, for most replies.
        if self.too_long.is_some() || (size > LONGEST_V4 && size > self.longest_to(&self.packet.peer)) {
            self.too_long = Some(size);
            self.reply = Vec::new();
            return Err(self.too_long_by(size, &self.packet.peer));
        }
        self.reply.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: the reply is sent when the handler has succeeded.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Datagram");
        debug.field("peer", &self.packet.peer).field("local", &self.packet.local);
        debug.field("len", &self.packet.len).field("reply", &self.reply.len()).finish_non_exhaustive()
    }
}

/// The error, inside an [`io::Error`], of a datagram with more bytes than a datagram can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatagramTooLong {
    /// The number of bytes. For a reply, the bytes that were written so far.
    pub size: usize,
    /// The most bytes that are possible: 65,507 to an IPv4 address, 65,527 to an IPv6 address. For a Unix
    /// socket, its send buffer (`net.core.wmem_default`, usually 212,992) less 32. Less if the network
    /// refuses these.
    pub limit: usize,
}

impl fmt::Display for DatagramTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes are too long for a datagram, which can have {} here", self.size, self.limit)
    }
}

impl std::error::Error for DatagramTooLong {}

impl DatagramTooLong {
    /// Makes the error. `longest` is the most that the socket can send. If the network has refused `size`
    /// although it is less, the limit is below `size`.
    pub(crate) fn new(size: usize, longest: usize) -> Self {
        Self { size, limit: longest.min(size.saturating_sub(1)) }
    }
}

impl From<DatagramTooLong> for io::Error {
    fn from(e: DatagramTooLong) -> Self {
        Self::new(io::ErrorKind::InvalidInput, e)
    }
}
