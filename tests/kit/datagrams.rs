//! Servers of datagrams on a thread of their own, and clients that never wait for ever.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::JoinHandle;

use socketserver::strategy::ServingStrategy;
use socketserver::{Addr, Datagram, DatagramRequestHandler, Error, HandlerResult, Report, ServerHandle, UdpServer};

use super::{uninterrupted, until, LONG};

/// Sends back what it gets, as CPython's test does.
#[derive(Debug)]
pub struct EchoBack;

impl DatagramRequestHandler for EchoBack {
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        let data = datagram.data().to_vec();
        Ok(datagram.write_all(&data)?)
    }
}

/// A server that serves on a thread of its own; dropped, it is stopped and joined.
pub struct Receiving {
    pub local: Addr,
    pub handle: ServerHandle,
    thread: Option<JoinHandle<Result<Report, Error>>>,
}

pub fn receive<H, S>(mut server: UdpServer<H, S>) -> Receiving
where
    H: DatagramRequestHandler,
    S: ServingStrategy + 'static,
{
    let (local, handle) = (server.local_addr().clone(), server.handle());
    Receiving { local, handle, thread: Some(super::on_a_thread(Box::new(move || server.serve_forever()))) }
}

impl Receiving {
    pub fn addr(&self) -> SocketAddr {
        self.local.socket_addr().expect("a UDP server")
    }

    /// A client of this server only.
    pub fn client(&self) -> UdpSocket {
        client_of(self.addr())
    }

    pub fn ask(&self, text: &str) -> String {
        let client = self.client();
        client.send(text.as_bytes()).expect("send");
        next(&client)
    }

    pub fn stop(mut self) -> Report {
        self.handle.shutdown();
        self.joined()
    }

    /// Waits for its end, which somebody else has asked for.
    pub fn joined(&mut self) -> Report {
        let thread = self.thread.take().expect("joined once");
        until("the server returns", || thread.is_finished());
        thread.join().expect("the server does not panic").expect("the server does not fail")
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.handle.shutdown_now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket of the loopback that talks to this address only.
pub fn client_of(addr: SocketAddr) -> UdpSocket {
    let any = if addr.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let client = UdpSocket::bind(any).expect("bind");
    client.set_read_timeout(Some(LONG)).expect("a limit");
    client.connect(addr).expect("connect");
    client
}

pub fn send(client: &UdpSocket, text: impl AsRef<[u8]>) {
    client.send(text.as_ref()).expect("send");
}

/// The next datagram, as text.
pub fn next(client: &UdpSocket) -> String {
    let mut buf = vec![0; 1 << 16];
    let n = uninterrupted(|| client.recv(&mut buf)).expect("a datagram");
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

/// Whether there is none. What a server is to send comes before it has counted the request.
pub fn nothing_for(client: &UdpSocket) -> bool {
    client.set_nonblocking(true).expect("no wait");
    let none = client.recv(&mut [0; 1]).is_err();
    client.set_nonblocking(false).expect("wait again");
    none
}

/// A Unix socket at this path, that talks to the other one.
pub fn unix_client(path: &Path, server: &Path) -> UnixDatagram {
    let client = UnixDatagram::bind(path).expect("bind");
    client.set_read_timeout(Some(LONG)).expect("a limit");
    client.connect(server).expect("connect");
    client
}

pub fn next_unix(client: &UnixDatagram) -> Vec<u8> {
    let mut buf = vec![0; 1 << 18];
    let n = uninterrupted(|| client.recv(&mut buf)).expect("a datagram");
    buf.truncate(n);
    buf
}
