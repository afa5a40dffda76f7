//! [`TestClient`]: a client whose waits all end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use crate::net::{Addr, Socket};

/// The longest wait of a client.
const LIMIT: Duration = Duration::from_secs(30);

/// A client of a [`TestServer`](super::TestServer), with a plain socket. It sends at once. Each of its waits
/// ends after 30 s, so that a broken test fails and does not hang.
///
/// It also reads as [`BufRead`] and writes as [`Write`], for tests that look at errors.
///
/// # Panics
/// Its own functions panic with the socket's error.
#[derive(Debug)]
pub struct TestClient {
    socket: BufReader<Stream>,
}

#[derive(Debug)]
struct Stream(Socket);

impl TestClient {
    pub(super) fn try_connect(to: &Addr) -> io::Result<Self> {
        let socket = match to {
            Addr::Ip(addr) => {
                let stream = TcpStream::connect_timeout(addr, LIMIT)?;
                // A test's small writes must not wait for acknowledgements.
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                Socket::Tcp(stream)
            }
            Addr::Unix(path) => unix(UnixStream::connect(path)?)?,
            Addr::Abstract(name) => unix(UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?)?,
            Addr::Unnamed => return Err(io::Error::other("the server's socket has no address")),
        };
        Ok(Self { socket: BufReader::new(Stream(socket)) })
    }

    /// Sends all of `data`.
    #[track_caller]
    pub fn send(&mut self, data: impl AsRef<[u8]>) {
        self.write_all(data.as_ref()).unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    /// Reads the next line, and returns it without its end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {}
            Ok(0) => panic!("the server has ended the stream, a line was expected"),
            Ok(_) => panic!("the server has ended the stream within a line, after {line:?}"),
            Err(e) => panic!("no line: {}", waited(e)),
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        line
    }

    /// Sends a line, and reads one.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// Reads `count` bytes.
    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        self.read_exact(&mut data).unwrap_or_else(|e| panic!("not {count} bytes: {}", waited(e)));
        data
    }

    /// Ends the sending side. The server reads the end of the stream, and can still answer.
    #[track_caller]
    pub fn end(&mut self) {
        let ended = match &self.socket.get_ref().0 {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
        };
        ended.unwrap_or_else(|e| panic!("cannot end the stream: {e}"));
    }

    /// Reads up to the end of the stream. A reset fails the test.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if let Err(e) = self.read_to_end(&mut rest) {
            panic!("no orderly end, after {} bytes: {}", rest.len(), waited(e));
        }
        rest
    }

    /// Returns the address of this end. The server sees it as the peer's.
    #[track_caller]
    pub fn local_addr(&self) -> Addr {
        self.socket.get_ref().0.local_addr().unwrap_or_else(|e| panic!("cannot tell the address: {e}"))
    }
}

fn unix(stream: UnixStream) -> io::Result<Socket> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(Socket::Unix(stream))
}

/// Makes the kernel's "try again" after a time limit an error for people.
fn waited(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, format!("waited {LIMIT:?} in vain")),
        _ => e,
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        }
    }
}

impl Read for TestClient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }
}

impl BufRead for TestClient {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.socket.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.socket.consume(n);
    }
}

impl Write for TestClient {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.socket.get_mut().0 {
            Socket::Tcp(s) => s.write(data),
            Socket::Unix(s) => s.write(data),
        }
    }

    /// Does nothing: writes go out at once.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for TestClient {
    /// Returns the socket, for options.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().0.as_fd()
    }
}
