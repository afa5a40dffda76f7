//! S1 to S6: three clients send a line and get it back, then the server stops, and nothing of it is left. S7 to S12 are
//! the same with datagrams, see `datagrams.rs`.

use std::net::TcpStream;

use socketserver::strategy::ServingStrategy;
use socketserver::testing::TestServer;
use socketserver::{Addr, Sequential, ServerBuilder, Threading};

use crate::kit::{Folder, Lines};
use crate::support::{procfs, tool, until, Server, AT_ONCE};
use crate::until_closed;

fn three_clients(server: &TestServer) {
    for _ in 0..3 {
        let mut client = server.connect();
        assert_eq!(client.ask("hello world"), "hello world");
        client.end();
        assert_eq!(client.rest(), b"");
    }
}

/// At an address of its own: a port that has just become free may be another test's at once.
fn over_tcp(strategy: impl ServingStrategy + 'static, address: &str) {
    let server = TestServer::with(ServerBuilder::new().strategy(strategy).listen(address), Lines);
    let addr = server.addr();
    assert_ne!(addr.port(), 0, "the port that port 0 has become");
    assert_eq!(TcpStream::connect(addr).unwrap().peer_addr().unwrap(), addr);
    three_clients(&server);
    assert_eq!(server.stop().served, 4);
    until_closed(addr);
}

fn over_unix(strategy: impl ServingStrategy + 'static) {
    let folder = Folder::new();
    let path = folder.path("socket");
    let server = ServerBuilder::new().strategy(strategy).bind_unix(&path, Lines).unwrap();
    let server = TestServer::of(server);
    assert_eq!(*server.local_addr(), Addr::Unix(path.clone()));
    three_clients(&server);
    assert_eq!(server.stop().served, 3);
    assert!(!path.exists(), "which CPython leaves to its user");
}

/// A server that forks has one thread, so it is a process of its own. That children of others are left to them, with
/// their exit status 72, shows `h12_the_ends_of_other_children_stay_theirs` of `fork_programs`.
fn forking(addr: &str) {
    let mut server = Server::start_at(addr, "torture_server", &["--strategy", "forking"]);
    for _ in 0..3 {
        let mut client = server.connect();
        assert_eq!(client.ask("ECHO hello world"), "hello world");
        let child = client.ask("PID");
        assert_ne!(child.split(' ').next(), Some(server.pid().to_string().as_str()));
        client.half_close();
        assert_eq!(client.rest(), "");
    }
    server.until_stats("all have ended", |stats| stats["active"] == 1 && stats["served"] >= 3);
    until("all are reaped", || procfs::zombies(server.pid()) == 0);
    server.term().well_within(AT_ONCE);
    assert_eq!(procfs::descendants(server.pid()), []);
}

/// `test_TCPServer`
#[test]
fn s01_a_tcp_server_serves_one_after_the_other() {
    over_tcp(Sequential, "127.0.1.1:0");
}

/// `test_ThreadingTCPServer`
#[test]
fn s02_a_threading_tcp_server_serves() {
    over_tcp(Threading::new(), "127.0.1.2:0");
}

/// `test_ForkingTCPServer`
#[test]
fn s03_a_forking_tcp_server_serves_and_leaves_no_child() {
    forking("127.0.0.1:0");
}

/// `test_UnixStreamServer`
#[test]
fn s04_a_unix_server_serves_one_after_the_other() {
    over_unix(Sequential);
}

/// `test_ThreadingUnixStreamServer`
#[test]
fn s05_a_threading_unix_server_serves() {
    over_unix(Threading::new());
}

/// `test_ForkingUnixStreamServer`
#[test]
fn s06_a_forking_unix_server_serves_and_leaves_no_child() {
    let folder = Folder::new();
    let path = folder.path("socket");
    forking(&format!("unix:{}", path.display()));
    assert!(!path.exists());
}

/// The same as S2 and S5 with the clients of CPython's own tests.
#[test]
fn s02_s05_cpythons_client_is_answered() {
    let Some(mut python) = tool("python3") else { return };
    let tcp = TestServer::start(Lines);
    let unix = TestServer::unix(ServerBuilder::new(), Lines);
    let Addr::Unix(path) = unix.local_addr() else { panic!("{}", unix.local_addr()) };
    // `receive` and `stream_examine` of CPython's test_socketserver.py.
    let script = "\
import select, socket, sys
def receive(sock, n, timeout=30):
    r, w, x = select.select([sock], [], [], timeout)
    if sock in r:
        return sock.recv(n)
    raise RuntimeError('timed out on %r' % (sock,))
def stream_examine(family, addr):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.connect(addr)
        s.sendall(b'hello world\\n')
        buf = data = receive(s, 100)
        while data and b'\\n' not in buf:
            data = receive(s, 100)
            buf += data
        assert buf == b'hello world\\n', buf
for _ in range(3):
    stream_examine(socket.AF_INET, ('127.0.0.1', int(sys.argv[1])))
    stream_examine(socket.AF_UNIX, sys.argv[2])
";
    let told = python.args(["-c", script, &tcp.addr().port().to_string()]).arg(path).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    assert_eq!((tcp.stop().served, unix.stop().served), (3, 3));
}
