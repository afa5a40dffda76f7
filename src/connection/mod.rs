//! A connection or a datagram, as its handler sees it, and the types around them.
//!
//! Most code needs only [`Connection`] and [`Datagram`], which are at the crate's root too. Look here for:
//! - the handle that other threads write through ([`ConnectionWriter`]), whose queue may refuse with
//!   [`SendError`];
//! - a connection that goes on without its handler ([`Detached`]);
//! - waiting for the peer and for other threads at once ([`Event`], [`ConnectionWaker`]);
//! - the two directions of a connection ([`ReadHalf`], [`WriteHalf`]);
//! - the process at the other end of a Unix socket ([`PeerCredentials`]);
//! - the types of errors and settings: [`LimitExceeded`] inside an [`io::Error`],
//!   [`DatagramTooLong`], [`LingeringClose`].

// `Connection` is the type that a handler sees. It joins three parts: `Input` (read buffer), `Output`
// (write buffer) and `Wire` (socket, limits, waits). This folder does not decide when a connection ends or
// how it is counted: `finish` does. The walk of a read: `Connection::fill_buf` → `Input::fill` → `Wire::recv`
// → `recv_ahead` (flush first) → `recv_blocking`. If this thread must watch the stop or a mailbox itself, the
// last step is `recv_watching`.

mod datagram;
mod detached;
mod event;
mod exec;
mod facts;
mod halves;
mod handover;
mod input;
mod items;
mod output;
mod parked;
mod shortcut;
mod traits;
mod wire;
mod writer;

