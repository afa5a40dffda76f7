//! [`Session`]: the TLS of one connection, which answers as its socket would.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};

use rustls::{ClientConnection, Connection, ServerConnection};

use super::client::TlsClientConfig;
use super::config::TlsConfig;
use super::info::TlsInfo;
use super::stream::Ciphertext;

/// The most plaintext that is encrypted before the kernel has taken its ciphertext.
const BATCH: usize = 64 << 10;

/// The most plaintext that rustls keeps. It reads no further until that is taken.
const PLAINTEXT: usize = 16 << 10;

/// The most reads of the kernel in one call. A peer that sends records without contents, as fast as they are read, must
/// hold up neither a loop nor the look at a deadline.
const READS: usize = 4;

/// A caller's buffer below this size does not do for ciphertext: each read would bring a piece of a record.
const SMALL: usize = 4 << 10;

/// A TLS session. In a box, so that a connection without one pays for a pointer.
pub(crate) struct Session(Box<RefCell<State>>);

struct State {
    tls: Connection,
    /// Ciphertext that was read, and that rustls does not take before its plaintext is read. Mostly empty.
    ahead: Vec<u8>,
    /// The plaintext that was encrypted, and that `send` has not reported as sent yet.
    owed: usize,
    /// True if the last read of the kernel was short: nothing more is there.
    drained: bool,
    /// The error to report when the plaintext before it is read.
    error: Option<io::Error>,
    /// True once the end of the stream has been reported.
    told_end: bool,
    /// True after an error of the protocol. An alert was sent then, and nothing may follow it.
    failed: bool,
}

impl Session {
    /// Begins the session of a client that a server has accepted.
    pub(crate) fn server(config: &TlsConfig) -> io::Result<Self> {
        let tls = ServerConnection::new(config.current()).map_err(io::Error::other)?;
        Ok(Self::new(tls.into()))
    }

    /// Begins the session of a client. `server_name` is the name that the server's certificate must have.
    pub(crate) fn client(config: &TlsClientConfig, server_name: &str) -> io::Result<Self> {
        let tls = ClientConnection::new(config.get(), super::client::server_name(server_name)?);
        Ok(Self::new(tls.map_err(io::Error::other)?.into()))
    }

