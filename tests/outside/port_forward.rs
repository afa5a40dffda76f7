//! The port forwarder. What goes in on one side comes out on the other, at the pace of the slower one, and each end
//! comes out too.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::kit::read;
use crate::support::{procfs, tool, until, Server, AT_ONCE};
use nix::sys::socket::{setsockopt, sockopt};

const LONG: Duration = Duration::from_secs(30);
const MANY: usize = 20_000_000;

/// A byte that tells where it is.
fn byte(at: usize) -> u8 {
    (at % 251) as u8
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(byte).collect()
}

/// Where connections are forwarded to: the test plays the server.
struct Target {
    listener: TcpListener,
    forwarder: Server,
}

impl Target {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// With the listener set up so; connections inherit that.
    fn with(set_up: fn(&TcpListener)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_up(&listener);
        let to = listener.local_addr().unwrap().to_string();
        Self { listener, forwarder: Server::start("port_forward", &["--to", &to]) }
    }

    /// A client, and its connection at the server.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let client = patient(TcpStream::connect(self.forwarder.addr()).unwrap());
        (client, patient(self.listener.accept().unwrap().0))
    }

    /// What the forwarder has open without any connection. Counted beside a pair: it may have said where it listens and
    /// not yet opened all that it serves with.
    fn idle_fds(&self) -> usize {
        let pair = self.pair();
        let fds = procfs::fds(self.forwarder.pid()) - 2;
        drop(pair);
        self.until_idle(fds);
        fds
    }

    /// Nothing of any connection is left.
    fn until_idle(&self, fds: usize) {
        until("the forwarder has let go of all connections", || procfs::fds(self.forwarder.pid()) == fds);
    }
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

