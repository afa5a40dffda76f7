//! Stage 4: what a handler talks through.

mod datagram;
mod halves;
mod input;
mod output;
mod wire;
mod writer;

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::{Limit, ServerSettings};
use crate::error::HandlerResult;
use crate::framing::Decoder;
#[cfg(doc)]
use crate::framing::{FrameError, LineTooLong};
use crate::lifecycle::{Core, Hooks, ServerHandle};
use crate::net::{Accepted, Addr, Socket};

pub use crate::config::{LimitExceeded, LingeringClose};
pub use crate::net::PeerCredentials;
pub use datagram::{Datagram, DatagramTooLong};
pub use halves::{ReadHalf, WriteHalf};
pub(crate) use output::warm_up;
pub(crate) use wire::{Ending, StopNotice, Wire};
pub use writer::{ConnectionWriter, SendError};

use input::Input;
use output::Output;

/// A connection, as its handler sees it: buffered both ways, with time limits, over TCP or a Unix socket.
///
/// It reads as [`BufRead`] and writes as [`Write`]. What is written is kept until the buffer is full, until
/// [`flush`](Write::flush), **until a read would have to wait for the peer**, and until the handler is done; so a
/// dialogue needs no flush, and a thousand pipelined requests are answered in a few system calls. A write to a peer
/// that is gone is an error, never a `SIGPIPE`.
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
/// use socketserver::Connection;
///
/// let (mut conn, client) = Connection::pair()?;
/// (&client).write_all(b"Ada\nGrace\n")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// while let Some(name) = conn.next_line()? {
///     writeln!(conn, "hello {name}")?;                 // writing inside the loop
/// }
/// drop(conn);                                          // flushes
/// let replies: Vec<String> = BufReader::new(client).lines().collect::<Result<_, _>>()?;
/// assert_eq!(replies, ["hello Ada", "hello Grace"]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// A time limit shows as [`io::ErrorKind::TimedOut`], and [`Limit::of`] tells which one. A line over the limit shows
/// as [`io::ErrorKind::InvalidData`] with a [`LineTooLong`] inside.
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

    /// A connection without a server, and its client's end: for unit tests of a handler.
    ///
    /// # Errors
    /// Where the system has no descriptors left.
    pub fn pair() -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let core = Core::new(ServerSettings::default(), Hooks::default(), 1, 1)?;
        let accepted = Accepted { socket: Socket::Unix(ours), peer: Addr::Unnamed };
        Ok((Self::new(accepted, ServerHandle { core }, StopNotice::ByRegistry), theirs))
    }

    /// The peer's address, as `accept` told it.
    pub fn peer_addr(&self) -> Addr {
        self.wire.peer().clone()
    }

    /// The address of this end.
    ///
    /// # Errors
    /// As getsockname(2) fails.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.wire.local_addr()
    }

    /// Who the peer is, on a Unix socket: its process, user and group when it connected. `None` for TCP.
    ///
    /// ```
    /// use socketserver::{Connection, HandlerResult};
    ///
    /// /// Serves root, and whoever runs this server.
    /// fn handle(conn: &mut Connection, own_uid: u32) -> HandlerResult {
    ///     match conn.peer_credentials()? {
    ///         Some(peer) if peer.uid == 0 || peer.uid == own_uid => Ok(()),
    ///         other => Err(format!("not for {other:?}").into()),
    ///     }
    /// }
    /// # let (mut conn, _client) = Connection::pair()?;
    /// let me = conn.peer_credentials()?.expect("a Unix socket"); // of a pair, both ends are ours
    /// assert_eq!(me.pid, std::process::id());
    /// assert!(handle(&mut conn, me.uid).is_ok());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As getsockopt(2) fails.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.wire.peer_credentials()
    }

    /// The server that this connection belongs to: shut it down, pause it, ask for its counters.
    pub fn server(&self) -> &ServerHandle {
        self.wire.server()
    }

    /// Ends one request and waits for the next, if it is not there already: flushes, waits for its first byte under
    /// the idle limit, and starts the request limit anew. `false` when the peer has ended the stream, or when the
    /// server drains and nothing
    /// has arrived.
    ///
    /// ```
    /// # use socketserver::{Connection, HandlerResult};
    /// fn handle(conn: &mut Connection) -> HandlerResult {
    ///     while conn.next_request()? {
    ///         let mut line = String::new();
    ///         conn.read_line(&mut line)?;
    ///         // …
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Limit::Idle`], or what flushing and reading meet.
    pub fn next_request(&mut self) -> io::Result<bool> {
        self.wire.between_requests();
        let filled = self.fill_buf().map(|data| !data.is_empty());
        self.wire.request_begins(); // also after an error, so that no limit is off for good
        filled
    }

    /// Reads a line with its end into `line`; 0 at the end of the stream. A last line without an end is returned as
    /// it is. Both line ends are read: `\n` and `\r\n`.
    ///
    /// Bounded, unlike the standard library's: a line of more than
    /// [`max_line_length`](crate::ServerBuilder::max_line_length) bytes (64 KiB by default), its end not counted, is
    /// an error, and nothing of it is consumed; nor is it when a limit ends the wait.
    ///
    /// # Errors
    /// [`LineTooLong`] inside [`io::ErrorKind::InvalidData`]; the same kind for a line that is not UTF-8, which is
    /// consumed; time limits.
    pub fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        self.halves().0.read_line(line)
    }

    /// The next line without its end, or `None` at the end of the stream. A line that is cut off by the end of the
    /// stream is never taken for a whole one.
    ///
    /// # Errors
    /// As [`read_line`](Self::read_line), and [`io::ErrorKind::UnexpectedEof`] when the stream ends within a line;
    /// the part is still there to read.
    pub fn next_line(&mut self) -> io::Result<Option<String>> {
        self.halves().0.next_line()
    }

    /// The payload of the next frame, as `decoder` finds it; `None` at the end of the stream. Use the same decoder for
    /// the next, and [reset](Decoder::reset) it if anything else was read since a call that gave no frame.
    ///
    /// The frame is borrowed from the connection's buffer. To write while a frame is at hand, lend both directions apart:
    ///
    /// ```
    /// # use std::io::Write;
    /// # use socketserver::{framing::Netstrings, Connection, HandlerResult};
    /// fn echo(conn: &mut Connection) -> HandlerResult {
    ///     let (mut input, mut output) = conn.halves();
    ///     let mut strings = Netstrings::new();
    ///     while let Some(frame) = input.read_frame(&mut strings)? {
    ///         output.write_all(frame)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// The decoder's limit bounds what is buffered, and when a time limit ends the wait, the next call goes on where
    /// this one stopped.
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
    /// The decoder's, as [`io::ErrorKind::InvalidData`] with a [`FrameError`] or a [`LineTooLong`] inside: nothing is
    /// consumed. [`io::ErrorKind::UnexpectedEof`] when the stream ends within a frame: the part is still there to read.
    /// Time limits.
    pub fn read_frame<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.input.frame(&self.wire, &self.output, decoder)
    }

    /// Writes `line` and a line feed. It is buffered, as all output is. The result is a handler's, so that it can be the
    /// last expression of one:
    ///
    /// ```
    /// use socketserver::{handler, Connection, StreamRequestHandler};
    ///
    /// let greet = handler(|conn| conn.send_line(format!("hello {}", conn.peer_addr())));
    /// let (mut conn, client) = Connection::pair()?;
    /// greet.handle(&mut conn)?;
    /// drop(conn);                                  // sends what is buffered
    /// assert!(std::io::read_to_string(client)?.starts_with("hello "));
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    ///
    /// [`Transport::send_line`](crate::Transport::send_line) and [`ConnectionWriter::send_line`] do the same for a
    /// protocol and for other threads.
    ///
    /// # Errors
    /// An [`io::Error`] inside, as [`write_all`](Write::write_all) returns it.
    pub fn send_line(&mut self, line: impl AsRef<[u8]>) -> HandlerResult {
        self.write_all(line.as_ref())?;
        self.write_all(b"\n")?;
        Ok(())
    }

    /// The two directions apart (Python's `rfile` and `wfile`), so that a loop can read from one and write to the
    /// other. A read through one still flushes the other before it waits.
    pub fn halves(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        let Self { input, output, wire } = self;
        (ReadHalf::new(input, output, wire), WriteHalf::new(output, wire))
    }

    /// A handle that other threads write through: a bounded queue, which this thread sends whenever it flushes or
    /// waits for the peer, and at the end. From the first call on, waiting costs one system call more.
    ///
    /// # Errors
    /// Where the system has no descriptor left for the wake-up.
    pub fn writer(&self) -> io::Result<ConnectionWriter> {
        self.wire.writer()
    }

    /// How long to wait for the first byte of a request; `None`: for ever. Overrides the server's setting.
    pub fn set_idle_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Idle, limit);
    }

    /// How long to wait for more of a request, each time; `None`: for ever. Overrides the server's setting.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Read, limit);
    }

    /// How long to wait for a peer that takes nothing, each time; `None`: for ever. Overrides the server's setting.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Write, limit);
    }

    /// How long the request may take in all, from its start; `None`: for ever. Overrides the server's setting.
    /// It is checked when the handler waits for the peer.
    pub fn set_request_timeout(&mut self, limit: Option<Duration>) {
        self.wire.set_limit(Limit::Request, limit);
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// What is read and not yet consumed, which is consumed by this.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        self.input.take_unread()
    }

    /// For the end: what is buffered, to be read into the void, and the socket.
    pub(crate) fn scratch(&mut self) -> (&mut [u8], &Wire) {
        (self.input.scratch(), &self.wire)
    }

    /// Sends all there is, the writers' queue too, and takes no more of them.
    pub(crate) fn flush_last(&mut self) -> io::Result<()> {
        self.wire.close_writers();
        self.wire.flush(self.output.get_mut())
    }
}

impl Read for Connection {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.halves().0.read(buf)
    }
}

impl BufRead for Connection {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill(&self.wire, &self.output)
    }

    fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        self.halves().0.read_line(line)
    }
}

impl Write for Connection {
    /// Takes all of `data`, always.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.output.get_mut().write(&self.wire, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush(self.output.get_mut())
    }
}

impl AsFd for Connection {
    /// The socket, for options. Reading from it directly misses what is buffered.
    ///
    /// A duplicate that outlives the handler holds no place of the server's: the connection counts as ended when the
    /// handler has returned. Its peer reads the end of the stream only when the duplicate is closed as well.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.flush_last();
        self.wire.leave();
    }
}