    fn new(mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(BATCH));
        let state =
            State { tls, ahead: Vec::new(), owed: 0, drained: false, error: None, told_end: false, failed: false };
        Self(Box::new(RefCell::new(state)))
    }

    pub(crate) fn info(&self) -> TlsInfo {
        TlsInfo::of(&self.0.borrow().tls)
    }

    /// Takes the handshake as far as it goes without a wait. `WouldBlock` if the peer is to go on.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer leaves, `ConnectionAborted` if it does not speak TLS or if nothing can be agreed upon.
    pub(crate) fn handshake(&self, below: &impl Ciphertext) -> io::Result<()> {
        let state = &mut *self.0.borrow_mut();
        loop {
            // The last flight, tickets included, must be out too: the handler may wait for the client next.
            state.push(below, false)?;
            if !state.tls.is_handshaking() {
                return Ok(());
            }
            if state.pull_small(below, false)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer left during the TLS handshake"));
            }
            state.error.take().map_or(Ok(()), Err)?;
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.borrow().tls.is_handshaking()
    }

    /// Reads plaintext. With `wait` it reads from the kernel at most once, so that its caller can check the
    /// deadlines. A record that comes byte by byte must not escape them. Without `wait` it reads until there is
    /// plaintext or nothing more, a few times at most.
    ///
    /// # Errors
    /// `UnexpectedEof` if the stream ends without the peer's close_notify.
    pub(crate) fn recv(&self, below: &impl Ciphertext, buf: &mut [u8], wait: bool) -> io::Result<usize> {
        let state = &mut *self.0.borrow_mut();
        if buf.is_empty() {
            return Ok(0);
        }
        let mut reads = if wait { 1 } else { READS };
        loop {
            if let Some(n) = state.take_plaintext(buf)? {
                return Ok(n);
            }
            if reads == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            reads -= 1;
            // An answer of TLS itself, as to a key update, must not wait for the next output.
            // If that fails, the read below, or the next output, says so.
            let _ = state.push(below, false);
            state.pull(below, buf, wait)?;
        }
    }

    /// Encrypts and sends as much as the kernel takes. It counts bytes once their ciphertext is in the kernel. The
    /// caller offers all other bytes again, unchanged, as it does with a socket.
    pub(crate) fn send(&self, below: &impl Ciphertext, parts: &[IoSlice<'_>], wait: bool) -> io::Result<usize> {
        let state = &mut *self.0.borrow_mut();
        if state.failed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "TLS has failed before"));
        }
        let offered: usize = parts.iter().map(|part| part.len()).sum();
        let mut taken = 0;
        while taken < offered {
            if state.owed == 0 {
                state.encrypt(below, parts, taken, wait).or_else(|e| if taken > 0 { Ok(()) } else { Err(e) })?;
            }
            let (sent, blocked) = state.push_owed(below, wait);
            let sent = sent.min(offered - taken);
            state.owed -= sent;
            taken += sent;
            match blocked {
                Some(_) if taken > 0 => break,
                Some(e) => return Err(e),
                None if sent == 0 => break,
                None => {}
            }
        }
        Ok(taken)
    }

    /// Sends what TLS itself has to say. `WouldBlock` while the kernel does not take all of it.
    pub(crate) fn push(&self, below: &impl Ciphertext, wait: bool) -> io::Result<()> {
        self.0.borrow_mut().push(below, wait)
    }

    /// True if ciphertext waits for the kernel.
    pub(crate) fn wants_write(&self) -> bool {
        self.0.borrow().tls.wants_write()
    }

    /// True if a read may return what the kernel does not report: plaintext, the end of the stream, or bytes that
    /// were not read yet.
    pub(crate) fn holds_input(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        if state.told_end {
            return false;
        }
        let ended = state.tls.process_new_packets().is_ok_and(|io| io.peer_has_closed());
        ended || !state.drained || !state.ahead.is_empty() || state.error.is_some() || state.plaintext_len() > 0
    }

    /// True if there is plaintext that nobody has read.
    pub(crate) fn has_plaintext(&self) -> bool {
        let state = &mut *self.0.borrow_mut();
        !state.ahead.is_empty() || state.plaintext_len() > 0
    }

    /// Queues close_notify, which ends this side's stream. After an error nothing follows the alert.
    pub(crate) fn queue_close_notify(&self) {
        let state = &mut *self.0.borrow_mut();
        if !state.failed {
            state.tls.send_close_notify(); // a second call does nothing
        }
    }
}

impl State {
    /// Gives plaintext that is there. `Some(0)` at the peer's close_notify.
    fn take_plaintext(&mut self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while filled < buf.len() {
            let read = self.tls.reader().read(&mut buf[filled..]);
            match read {
                Ok(0) if filled == 0 => {
                    self.told_end = true;
                    return Ok(Some(0));
                }
                Ok(n) if n > 0 => filled += n,
                Err(e) if e.kind() != io::ErrorKind::WouldBlock && filled == 0 => return Err(e),
                _ if self.ahead.is_empty() => break,
                _ => {
                    let ahead = std::mem::take(&mut self.ahead);
                    self.feed(&ahead);
                }
            }
        }
        match filled {
            0 => self.error.take().map_or(Ok(None), Err),
            n => Ok(Some(n)),
        }
    }

    /// Reads ciphertext once, into the caller's buffer, which is free until the plaintext comes. So a session needs no
    /// large buffer of its own.
    fn pull(&mut self, below: &impl Ciphertext, buf: &mut [u8], wait: bool) -> io::Result<()> {
        if buf.len() < SMALL {
            return self.pull_small(below, wait).map(drop);
        }
        self.pull_into(below, buf, wait).map(drop)
    }