fn sends(stream: &TcpStream, len: usize) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || {
        stream.write_all(&bytes(len)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

/// Reads to the end, a little at a time.
fn receives(stream: &TcpStream, len: usize) {
    let (mut stream, mut got, mut buffer) = (stream, 0, [0; 10_000]);
    loop {
        match read(&mut stream, &mut buffer).unwrap() {
            0 => break,
            n => {
                assert!(buffer[..n].iter().enumerate().all(|(i, b)| *b == byte(got + i)), "at {got}");
                got += n;
            }
        }
    }
    assert_eq!(got, len);
}

fn small_buffers(socket: &impl std::os::fd::AsFd) {
    setsockopt(socket, sockopt::RcvBuf, &(32 << 10)).unwrap();
    setsockopt(socket, sockopt::SndBuf, &(32 << 10)).unwrap();
}

/// Twisted's `test_portforward`, through an echo server.
#[test]
fn a_thousand_x_come_back_from_the_echo_server() {
    let echo = Server::start("echo_server", &[]);
    let mut forwarder = Server::start("port_forward", &["--to", echo.addr()]);
    let mut client = forwarder.connect();
    for _ in 0..1000 {
        client.send("x");
    }
    client.half_close();
    assert_eq!(client.rest(), "x".repeat(1000));
    forwarder.term().well_within(AT_ONCE);
}

#[test]
fn large_transfers_pass_in_both_directions_through_small_buffers() {
    let target = Target::with(small_buffers);
    let fds = target.idle_fds();
    let (client, server) = target.pair();
    small_buffers(&client);
    let sending = [sends(&client, MANY / 4), sends(&server, MANY / 8)];
    let receiving = thread::spawn(move || receives(&server, MANY / 4));
    receives(&client, MANY / 8);
    drop(client);
    receiving.join().unwrap();
    sending.into_iter().for_each(|thread| thread.join().unwrap());
    target.until_idle(fds);
}

/// Where each direction is for itself, a client that reads nothing until it has sent all gets everything.
#[test]
fn a_long_answer_that_nobody_reads_yet_does_not_hold_up_the_other_direction() {
    let target = Target::new();
    let (client, server) = target.pair();
    let answers = sends(&server, MANY);
    let reads = thread::spawn(move || receives(&server, MANY));
    sends(&client, MANY).join().unwrap();
    reads.join().unwrap();
    receives(&client, MANY);
    answers.join().unwrap();
}

#[test]
fn each_side_s_end_is_carried_over_while_the_other_direction_goes_on() {
    let target = Target::new();
    let fds = target.idle_fds();
    for client_first in [true, false] {
        let (client, server) = target.pair();
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        first.write_all(b"question").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        second.write_all(b"answer ").unwrap();
        first.read_exact(&mut [0; 7]).unwrap();
        second.write_all(b"and more").unwrap();
        second.shutdown(Shutdown::Write).unwrap();
        heard.clear();
        first.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "and more");
        target.until_idle(fds);
    }
}

#[test]
fn p10_netcat_that_half_closes_gets_all_of_the_answer() {
    let Some(mut nc) = tool("nc") else { return };
    let target = Target::new();
    let port = target.forwarder.port().to_string();
    let mut nc = nc.args(["-N", "127.0.0.1", &port]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    nc.stdin.take().unwrap().write_all(b"question").unwrap();
    let mut server = patient(target.listener.accept().unwrap().0);
    assert_eq!(io::read_to_string(&server).unwrap(), "question");
    let answer = thread::spawn(move || server.write_all(&bytes(MANY)).unwrap());
    let output = nc.wait_with_output().unwrap();
    answer.join().unwrap();
    assert!(output.stdout == bytes(MANY), "{} bytes", output.stdout.len());
}

#[test]
fn a_reader_that_stops_costs_bounded_memory_and_no_time() {
    let target = Target::new();
    let (client, server) = target.pair();
    let before = procfs::rss_kib(target.forwarder.pid());
    let (sent, progress) = mpsc::channel();
    let mut sender = client.try_clone().unwrap();
    let sending = thread::spawn(move || {
        for _ in 0..1000 {
            sender.write_all(&[b'x'; 100_000]).unwrap();
            sent.send(()).unwrap();
        }
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut pieces = 0;
    while progress.recv_timeout(Duration::from_millis(500)).is_ok() {
        pieces += 1;
    }
    assert!(pieces < 300, "{pieces} of 1000 pieces were taken, that nobody reads"); // the kernel's buffers
    let grown = procfs::rss_kib(target.forwarder.pid()).saturating_sub(before);
    assert!(grown < 4000, "{grown} KiB");
    let ticks = procfs::ticks(target.forwarder.pid());
    thread::sleep(Duration::from_millis(300)); // in which it shall do nothing
    assert!(procfs::ticks(target.forwarder.pid()) - ticks < 5, "it spins");
    let (mut server, mut got) = (server, 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match read(&mut server, &mut buffer).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, 100_000_000);
    sending.join().unwrap();
}

#[test]
fn a_target_that_refuses_closes_its_client() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut forwarder = Server::start("port_forward", &["--to", &nobody]);
    assert_eq!(forwarder.connect().until_closed(), b"");
    let fds = procfs::fds(forwarder.pid()); // it serves by now, and has what it needs for that
    for _ in 0..3 {
        let mut client = forwarder.connect();
        assert_eq!(client.until_closed(), b"");
    }
    forwarder.until_logged(&nobody);
    until("nothing is left", || procfs::fds(forwarder.pid()) <= fds);
    assert!(forwarder.is_running());
    forwarder.term().well_within(AT_ONCE);
}

#[test]
fn a_reset_of_one_side_is_a_reset_of_the_other() {
    let target = Target::new();
    let fds = target.idle_fds();
    for client_first in [true, false] {
        let (client, server) = target.pair();
        let (mut broken, mut other) = if client_first { (client, server) } else { (server, client) };
        broken.write_all(b"x").unwrap();
        other.read_exact(&mut [0]).unwrap();
        setsockopt(&broken, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(broken);
        assert_eq!(read(&mut other, &mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        target.until_idle(fds);
    }
}

#[test]
fn many_clients_at_once_each_get_their_own() {
    let target = Target::new();
    let clients: Vec<_> = (0..50).map(|_| patient(TcpStream::connect(target.forwarder.addr()).unwrap())).collect();
    for (n, mut client) in clients.iter().enumerate() {
        write!(client, "client {n}").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    for _ in &clients {
        let mut server = patient(target.listener.accept().unwrap().0);
        let heard = io::read_to_string(&server).unwrap();
        write!(server, "answer to {heard}").unwrap();
    }
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(io::read_to_string(client).unwrap(), format!("answer to client {n}"));
    }
}
