//! S7 to S12: three clients send a line as a datagram and get it back, then the server stops, and nothing of it is left.
//! And the trap of CPython's datagram handlers.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;

use socketserver::strategy::ServingStrategy;
use socketserver::{datagram_handler, Addr, Sequential, ServerBuilder, Threading};

use crate::kit::datagrams::{client_of, next_unix, nothing_for, receive, send, unix_client, EchoBack, Receiving};
use crate::kit::Folder;
use crate::support::{procfs, tool, until, Server, AT_ONCE, LIMIT};

fn over_udp(strategy: impl ServingStrategy + 'static) {
    let server = receive(ServerBuilder::new().strategy(strategy).bind_udp("127.0.0.1:0", EchoBack).unwrap());
    let addr = server.addr();
    assert_ne!(addr.port(), 0, "the port that port 0 has become");
    (0..3).for_each(|_| assert_eq!(server.ask("hello world\n"), "hello world\n"));
    assert_eq!(server.stop().served, 3);
    until("its address is free", || UdpSocket::bind(addr).is_ok()); // a program that another test starts has it for a moment
}

fn over_unix(strategy: impl ServingStrategy + 'static) {
    let folder = Folder::new();
    let path = folder.path("socket");
    let server = ServerBuilder::new().strategy(strategy).bind_unix_datagram(&path, EchoBack).unwrap();
    let server = receive(server);
    assert_eq!(server.local, Addr::Unix(path.clone()));
    for n in 0..3 {
        let client = unix_client(&folder.path(&n.to_string()), &path);
        client.send(b"hello world\n").unwrap();
        assert_eq!(next_unix(&client), b"hello world\n");
    }
    assert_eq!(server.stop().served, 3);
    assert!(!path.exists(), "which CPython leaves to its user");
}

/// A server that forks has one thread, so it is a process of its own, see `echo.rs`.
fn forking(addr: &str, ask: impl Fn(&Server, &str) -> String) {
    let mut server = Server::start_at(addr, "udp_server", &["--strategy", "forking"]);
    for _ in 0..3 {
        assert_eq!(ask(&server, "hello world\n"), "HELLO WORLD\n");
        assert_ne!(ask(&server, "pid").trim(), server.pid().to_string());
    }
    until("all are reaped", || procfs::descendants(server.pid()).is_empty());
    server.term().well_within(AT_ONCE);
    server.until_logged("accepted 6, served 6");
}

/// `test_UDPServer`
#[test]
fn s07_a_udp_server_serves_one_after_the_other() {
    over_udp(Sequential);
}

/// `test_ThreadingUDPServer`
#[test]
fn s08_a_threading_udp_server_serves() {
    over_udp(Threading::new());
}

/// `test_ForkingUDPServer`
#[test]
fn s09_a_forking_udp_server_serves_and_leaves_no_child() {
    forking("127.0.0.1:0", |server, text| {
        let client = client_of(server.addr().parse().unwrap());
        send(&client, text);
        crate::kit::datagrams::next(&client)
    });
}

/// `test_UnixDatagramServer`
#[test]
fn s10_a_unix_datagram_server_serves_one_after_the_other() {
    over_unix(Sequential);
}

/// `test_ThreadingUnixDatagramServer`
#[test]
fn s11_a_threading_unix_datagram_server_serves() {
    over_unix(Threading::new());
}

/// `test_ForkingUnixDatagramServer`
#[test]
fn s12_a_forking_unix_datagram_server_serves_and_leaves_no_child() {
    let folder = Folder::new();
    let path = folder.path("socket");
    forking(&format!("unix:{}", path.display()), |_, text| {
        let client = UnixDatagram::bind(folder.path("client")).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.send_to(text.as_bytes(), &path).unwrap();
        let answer = String::from_utf8(next_unix(&client)).unwrap();
        std::fs::remove_file(folder.path("client")).unwrap();
        answer
    });
    assert!(!path.exists());
}

/// The same as S8 and S11 with the clients of CPython's own tests.
#[test]
fn s08_s11_cpythons_client_is_answered() {
    let Some(mut python) = tool("python3") else { return };
    let folder = Folder::new();
    let udp = receive(ServerBuilder::new().bind_udp("127.0.0.1:0", EchoBack).unwrap());
    let unix = receive(ServerBuilder::new().bind_unix_datagram(folder.path("socket"), EchoBack).unwrap());
    // `receive` and `dgram_examine` of CPython's test_socketserver.py.
    let script = "\
import select, socket, sys
def receive(sock, n, timeout=30):
    r, w, x = select.select([sock], [], [], timeout)
    if sock in r:
        return sock.recv(n)
    raise RuntimeError('timed out on %r' % (sock,))
def dgram_examine(family, addr, own):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        if family == socket.AF_UNIX:
            s.bind(own)
        s.sendto(b'hello world\\n', addr)
        buf = data = receive(s, 100)
        while data and b'\\n' not in buf:
            data = receive(s, 100)
            buf += data
        assert buf == b'hello world\\n', buf
for n in range(3):
    dgram_examine(socket.AF_INET, ('127.0.0.1', int(sys.argv[1])), None)
    dgram_examine(socket.AF_UNIX, sys.argv[2], sys.argv[2] + str(n))
";
    let told = python.args(["-c", script, &udp.addr().port().to_string()]).arg(folder.path("socket")).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!((udp.stop().served, unix.stop().served), (3, 3));
}

/// 25: an empty reply was sent where none was written. After an error, what had been written was sent. What was too
/// long for the buffer was cut without a word.
#[test]
fn trap_25_a_reply_goes_when_there_is_one_and_after_success_only() {
    let handler = datagram_handler(|datagram| {
        match datagram.data() {
            b"silent" => {}
            b"fail" => {
                datagram.write_all(b"half")?;
                return Err("as it was told".into());
            }
            data => {
                let told = (data.len(), datagram.original_len(), datagram.is_truncated());
                write!(datagram, "{told:?}")?;
            }
        }
        Ok(())
    });
    let server: Receiving = receive(ServerBuilder::new().bind_udp("127.0.0.1:0", handler).unwrap());
    let client = server.client();
    for (n, text) in ["silent", "fail"].iter().enumerate() {
        send(&client, text);
        until("it is done", || server.handle.stats().served + server.handle.stats().failed == n as u64 + 1);
        assert!(nothing_for(&client), "{text}");
    }
    assert_eq!(server.ask(&"x".repeat(20_000)), "(20000, 20000, false)", "Python's 8192 are too few");
    let handler = datagram_handler(|datagram| {
        let told = (datagram.data().len(), datagram.original_len(), datagram.is_truncated());
        Ok(write!(datagram, "{told:?}")?)
    });
    let small = receive(ServerBuilder::new().max_packet_size(8192).bind_udp("127.0.0.1:0", handler).unwrap());
    assert_eq!(small.ask(&"x".repeat(20_000)), "(8192, 20000, true)");
}