use std::cell::RefCell;
use std::io::{self, Write};
#[cfg(doc)]
use std::io::{BufRead, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::{Limit, ServerSettings};
use crate::error::HandlerResult;
use crate::framing::Decoder;
#[cfg(doc)]
use crate::framing::{FrameError, LineTooLong};
use crate::lifecycle::{Core, Hooks, ServerHandle};
use crate::net::{Accepted, Addr, Socket};
use crate::proxy::ProxyHeader;
#[cfg(feature = "__tls")]
use crate::tls::{injected, Session, TlsConfig, TlsInfo};

pub use crate::config::{LimitExceeded, LingeringClose};
pub use crate::net::PeerCredentials;
pub use datagram::{Datagram, DatagramTooLong};
pub use detached::Detached;
pub(crate) use detached::Home;
pub use event::{ConnectionWaker, Event, NonBlocking};
pub use halves::{ReadHalf, WriteHalf};
pub(crate) use handover::{GivenBack, HandedOver, Happened};
pub(crate) use wire::{Ending, Heard, Look, ParentDeadline, Patience, StopNotice, Told, Wire};
pub(crate) use writer::Poke;
pub use writer::{ConnectionWriter, SendError};

use input::Input;
use output::Output;

/// Makes this thread's spare buffers ready for the children that it forks.
pub(crate) fn warm_up() {
    input::warm_up();
    output::warm_up();
}

/// A connection, as its handler sees it: buffered in both directions, with time limits, over TCP or a Unix
/// socket.
///
/// It reads as [`BufRead`] and writes as [`Write`]. Output is kept in a buffer. It is sent when the buffer is
/// full, at a [`flush`](Write::flush), **before a read that must wait**, and when the handler
/// is done. So a dialogue needs no flush, and a thousand pipelined requests are answered in a few system
/// calls. A write to a peer that has closed is an error, never a `SIGPIPE`.
///
/// # Requests
///
/// A stop ends an idle wait at once, and lets a request finish within the
/// [drain limit](crate::ServerBuilder::drain_timeout). An idle wait has the
/// [idle limit](crate::ServerBuilder::idle_timeout); a request has the
/// [request limit](crate::ServerBuilder::request_timeout), from its first byte to its end. The handler's calls say
/// what is a request:
///
/// | the handler reads by | a request is | idle is |
/// |---|---|---|
/// | [`next_line`](Self::next_line), [`read_line`](Self::read_line), [`read_frame`](Self::read_frame), [`BufRead::read_until`] | one line or frame, until the next one is asked for | each wait before one, with nothing buffered |
/// | bytes ([`Read::read`], [`BufRead::fill_buf`]) | the whole connection | a wait with nothing read since the last flush, or since the start |
/// | any of them, after [`next_request`](Self::next_request) | all from one call of `next_request` to the next one | the wait in `next_request`, and no other |
/// | any of them, after [`wait`](Self::wait) | all from its input to the next wait | each wait, except within a line or frame |
///
/// So call `next_request` if a request has several lines. Otherwise a stop may come between two of them, and a client
/// that sends one line now and then meets no request limit.
///
/// # Reading and writing
///
/// Lines and frames are bounded. The other methods of [`BufRead`] (`read_until`, `read_to_end`) are not: they
/// collect into the buffer that the caller gives.
///
/// One type stands for TCP, Unix sockets and a test's socket pair, so a handler serves all of them without a type
/// parameter.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use socketserver::Connection;
///
/// let (mut conn, client) = Connection::pair()?;
/// (&client).write_all(b"Ada\nGrace\n")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// while conn.next_request()? { // false too when the server stops
///     let Some(name) = conn.next_line()? else { break };
///     conn.send_line(format!("hello {name}"))?;
/// }
/// drop(conn); // flushes
/// let replies: Result<Vec<_>, _> = BufReader::new(client).lines().collect();
/// assert_eq!(replies?, ["hello Ada", "hello Grace"]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
///
/// # Errors
/// A time limit shows as [`io::ErrorKind::TimedOut`], and [`Limit::of`] tells which one. A line over the
/// limit shows as [`io::ErrorKind::InvalidData`] with a [`LineTooLong`] inside.
#[derive(Debug)]
pub struct Connection {
    input: Input,
    output: RefCell<Output>,
    wire: Wire,
}

impl Connection {
    pub(crate) fn new(accepted: Accepted, server: ServerHandle, notice: StopNotice) -> Self {
        let config = &server.core.settings;
        let input = Input::new(config.read_buffer, config.line_limit);
        let output = RefCell::new(Output::new(config.write_buffer));
        Self { input, output, wire: Wire::new(accepted, server, notice) }
    }

    /// Makes a connection without a server, and its client's end, for unit tests of a handler.
    ///
    /// # Errors
    /// If the system has no descriptors left.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let core = Core::new(ServerSettings::default(), Hooks::default(), 1, 1)?;
        let accepted = Accepted::new(Socket::Unix(ours), Addr::Unnamed);
        Ok((Self::new(accepted, ServerHandle { core }, StopNotice::ByRegistry), theirs))
    }

    /// Returns the peer's address, as `accept` gave it. (getpeername(2) fails after a reset.) Behind a
    /// [proxy](crate::ServerBuilder::proxy_protocol) it is the client's address, as the proxy gave it. It is
    /// owned, so that `conn.send_line(format!("hello {}", conn.peer_addr()))` compiles.
    pub fn peer_addr(&self) -> Addr {
        self.wire.peer().clone()
    }

    /// Returns what the proxy has told of this connection. `None` without
    /// [`proxy_protocol`](crate::ServerBuilder::proxy_protocol), and for a connection that was served
    /// directly.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.wire.proxy.as_deref()
    }

    /// Returns the address of this end.
    ///
    /// # Errors
    /// If getsockname(2) fails.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.wire.local_addr()
    }

    /// Returns the process, user and group of the peer on a Unix socket, as they were when it connected.
    /// `None` for TCP.
    ///
    /// ```
    /// use socketserver::{Connection, HandlerResult};
    ///
    /// /// Serves root, and the user that runs this server.
    /// fn handle(conn: &mut Connection, own_uid: u32) -> HandlerResult {
    ///     match conn.peer_credentials()? {
    ///         Some(peer) if peer.uid == 0 || peer.uid == own_uid => Ok(()),
    ///         other => Err(format!("not for {other:?}").into()),
    ///     }
    /// }
    /// # let (mut conn, _client) = Connection::pair()?;
    /// let me = conn.peer_credentials()?.expect("a Unix socket"); // both ends are ours
    /// assert_eq!(me.pid, std::process::id());
    /// assert!(handle(&mut conn, me.uid).is_ok());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If getsockopt(2) fails.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.wire.peer_credentials()
    }

    /// Returns what TLS has agreed upon; `None` without TLS.
    #[cfg(feature = "__tls")]
    pub fn tls(&self) -> Option<TlsInfo> {
        self.wire.tls_info()
    }

    /// Begins TLS on a connection that has begun without (STARTTLS of SMTP, IMAP, POP3, XMPP). It sends what is
    /// buffered as it is, then waits for the client's handshake, under
    /// [`handshake_timeout`](crate::ServerBuilder::handshake_timeout). From then on all input and output is encrypted.
    /// A request limit begins anew.
    ///
    /// Input that has come before the handshake is refused. A client must wait for the answer to its STARTTLS. So such
    /// input is an attack: commands that somebody has injected, and that would count as the client's own (CVE-2011-0411).
    ///
    /// ```no_run
    /// use socketserver::{Connection, HandlerResult, TlsConfig};
    ///
    /// fn handle(conn: &mut Connection, tls: &TlsConfig) -> HandlerResult {
    ///     while conn.next_request()? {
    ///         match conn.next_line()?.as_deref() {
    ///             Some("STARTTLS") if conn.tls().is_none() => {
    ///                 conn.send_line("220 go ahead")?;
    ///                 conn.start_tls(tls)?;
    ///                 // Forget what the client has said so far (RFC 3207, section 4.2).
    ///             }
    ///             Some(command) => conn.send_line(format!("500 {command}?"))?,
    ///             None => break,
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`InvalidData`](io::ErrorKind::InvalidData) if input is unread, a [`PeerFault`](crate::PeerFault): nothing was
    /// sent or begun. [`InvalidInput`](io::ErrorKind::InvalidInput) if TLS has begun already. [`Limit::Handshake`],
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if the handshake fails: end the connection then.
    #[cfg(feature = "__tls")]
    pub fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        if self.tls().is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "TLS has begun already"));
        }
        if !self.input.is_empty() {
            return Err(injected());
        }
        self.flush()?;
        self.wire.shake_hands(Session::server(config)?)
    }

    /// Returns the handle of the server: shut it down, pause it, read its counters.
    pub fn server(&self) -> &ServerHandle {
        self.wire.server()
    }

    /// True if the server stops, or the worker process that serves this connection is replaced. A stop shows as the
    /// end of the stream to a handler that waits for a request. So a handler, or a library on top of it, can tell
    /// the two apart:
    ///
    /// ```
    /// # use socketserver::{Connection, HandlerResult};
    /// fn handle(conn: &mut Connection) -> HandlerResult {
    ///     while let Some(line) = conn.next_line()? {
    ///         conn.send_line(line)?;
    ///     }
    ///     if conn.is_stopping() {
    ///         conn.send_line("421 the server stops, try again later")?;
    ///     }
    ///     Ok(())
    /// }
    /// # let (mut conn, client) = Connection::pair()?;
    /// # client.shutdown(std::net::Shutdown::Write)?;
    /// # handle(&mut conn).unwrap();
    /// assert!(!conn.is_stopping()); // the client has ended it
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn is_stopping(&self) -> bool {
        self.server().is_shutting_down()
    }

    /// True if another request begins. It ends the present request and flushes. It waits for the first byte
    /// of the next request under the idle limit, and starts the request limit anew. False if the peer has
    /// ended the stream, or if the server drains and nothing has arrived.
    ///
    /// From the first call on, only this method ends a request: see [Requests](Self#requests).
    ///
    /// ```
    /// # use socketserver::{Connection, HandlerResult};
    /// fn handle(conn: &mut Connection) -> HandlerResult {
    ///     while conn.next_request()? {
    ///         let Some(line) = conn.next_line()? else { break };
    ///         conn.send_line(line.to_uppercase())?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Limit::Idle`], and the errors of flushing and reading.
    #[doc(alias = "keep-alive")]
    pub fn next_request(&mut self) -> io::Result<bool> {
        self.input.next_request(&self.wire, &self.output)
    }

    /// Reads a line with its end into `line`, and returns its length; 0 at the end of the stream. Both `\n`
    /// and `\r\n` end a line. A last line without an end is returned as it is, as the standard library does.
    ///
    /// Unlike the standard library's, it is bounded, because a client that never ends its line would fill the
    /// memory. A line of more than [`max_line_length`](crate::ServerBuilder::max_line_length) bytes without
    /// its end (64 KiB by default) is an error. Nothing is consumed then, so the handler may answer and
    /// decide. Nothing is consumed after a time limit either.
    ///
    /// # Errors
    /// [`LineTooLong`] inside [`io::ErrorKind::InvalidData`]. The same kind for a line that is not UTF-8,
    /// which is consumed. Time limits.
    pub fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        self.halves().0.read_line(line)
    }

    /// Returns the next line without its end, or `None` at the end of the stream.
    ///
    /// **A last line without an end is an error**, which counts as `disconnected` and is logged at `debug`. It
    /// may be the front part of a longer line: think of a client that dies within `DELETE /tmp/x…`. Python's
    /// `for line in self.rfile` delivers it. For clients that end so on purpose, take
    /// [`read_line`](Self::read_line):
    ///
    /// ```
    /// use std::io::Write;
    /// use socketserver::Connection;
    ///
    /// let (mut conn, mut client) = Connection::pair()?;
    /// client.write_all(b"one\ntwo")?;
    /// drop(client);
    /// let (mut lines, mut line) = (Vec::new(), String::new());
    /// while conn.read_line(&mut line)? > 0 {
    ///     lines.push(line.trim_end().to_owned());
    ///     line.clear();
    /// }
    /// assert_eq!(lines, ["one", "two"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line), and [`io::ErrorKind::UnexpectedEof`] if the stream ends within a
    /// line. The part can still be read.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        self.halves().0.next_line()
    }

    /// Returns the payload of the next frame that `decoder` finds, or `None` at the end of the stream. Use
    /// the same decoder for the next frame. [Reset](Decoder::reset) it if you read anything else after a call
    /// without a frame.
    ///
    /// The frame is borrowed from the connection's buffer. To write while you hold a frame, take the
    /// [`halves`](Self::halves):
    ///
    /// ```
    /// # use std::io::Write;
    /// # use socketserver::{framing::Netstrings, Connection, HandlerResult};
    /// fn echo(conn: &mut Connection) -> HandlerResult {
    ///     let mut strings = Netstrings::new();
    ///     while conn.next_request()? {
    ///         let (mut input, mut output) = conn.halves();
    ///         let Some(frame) = input.read_frame(&mut strings)? else { break };
    ///         output.write_all(frame)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The decoder's limit bounds the buffer. If a time limit ends the wait, the next call goes on where this
    /// call stopped.
    ///
    /// ```
    /// use std::io::Write;
    /// use socketserver::{framing::Netstrings, Connection};
    ///
    /// let (mut conn, mut client) = Connection::pair()?;
    /// client.write_all(b"5:hello,0:,")?;
    /// let mut strings = Netstrings::new();
    /// assert_eq!(conn.read_frame(&mut strings)?, Some(&b"hello"[..]));
    /// assert_eq!(conn.read_frame(&mut strings)?, Some(&b""[..]));
    /// drop(client);
    /// assert_eq!(conn.read_frame(&mut strings)?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// The decoder's error, as [`io::ErrorKind::InvalidData`] with a [`FrameError`] or a [`LineTooLong`]
    /// inside: nothing is consumed. [`io::ErrorKind::UnexpectedEof`] if the stream ends within a frame: the
    /// part can still be read. Time limits.
    pub fn read_frame<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.input.frame(&self.wire, &self.output, decoder)
    }

    /// Writes `line` and a line feed. It is buffered, as all output is. The result is a [`HandlerResult`], so
    /// it can be the last expression of a handler:
    ///
    /// ```
    /// use socketserver::{handler, Connection, StreamRequestHandler};
    ///
    /// let greet = handler(|conn| conn.send_line(format!("hello {}", conn.peer_addr())));
    /// let (mut conn, client) = Connection::pair()?;
    /// greet.handle(&mut conn)?;
    /// drop(conn);                                  // sends the buffer
    /// assert!(std::io::read_to_string(client)?.starts_with("hello "));
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    ///
    /// [`Transport::send_line`](crate::Transport::send_line) and [`ConnectionWriter::send_line`] do the same
    /// for a protocol and for other threads.
    ///
    /// # Errors
    /// An [`io::Error`] inside, as [`write_all`](Write::write_all) returns it.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> HandlerResult {
        self.write_all(line.as_ref())?;
        self.write_all(b"\n")?;
        Ok(())
    }

    /// Splits the connection into its two directions (Python's `rfile` and `wfile`), so that a loop can read
    /// from one and write to the other. A read still flushes the writing half before it waits, so both stay
    /// on one thread. To write from another thread, use [`writer`](Self::writer).
    // Not `split`: `BufRead::split` exists, and means something else.
    pub fn halves(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let Self { input, output, wire } = self;
        (ReadHalf::new(input, output, wire), WriteHalf::new(output, wire))
    }

    /// Returns a handle for other threads to write with. It is a bounded queue. This thread sends the queue
    /// when it flushes, when it waits for the peer, and at the end. From the first call on, each wait costs
    /// one more system call, and the connection one more descriptor. A message takes up a connection that is parked
    /// ([`per_request`](crate::per_request)), and is sent.
    ///
    /// # Errors
    /// If the system has no descriptor left for the wake-up.
    pub fn writer(&self) -> io::Result<ConnectionWriter> {
        self.wire.writer()
    }

    /// Sets how long to wait for the first byte of a request; `None`: without a limit. Overrides the server's
    /// setting, and the read limit in such waits.
    pub fn set_idle_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Idle, limit);
    }

    /// Sets how long each wait for input may take; `None`: without a limit. Overrides the server's setting. If an
    /// idle limit is set, it holds instead between two requests.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Read, limit);
    }

    /// Sets how long to wait for a peer that takes nothing; `None`: without a limit. Any progress begins the
    /// wait anew. Overrides the server's setting.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Write, limit);
    }

    /// Sets how long the request may take in all, from its start; `None`: without a limit. Overrides the
    /// server's setting. It is checked when the handler waits for the peer: a handler that computes is not
    /// interrupted.
    pub fn set_request_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Request, limit);
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns the read buffer as a place for input that is thrown away, and the socket.
    pub(crate) fn scratch(&mut self) -> (&mut [u8], &Wire) {
        (self.input.scratch(), &self.wire)
    }

    /// Sends the buffer and the writers' queue, and closes the queue.
    pub(crate) fn flush_last(&mut self) -> io::Result<()> {
        self.wire.close_writers();
        let flushed = self.wire.flush(self.output.get_mut());
        self.wire.close_tls();
        flushed
    }
}

impl Connection {
    /// Gives the socket of a connection that has ended, in a child that exits next. Nothing else is dropped: that
    /// would only copy the parent's memory.
    pub(crate) fn into_socket(self) -> Option<Socket> {
        std::mem::ManuallyDrop::new(self).wire.socket.take()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.flush_last();
        self.wire.leave();
    }
}
