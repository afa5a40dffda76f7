//! A transport as the standard library's streams, for parsers without I/O of their own.

use std::error::Error;
use std::io::{self, Read, Write};

use crate::event_loop::state::lost::WriteError;
use crate::event_loop::state::transport::Transport;

/// Queues bytes, as [`Transport::write`] does: all of them or none. `flush` does nothing, because the loop sends after
/// the callback.
impl Write for Transport<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Transport::write(self, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport<'_> {
    /// Lends the connection as a stream that never waits: it reads `data`, which a callback was lent, and writes to the
    /// queue. So crates that read from a stream, and have no loop of their own, run in a callback: WebSocket, TLS,
    /// compression.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{HandlerResult, Protocol, Transport};
    ///
    /// /// What such a crate has: it keeps what it has read of a message.
    /// #[derive(Default)]
    /// struct Numbers(Vec<u8>);
    ///
    /// impl Numbers {
    ///     fn read(&mut self, stream: &mut (impl Read + Write)) -> std::io::Result<u16> {
    ///         while self.0.len() < 2 {
    ///             let mut byte = [0];
    ///             stream.read_exact(&mut byte)?; // `WouldBlock`: go on later
    ///             self.0.extend(byte);
    ///         }
    ///         stream.write_all(b"ok ")?;
    ///         let number = u16::from_be_bytes([self.0[0], self.0[1]]);
    ///         self.0.clear();
    ///         Ok(number)
    ///     }
    /// }
    ///
    /// impl Protocol for Numbers {
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
    ///         let mut stream = transport.stream(data);
    ///         loop {
    ///             match self.read(&mut stream) {
    ///                 Ok(number) => write!(stream, "{number}\n")?,
    ///                 Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
    ///                 Err(e) => return Err(e.into()),
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// let mut test = TestLoop::new()?;
    /// let client = test.connect(Numbers::default());
    /// test.feed(client, &[0, 1, 1]);
    /// test.feed(client, &[1]);
    /// assert_eq!(test.output(client), b"ok 1\nok 257\n");
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn stream<'s>(&'s mut self, data: &'s [u8]) -> TransportStream<'s> {
        TransportStream { transport: self.reborrow(), data }
    }
}

/// A [`Transport`] with the bytes of one callback, as a stream. It comes from [`Transport::stream`].
///
/// A read gives the bytes, then [`WouldBlock`](io::ErrorKind::WouldBlock), and never the end of the stream: of that,
/// [`eof_received`](crate::Protocol::eof_received) tells. Bytes that are not read are lost with the value. A write is
/// that of the transport.
#[derive(Debug)]
pub struct TransportStream<'a> {
    transport: Transport<'a>,
    data: &'a [u8],
}

impl<'a> TransportStream<'a> {
    /// Returns the bytes that were not read.
    pub fn unread(&self) -> &'a [u8] {
        self.data
    }

    /// Returns the transport, to close it for example.
    pub fn transport(&mut self) -> &mut Transport<'a> {
        &mut self.transport
    }
}

impl Read for TransportStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.data.is_empty() && !buf.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.data.read(buf)
    }
}

impl Write for TransportStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut self.transport, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The most errors of a chain that are looked at: a chain may be a ring.
const MOST_SOURCES: usize = 32;

/// True if the error is that of a refused write, also inside of other errors, as those of a crate that writes.
pub(crate) fn is_refused_write(error: &(dyn Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |e| inside(*e));
    chain.take(MOST_SOURCES).any(|e| e.is::<WriteError>())
}

/// Returns the error inside. The `source` of an [`io::Error`] skips that.
fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(e) => e.get_ref().map(|inside| inside as &(dyn Error + 'static)),
        None => error.source(),
    }
}