    // Apart, so that only its callers have the buffer on their stack.
    #[inline(never)]
    fn pull_small(&mut self, below: &impl Ciphertext, wait: bool) -> io::Result<usize> {
        self.pull_into(below, &mut [0; SMALL], wait)
    }

    fn pull_into(&mut self, below: &impl Ciphertext, buf: &mut [u8], wait: bool) -> io::Result<usize> {
        self.drained = true; // until the read below says otherwise
        let n = below.recv(buf, wait)?;
        self.drained = n < buf.len();
        match n {
            0 => drop(self.tls.read_tls(&mut io::empty())), // so that it knows of the end
            n => self.feed(&buf[..n]),
        }
        if self.failed {
            let _ = self.push(below, false); // the alert
        }
        Ok(n)
    }

    /// Decrypts. An error is kept until the plaintext before it has been read.
    fn feed(&mut self, mut ciphertext: &[u8]) {
        while !ciphertext.is_empty() && self.error.is_none() {
            if self.plaintext_len() > PLAINTEXT {
                self.ahead = ciphertext.to_vec();
                return;
            }
            let read = self.tls.read_tls(&mut ciphertext);
            let processed = read.and_then(|_| self.tls.process_new_packets().map_err(broken));
            if let Err(e) = processed {
                (self.failed, self.error) = (true, Some(e));
            }
        }
    }

    fn plaintext_len(&mut self) -> usize {
        self.tls.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
    }

    fn push(&mut self, below: &impl Ciphertext, wait: bool) -> io::Result<()> {
        self.push_counted(below, wait).1.map_or(Ok(()), Err)
    }

    /// Gives the kernel what is encrypted. Returns how many bytes it took, and the error if it did not take all. With
    /// `wait` it makes one call, so that its caller can check the deadlines. A peer that takes a little now and then
    /// must not escape them.
    fn push_counted(&mut self, below: &impl Ciphertext, wait: bool) -> (usize, Option<io::Error>) {
        let mut pushed = 0;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Below { below, wait }) {
                Ok(n) => pushed += n,
                Err(e) => return (pushed, Some(e)),
            }
            if wait && self.tls.wants_write() {
                return (pushed, Some(io::ErrorKind::WouldBlock.into()));
            }
        }
        (pushed, None)
    }

    /// Sends what is owed, and returns how much of it counts as sent. Ciphertext is longer than its plaintext, so its
    /// count is a safe one for all but the last byte. A slow peer thus shows progress within a batch.
    fn push_owed(&mut self, below: &impl Ciphertext, wait: bool) -> (usize, Option<io::Error>) {
        let (pushed, blocked) = self.push_counted(below, wait);
        match blocked {
            Some(e) => (pushed.min(self.owed.saturating_sub(1)), Some(e)),
            None => (self.owed, None),
        }
    }

    /// Encrypts the next batch of what is offered, from byte `skip` on.
    fn encrypt(&mut self, below: &impl Ciphertext, parts: &[IoSlice<'_>], skip: usize, wait: bool) -> io::Result<()> {
        self.push(below, wait)?; // what TLS itself has to say goes first
        let mut skip = skip;
        let rest: Vec<IoSlice<'_>> = parts
            .iter()
            .filter_map(|part| {
                let cut = skip.min(part.len());
                skip -= cut;
                (cut < part.len()).then(|| IoSlice::new(&part[cut..]))
            })
            .collect();
        self.owed = match &rest[..] {
            [one] => self.tls.writer().write(one)?,
            many => self.tls.writer().write_vectored(many)?,
        };
        Ok(())
    }
}

/// The stream below, as rustls writes to it.
struct Below<'a, C> {
    below: &'a C,
    wait: bool,
}

impl<C: Ciphertext> Write for Below<'_, C> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.below.send(&[IoSlice::new(buf)], self.wait)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.below.send(parts, self.wait)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes the error of a peer that breaks the protocol. It counts as a peer that has broken the connection, whatever a
/// handler makes of it.
fn broken(e: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, e)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
