//! The clients: plain ones, all on this thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use nix::libc::linger;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};

use crate::tls;

pub const GREETING: &str = "Hello from the server, what can I do for you?\r\n";

/// As many short connections are open at once.
const IN_FLIGHT: usize = 16;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing: the time from the start of a server until it listens.
    Start,
    /// Connect, and read to the end.
    Greet,
    /// Connect, send 64 bytes, read as many, close.
    Request,
    /// Send `size` bytes, and again what comes back, on each connection with `ahead` of that on the way.
    Echo { clients: usize, ahead: usize, size: usize },
    /// Say something once, and stay.
    Idle,
    /// By TLS: connect, and receive a byte.
    Handshake,
    /// The same with a ticket.
    Resumption,
    /// Receive much.
    Download,
    /// Send much.
    Upload,
    /// As `Idle`.
    TlsIdle,
}

impl Load {
    pub fn name(self) -> String {
        match self {
            Self::Start => "start".to_owned(),
            Self::Greet => "greet and close".to_owned(),
            Self::Request => "request, reply and close".to_owned(),
            Self::Echo { clients, ahead: 1, size } => format!("echo of {size} bytes, {clients} clients"),
            Self::Echo { clients, ahead, size } => {
                format!("echo of {size} bytes, {clients} clients, {ahead} in flight each")
            }
            Self::Idle => "an idle connection".to_owned(),
            Self::Handshake => "TLS: full handshake".to_owned(),
            Self::Resumption => "TLS: resumed handshake".to_owned(),
            Self::Download => "TLS: sending a MiB".to_owned(),
            Self::Upload => "TLS: receiving a MiB".to_owned(),
            Self::TlsIdle => "TLS: an idle connection".to_owned(),
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Self::Start => "ms",
            Self::Idle | Self::TlsIdle => "KiB",
            _ => "µs",
        }
    }

    /// What the server is to do.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Greet => "greet",
            Self::Request | Self::Idle | Self::Start => "echo",
            Self::Echo { size, .. } => {
                if size > 8192 {
                    "bulk"
                } else {
                    "echo"
                }
            }
            Self::Handshake | Self::Resumption | Self::Download | Self::Upload | Self::TlsIdle => "tls",
        }
    }

    /// Goes on until then, and returns how much was served: connections, messages, MiB. The least is one of each client.
    pub fn run(self, address: &str, end: Instant) -> f64 {
        match self {
            Self::Greet => short_connections(address, b"", end),
            Self::Request => short_connections(address, &[7; 64], end),
            Self::Echo { clients, ahead, size } => echo(address, clients, ahead * size, end) / size as f64,
            _ => tls::run(self, address, end),
        }
    }

    /// Clients that have had one answer, and are silent.
    pub fn crowd(self, address: &str, count: usize) -> Vec<Box<dyn Read>> {
        let plain = || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&[7; 64]).unwrap();
            stream.read_exact(&mut [0; 64]).unwrap();
            Box::new(stream) as Box<dyn Read>
        };
        (0..count).map(|_| if self == Self::TlsIdle { tls::idle(address) } else { plain() }).collect()
    }
}

struct Client {
    stream: TcpStream,
    sent: usize,
    received: usize,
}

impl Client {
    fn connect(address: &str, number: usize, epoll: &Epoll, events: EpollFlags) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        epoll.add(&stream, EpollEvent::new(events, number as u64)).unwrap();
        Self { stream, sent: 0, received: 0 }
    }

    /// As much as the kernel takes.
    fn send(&mut self, data: &[u8]) {
        match self.stream.write(data) {
            Ok(n) => self.sent += n,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
        }
    }

    /// The number of bytes that have come; 0 at the end; `None` when there is nothing now.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.stream.read(buffer) {
            Ok(n) => {
                self.received += n;
                Some(n)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("{e}"),
        }
    }
}

/// Calls the function with the number of each client that has something to do, until it has said of each that it is done.
fn drive(epoll: &Epoll, mut left: usize, mut is_done: impl FnMut(usize) -> bool) {
    let mut events = [EpollEvent::empty(); 256];
    while left > 0 {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_000_u16)).unwrap();
        assert!(count > 0, "the server is silent");
        left -= events[..count].iter().filter(|event| is_done(event.data() as usize)).count();
    }
}

fn epoll() -> Epoll {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap()
}

/// Without a request the server speaks first.
fn short_connections(address: &str, request: &[u8], end: Instant) -> f64 {
    let epoll = epoll();
    let connect = |number| {
        let mut client = Client::connect(address, number, &epoll, EpollFlags::EPOLLIN);
        if !request.is_empty() {
            client.send(request);
        }
        client
    };
    let answer = if request.is_empty() { GREETING.len() } else { request.len() };
    let mut clients: Vec<Client> = (0..IN_FLIGHT).map(connect).collect();
    let (mut served, mut buffer) = (0.0, [0; 4096]);
    drive(&epoll, IN_FLIGHT, |number| {
        let client = &mut clients[number];
        match client.receive(&mut buffer) {
            None => return false,
            Some(0) => assert_eq!(client.received, answer, "bytes of an answer"),
            Some(_) => {
                if client.received == request.len() {
                    client.stream.shutdown(Shutdown::Write).unwrap();
                }
                return false;
            }
        }
        served += 1.0;
        let goes_on = Instant::now() < end;
        // A reset, after all has been read: it leaves no port in TIME-WAIT at the server.
        setsockopt(&client.stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        if goes_on {
            *client = connect(number);
        } else {
            epoll.delete(&client.stream).unwrap();
        }
        !goes_on
    });
    served
}

/// The number of bytes that have come back. `window` bytes of each client are on the way.
fn echo(address: &str, clients: usize, window: usize, end: Instant) -> f64 {
    let epoll = epoll();
    let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    let mut clients: Vec<_> = (0..clients).map(|number| Client::connect(address, number, &epoll, events)).collect();
    let (data, mut buffer) = (vec![7; window], vec![0; 65536]);
    drive(&epoll, clients.len(), |number| {
        let client = &mut clients[number];
        let goes_on = |client: &Client| client.sent < window || Instant::now() < end;
        loop {
            let received = client.receive(&mut buffer);
            assert_ne!(received, Some(0), "the server has closed");
            let room = window - (client.sent - client.received);
            if room > 0 && goes_on(client) {
                client.send(&data[..room.min(window)]);
            }
            if received.unwrap_or(0) < buffer.len() {
                break;
            }
        }
        let is_done = client.sent == client.received && !goes_on(client);
        if is_done {
            epoll.delete(&client.stream).unwrap();
        }
        is_done
    });
    clients.iter().map(|client| client.received).sum::<usize>() as f64
}
