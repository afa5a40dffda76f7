//! Waiting for the peer, for other threads and for the stop, all at once; and reading without a wait.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;
use crate::framing::Decoder;
use crate::mailbox::Bell;

/// What a [`Connection::wait`] has ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Input has arrived. Take it by [`try_next_line`](Connection::try_next_line),
    /// [`try_read_frame`](Connection::try_read_frame) or [`try_read`](Connection::try_read), which never wait. If
    /// something is left, the next wait reports it again. For a part of a line or frame, it waits until more has
    /// come.
    Input,
    /// A [`ConnectionWaker`] was called, once or many times, since the last event of this kind.
    Woken,
    /// The server stops. This event comes once, before those of input that has arrived. A handler that has something
    /// to finish goes on waiting, up to the [drain limit](crate::ServerBuilder::drain_timeout).
    Stopping,
    /// The peer has ended the stream, or a [`ConnectionWriter`](super::ConnectionWriter) has closed the connection.
    /// Each wait from then on returns it. A part of a line or frame may be unread.
    End,
}

/// Ends a [`Connection::wait`] from any thread, or from a signal handler. It comes from [`Connection::waker`].
///
/// Clone it and keep it beside the queue that the handler reads. Send a message first, then wake. So after a wake-up
/// the handler sees its message. Calls before the handler looks count as one, and cost one system call. After the
/// connection has ended, a call does nothing.
#[derive(Debug, Clone)]
pub struct ConnectionWaker(Arc<Bell>);

impl ConnectionWaker {
    pub(super) fn new(bell: Arc<Bell>) -> Self {
        Self(bell)
    }

    /// Makes the present wait, or the next one, return [`Event::Woken`]. It never blocks, and is async-signal-safe.
    pub fn wake(&self) {
        self.0.ring();
    }
}

impl Connection {
    /// Returns a handle by which other threads end a [`wait`](Self::wait) of this connection. It is for handlers that
    /// read a queue of their own beside the socket: a chat room, a subscription, the result of a job.
    ///
    /// The first call opens a descriptor. A connection whose handler never calls it has none.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use socketserver::{connection::Event, Connection};
    ///
    /// let (mut conn, client) = Connection::pair()?;
    /// let (send, news) = mpsc::channel();
    /// let waker = conn.waker()?;
    /// std::thread::spawn(move || {
    ///     send.send("hello from another thread").unwrap();
    ///     waker.wake(); // after the message
    /// });
    /// assert_eq!(conn.wait()?, Event::Woken);
    /// for line in news.try_iter() {
    ///     conn.send_line(line).unwrap();
    /// }
    /// drop(conn);
    /// assert_eq!(std::io::read_to_string(client)?, "hello from another thread\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the system has no descriptor left for the wake-up.
    pub fn waker(&self) -> io::Result<ConnectionWaker> {
        self.wire.waker()
    }

