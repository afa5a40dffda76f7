//! The credentials of the process at the other end of a Unix socket, and the users that may connect.

use crate::kit;
use std::fs;
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;

use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};

use crate::kit::{read_all, serve, strategies, Folder, LONG};
use crate::support::{comes_true, procfs, tool, Server};
use socketserver::connection::PeerCredentials;
use socketserver::event_loop::{Connect, DatagramProtocol, DatagramTransport};
use socketserver::{factory, handler, Addr, EventLoop, HandlerResult, Protocol, Reactor, ServerBuilder, Transport};

fn told(peer: Option<PeerCredentials>) -> String {
    peer.map_or("nobody".to_owned(), |p| format!("{} {} {}", p.pid, p.uid, p.gid))
}

fn telling() -> impl socketserver::StreamRequestHandler {
    handler(|conn| Ok(conn.write_all(told(conn.peer_credentials()?).as_bytes())?))
}

fn hear(path: &Path) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    read_all(&mut client)
}

/// This process, as a server sees it.
fn me() -> String {
    let process = fs::metadata("/proc/self").unwrap();
    format!("{} {} {}", std::process::id(), process.uid(), process.gid())
}

#[test]
fn a_handler_learns_process_user_and_group() {
    for (name, strategy) in strategies() {
        let folder = Folder::new();
        let builder = ServerBuilder::new().strategy(strategy).listen("127.0.0.1:0");
        let server = builder.bind_unix(folder.path("s"), telling()).unwrap();
        let tcp = server.local_addrs().find_map(socketserver::Addr::socket_addr).unwrap();
        let _server = serve(server);
        assert_eq!(hear(&folder.path("s")), me(), "{name}");
        assert_eq!(kit::ask(tcp, ""), "nobody", "{name}: TCP");
    }
}

struct Telling;

impl Protocol for Telling {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        let peer = told(transport.peer_credentials()?);
        transport.write(peer.as_bytes())?;
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn so_does_a_protocol() {
    let folder = Folder::new();
    let builder = ServerBuilder::new().strategy(EventLoop::new()).listen("127.0.0.1:0");
    let server = builder.bind_unix(folder.path("s"), factory(|_peer| Telling)).unwrap();
    let tcp = server.local_addrs().find_map(socketserver::Addr::socket_addr).unwrap();
    let _server = serve(server);
    assert_eq!(hear(&folder.path("s")), me());
    assert_eq!(kit::ask(tcp, ""), "nobody");
}

/// Connects as nobody, and prints what it hears.
const CLIENT: &str = "
import os, socket, sys
os.setgroups([]); os.setgid(65533); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    heard = client.recv(100).decode()
    print('me' if heard == f'{os.getpid()} 65534 65533' else heard)
except PermissionError as e:
    print('EACCES' if e.errno == 13 else e)
";

#[test]
fn x9_another_user_is_told_or_kept_out_by_the_mode() {
    let Some(_) = tool("python3") else { return };
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return println!("skipped: only root can be another user");
    }
    for (mode, heard) in [(0o666, "me"), (0o600, "EACCES"), (0o660, "EACCES")] {
        let folder = Folder::new();
        let path = folder.path("s");
        let _server = serve(ServerBuilder::new().unix_mode(mode).bind_unix(&path, telling()).unwrap());
        let mut python = tool("python3").unwrap();
        let output = python.args(["-c", CLIENT]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), heard, "{output:?}");
        assert_eq!(hear(&path), me());
    }
}

// ---- descriptors that a peer passes ----

const MESSAGES: usize = 120;

/// A file that a test passes to servers. It has a name of its own in `/proc`.
struct Passed {
    name: String,
    file: OwnedFd,
}

impl Passed {
    fn new(name: &str) -> Self {
        let name = format!("passed-{name}-{}", std::process::id());
        let file = nix::sys::memfd::memfd_create(name.as_str(), nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        Self { name, file }
    }

    /// Sends a message with twelve descriptors of the file.
    fn with(&self, socket: &impl AsRawFd, message: &[u8]) {
        let descriptors = [self.file.as_raw_fd(); 12];
        let (parts, rights) = ([IoSlice::new(message)], [ControlMessage::ScmRights(&descriptors)]);
        let sent = sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None);
        assert_eq!(sent.unwrap(), message.len());
    }

