//! A client with the standard library's sockets: nothing of the crate under test takes part.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{bind, connect, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockType, SockaddrIn};

use super::{queues, uninterrupted, until, LIMIT};

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => uninterrupted(|| s.read(buf)),
            Self::Unix(s) => uninterrupted(|| s.read(buf)),
        }
    }
}

/// A connection whose every wait ends after [`LIMIT`].
pub struct Client {
    socket: BufReader<Socket>,
}

impl Client {
    /// To `HOST:PORT` or `unix:PATH`.
    pub fn connect(addr: &str) -> Self {
        let socket = match addr.strip_prefix("unix:") {
            Some(path) => Socket::Unix(UnixStream::connect(path).unwrap()),
            None => {
                let stream = TcpStream::connect_timeout(&addr.parse().unwrap(), LIMIT).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_write_timeout(Some(LIMIT)).unwrap();
                Socket::Tcp(stream)
            }
        };
        let client = Self { socket: BufReader::new(socket) };
        client.wait_at_most(LIMIT);
        client
    }

    /// As [`connect`](Self::connect), from another IPv4 address of this machine: all of 127.0.0.0/8 are.
    pub fn connect_from(source: &str, addr: &str) -> Self {
        let kind = (AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC);
        let socket = socket(kind.0, kind.1, kind.2, None).unwrap();
        // The port is chosen at the connect, so that a crowd does not run out of ports.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).unwrap();
        let v4 = |text: String| SockaddrIn::from(text.parse::<SocketAddrV4>().unwrap());
        bind(socket.as_raw_fd(), &v4(format!("{source}:0"))).unwrap();
        connect(socket.as_raw_fd(), &v4(addr.to_owned())).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let client = Self { socket: BufReader::new(Socket::Tcp(stream)) };
        client.wait_at_most(LIMIT);
        client
    }

    fn wait_at_most(&self, time: Duration) {
        match self.socket.get_ref() {
            Socket::Tcp(s) => s.set_read_timeout(Some(time)),
            Socket::Unix(s) => s.set_read_timeout(Some(time)),
        }
        .unwrap();
    }

    fn tcp(&self) -> &TcpStream {
        match self.socket.get_ref() {
            Socket::Tcp(s) => s,
            Socket::Unix(_) => panic!("not a TCP connection"),
        }
    }

    /// The socket, once what was read ahead has been taken.
    pub fn into_tcp(self) -> TcpStream {
        assert!(self.socket.buffer().is_empty(), "bytes were read ahead: {:?}", self.socket.buffer());
        match self.socket.into_inner() {
            Socket::Tcp(s) => s,
            Socket::Unix(_) => panic!("not a TCP connection"),
        }
    }

    /// This end's address, as the server sees it.
    pub fn local_addr(&self) -> SocketAddr {
        self.tcp().local_addr().unwrap()
    }

    /// Sends all of it. An error means that the server has closed.
    pub fn try_send(&mut self, data: &[u8]) -> io::Result<()> {
        match self.socket.get_mut() {
            Socket::Tcp(s) => s.write_all(data),
            Socket::Unix(s) => s.write_all(data),
        }
    }

    #[track_caller]
    pub fn send(&mut self, data: impl AsRef<[u8]>) {
        self.try_send(data.as_ref()).unwrap();
    }

    /// Sends a line, and waits until the server has read it: from then on it is in flight.
    #[track_caller]
    pub fn send_and_see_it_taken(&mut self, line: &str) {
        self.send(format!("{line}\n"));
        let ours = self.local_addr().port();
        let theirs = self.tcp().peer_addr().unwrap().port();
        until("the server reads the line", || queues::unread(theirs, ours) == Some(0));
    }

    /// The next line without its end; empty at the end of the stream.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.try_line().unwrap()
    }

    fn try_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.socket.read_line(&mut line)?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// One line there, one line back.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.line()
    }

    /// As [`ask`](Self::ask), of a server that may refuse us.
    pub fn try_ask(&mut self, line: &str) -> io::Result<String> {
        self.try_send(format!("{line}\n").as_bytes())?;
        self.try_line()
    }

    /// Leaves nothing but a reset.
    pub fn reset(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.tcp().as_fd(), sockopt::Linger, &at_once).unwrap();
    }

    /// Ends our direction of the stream.
    pub fn half_close(&self) {
        match self.socket.get_ref() {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
        }
        .unwrap();
    }

    /// Everything up to the end of the stream, which is an orderly one.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// What arrives, up to this much; 0 at the end of the stream.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buf)
    }

    /// Waits for the end of the connection, orderly or not; what came before it.
    pub fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.socket.read_to_end(&mut rest) {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("no end: {e}"),
            _ => rest,
        }
    }

    /// Waits for the end of the connection; an error if it is no orderly one.
    pub fn end(&mut self) -> io::Result<()> {
        self.socket.read_to_end(&mut Vec::new()).map(drop)
    }

    /// Takes what arrives, until nothing does for a moment; how many bytes it was.
    pub fn take_what_comes(&mut self) -> usize {
        self.wait_at_most(Duration::from_millis(200));
        let (mut buf, mut taken) = (vec![0; 1 << 16], 0);
        while let Ok(n @ 1..) = self.socket.read(&mut buf) {
            taken += n;
        }
        self.wait_at_most(LIMIT);
        taken
    }

    /// Whether nothing arrives during this time, not even an end.
    pub fn hears_nothing_for(&mut self, time: Duration) -> bool {
        self.wait_at_most(time);
        let heard = self.socket.fill_buf().map(<[u8]>::len);
        let silent = matches!(&heard, Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        self.wait_at_most(LIMIT);
        silent
    }
}