    /// Sends what is buffered, then waits. It returns at input, a call of a [`waker`](Self::waker), the stop of the
    /// server, or the end of the stream, whichever comes first. Messages of a [`writer`](Self::writer) are sent
    /// meanwhile.
    ///
    /// ```
    /// use std::sync::mpsc::Receiver;
    /// use socketserver::{connection::Event, Connection, HandlerResult};
    ///
    /// /// Serves one member of a chat. The others send to `news`, and then call
    /// /// the waker of this connection.
    /// fn chat(
    ///     conn: &mut Connection,
    ///     news: &Receiver<String>,
    ///     say: impl Fn(String),
    /// ) -> HandlerResult {
    ///     loop {
    ///         match conn.wait()? {
    ///             Event::Input => {
    ///                 while let Some(line) = conn.try_next_line()? {
    ///                     say(line);
    ///                 }
    ///             }
    ///             Event::Woken => {
    ///                 for line in news.try_iter() {
    ///                     conn.send_line(line)?;
    ///                 }
    ///             }
    ///             _ => return Ok(()), // the peer has ended, or the server stops
    ///         }
    ///     }
    /// }
    /// # use std::io::Write;
    /// # let (mut conn, mut client) = Connection::pair()?;
    /// # client.write_all(b"one\ntwo\nha")?;
    /// # drop(client);
    /// # let said = std::cell::RefCell::new(Vec::new());
    /// # chat(&mut conn, &std::sync::mpsc::channel().1, |line| said.borrow_mut().push(line)).unwrap();
    /// # assert_eq!(*said.borrow(), ["one", "two"]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// The wait ends the present [request](Self#requests), as [`next_request`](Self::next_request) does, and the next
    /// one begins with its input. If only a part of a line or frame has come, the request goes on, and the
    /// read limit holds. The idle limit counts from the last input: wake-ups do not prolong it.
    ///
    /// # Errors
    /// [`Limit::Idle`](crate::Limit::Idle) or [`Limit::Read`](crate::Limit::Read), and the limits of a request and of a
    /// drain; the errors of flushing and reading. After an idle limit the next wait counts anew.
    #[doc(alias("select", "poll"))]
    pub fn wait(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.input.wait(&self.wire, &self.output, None)? {
                return Ok(event);
            }
        }
    }

    /// As [`wait`](Self::wait), for `timeout` at most. Returns `None` if nothing has come by then. So a handler can
    /// send a ping now and then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use socketserver::Connection;
    ///
    /// let (mut conn, _client) = Connection::pair()?;
    /// assert_eq!(conn.wait_timeout(Duration::from_millis(1))?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<Event>> {
        // A time too far to be counted means for ever.
        let until = Instant::now().checked_add(timeout);
        self.input.wait(&self.wire, &self.output, until)
    }

    /// Returns the next line without its end, if a whole one has come. It never waits: call it after an
    /// [`Event::Input`], until it returns `None`. The part of a line stays, and counts towards
    /// [`max_line_length`](crate::ServerBuilder::max_line_length). A last line without an end is never returned.
    ///
    /// # Errors
    /// As [`next_line`](Self::next_line), without the time limits.
    pub fn try_next_line(&mut self) -> io::Result<Option<String>> {
        self.halves().0.try_next_line()
    }

    /// Returns the payload of the next frame, if a whole one has come. It never waits: call it after an
    /// [`Event::Input`], until it returns `None`. A part of a frame stays.
    ///
    /// # Errors
    /// As [`read_frame`](Self::read_frame), without the time limits and the end of the stream within a frame.
    pub fn try_read_frame<D: Decoder + ?Sized>(&mut self, decoder: &mut D) -> io::Result<Option<&[u8]>> {
        self.input.try_frame(&self.wire, decoder)
    }

    /// Reads what has come, and returns how much; 0 at the end of the stream. It never waits.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing has come; the errors of reading.
    pub fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.input.try_read(&self.wire, buf)? {
            _ if buf.is_empty() => Ok(0),
            Some(n) => Ok(n),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Lends the connection as a stream that never waits for input, for parsers that have no I/O of their own.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use socketserver::{connection::Event, Connection};
    ///
    /// let (mut conn, mut client) = Connection::pair()?;
    /// let mut buf = [0; 16];
    /// let nothing = conn.nonblocking().read(&mut buf);
    /// assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    /// client.write_all(b"ping")?;
    /// assert_eq!(conn.wait()?, Event::Input);
    /// let mut stream = conn.nonblocking();
    /// assert_eq!(stream.read(&mut buf)?, 4);
    /// stream.write_all(&buf[..4])?; // the next wait sends it
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn nonblocking(&mut self) -> NonBlocking<'_> {
        NonBlocking(self)
    }
}

/// A [`Connection`] that reads without a wait: [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing has come. It comes
/// from [`Connection::nonblocking`].
///
/// Output is buffered and takes all bytes, as the connection's. A write to a full buffer waits for the peer, within the
/// [write limit](crate::ServerBuilder::write_timeout).
#[derive(Debug)]
pub struct NonBlocking<'a>(&'a mut Connection);

impl Read for NonBlocking<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for NonBlocking<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