    /// Waits until no process of this machine has the file, but for this test's own descriptor.
    fn is_kept_by_nobody(&self, server: &str) {
        let mut kept = 0;
        let is_it =
            |fd: &fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains(&self.name));
        let gone = comes_true(LONG, || {
            let processes = procfs::pids().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
            kept = processes.flat_map(Iterator::flatten).filter(is_it).count() - 1;
            kept == 0
        });
        assert!(gone, "{server}: {kept} descriptors are kept");
    }
}

fn server_at(folder: &Folder, name: &str, args: &[&str]) -> Server {
    Server::start_at(&format!("unix:{}", folder.path("s").display()), name, args)
}

#[test]
fn descriptors_passed_over_a_stream_are_closed() {
    let passed = Passed::new("streams");
    for args in [
        "--strategy sequential",
        "--strategy threading",
        "--strategy thread-pool",
        "--strategy forking",
        "--strategy event-loop",
        "--strategy event-loops",
        "--strategy preforking --workers 1",
        "--strategy threading --as protocol",
    ] {
        let folder = Folder::new();
        let server = server_at(&folder, "echo_server", &args.split(' ').collect::<Vec<_>>());
        let mut client = UnixStream::connect(folder.path("s")).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        for _ in 0..MESSAGES {
            passed.with(&client, b"hello");
            kit::expect(&mut client, "hello");
        }
        passed.is_kept_by_nobody(args);
        drop(server);
    }
}

#[test]
fn descriptors_passed_with_a_datagram_are_closed() {
    let passed = Passed::new("datagrams");
    let servers = [
        ("udp_server", "--strategy sequential"),
        ("udp_server", "--strategy threading"),
        ("udp_server", "--strategy thread-pool"),
        ("udp_server", "--strategy forking"),
        ("udp_echo_loop", ""),
    ];
    for (name, args) in servers {
        let folder = Folder::new();
        let server = server_at(&folder, name, &args.split_terminator(' ').collect::<Vec<_>>());
        let client = kit::datagrams::unix_client(&folder.path("c"), &folder.path("s"));
        for _ in 0..MESSAGES {
            passed.with(&client, b"HELLO\n");
            assert_eq!(kit::datagrams::next_unix(&client), b"HELLO\n");
        }
        passed.is_kept_by_nobody(&format!("{name} {args}"));
        drop(server);
    }
}

/// Takes what comes.
struct Taking(Arc<AtomicUsize>);

impl Protocol for Taking {
    fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.0.fetch_add(data.len(), SeqCst);
        Ok(())
    }
}

impl DatagramProtocol for Taking {
    fn start_protocol(&mut self, transport: &mut DatagramTransport<'_>) -> HandlerResult {
        let peer = transport.local_addr().to_string().replace("/client", "/peer");
        transport.connect(&peer.parse()?)?;
        transport.write(b"here I am")?;
        Ok(())
    }

    fn datagram_received(&mut self, _: &mut DatagramTransport<'_>, data: &[u8], _: &Addr) -> HandlerResult {
        self.0.fetch_add(data.len(), SeqCst);
        Ok(())
    }
}

#[test]
fn descriptors_passed_to_the_loop_s_own_clients_are_closed() {
    let (folder, passed) = (Folder::new(), Passed::new("clients"));
    let mut reactor = Reactor::new().unwrap();
    let got = Arc::new(AtomicUsize::new(0));
    let pass_all = |reactor: &mut Reactor, to: &dyn Fn()| {
        got.store(0, SeqCst);
        for n in 1..=MESSAGES {
            to();
            kit::until("it has come", || {
                reactor.turn(Some(kit::ms(1))).unwrap();
                got.load(SeqCst) == n
            });
        }
    };

    let listener = UnixListener::bind(folder.path("listener")).unwrap();
    reactor.context().connect(Connect::to(folder.path("listener")), {
        let got = got.clone();
        factory(move |_peer| Taking(got.clone()))
    });
    reactor.turn(Some(kit::ms(0))).unwrap();
    let (peer, _) = listener.accept().unwrap();
    pass_all(&mut reactor, &|| passed.with(&peer, b"x"));
    passed.is_kept_by_nobody("a connection");

    let peer = UnixDatagram::bind(folder.path("peer")).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    reactor.listen_udp(folder.path("client"), Taking(got.clone())).unwrap();
    reactor.turn(Some(kit::ms(0))).unwrap();
    assert_eq!(kit::datagrams::next_unix(&peer), b"here I am");
    peer.connect(folder.path("client")).unwrap();
    pass_all(&mut reactor, &|| passed.with(&peer, b"x"));
    passed.is_kept_by_nobody("a connected datagram socket");
}
