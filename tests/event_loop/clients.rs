//! Clients: connecting and failing to, over sockets and in memory; connecting again; what a stop makes of it.

use crate::kit;
use std::cell::RefCell;
use std::io::Write;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::kit::{expect, ms, read_all, Folder, LONG};
use crate::script::clients::Client;
use crate::script::{Journal, Script};
use socketserver::event_loop::{Connect, ConnectorState, Factory, Peer};
use socketserver::{
    factory, Addr, Address, Context, EventLoop, Failure, HandlerResult, Protocol, Reactor, ServerBuilder, Transport,
};

const SECOND: Duration = Duration::from_secs(1);

fn turn_until(reactor: &mut Reactor, what: &str, mut done: impl FnMut(&mut Reactor) -> bool) {
    let by = Instant::now() + LONG;
    while !done(reactor) {
        assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
        reactor.turn(Some(ms(10))).unwrap();
    }
}

/// Runs until nothing is left of the client; its last failure's text.
fn attempt(to: Connect) -> (String, String) {
    let (mut reactor, journal, text) = (Reactor::new().unwrap(), Journal::default(), Rc::new(RefCell::default()));
    let texts = text.clone();
    let client = Client::new(&journal).on_failure(move |_, error| *texts.borrow_mut() = error.to_string());
    reactor.context().connect(to, client);
    turn_until(&mut reactor, "the attempt ends", |_| journal.count("stop") == 1);
    (journal.take(), text.take())
}

#[test]
fn a_client_converses_and_each_side_knows_the_other_s_address() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let client = Client::new(&journal).with(|journal| {
        Some(Script::new(journal).on("made", |t, _| {
            let (local, peer) = (t.local_addr(), t.peer_addr());
            Ok(write!(t, "{local} {peer} ")?)
        }))
    });
    let connector = reactor.context().connect_tcp(addr, client);
    assert_eq!(reactor.context().connector_state(connector), ConnectorState::Connecting);
    assert_eq!(journal.take(), "", "nothing begins before the first turn");
    turn_until(&mut reactor, "it is connected", |r| {
        r.context().connector_state(connector) == ConnectorState::Connected
    });
    let (mut theirs, peer) = server.accept().unwrap();
    turn_until(&mut reactor, "it has told", |_| journal.count("made") == 1);
    expect(&mut theirs, &format!("{peer} {addr} "));
    theirs.write_all(b"hello").unwrap();
    drop(theirs);
    turn_until(&mut reactor, "nothing is left", |_| journal.count("stop") == 1);
    assert_eq!(journal.take(), "start build made data:hello eof lost:closed by the peer stop");
    assert_eq!(reactor.context().connector_state(connector), ConnectorState::Disconnected);
    assert!(
        !reactor.context().connect_again(connector) && !reactor.context().disconnect(connector),
        "it stands for nothing"
    );
    let stats = reactor.server().stats();
    assert_eq!((stats.accepted, stats.served, stats.failed, stats.active), (0, 0, 0, 0), "nobody was served");
}

#[test]
fn a_name_is_resolved_and_a_refusal_says_what_to_do() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let connector = reactor.context().connect(Connect::to(("localhost", port)), Client::new(&journal));
    turn_until(&mut reactor, "it is connected", |r| {
        r.context().connector_state(connector) == ConnectorState::Connected
    });
    drop((reactor, server));
    assert_eq!(journal.take(), "start build made lost:the server stops stop");

    let (heard, text) = attempt(Connect::to(("127.0.0.1", port)));
    assert_eq!(heard, "start failed:refused stop");
    let expected = format!(
        "cannot connect to 127.0.0.1:{port}: ECONNREFUSED: Connection refused; no server listens there: start it, or check \
         the address"
    );
    assert_eq!(text.replace("Connection refused (os error 111)", "ECONNREFUSED: Connection refused"), expected);
    let (heard, text) = attempt(Connect::to("no-such-host.invalid:80"));
    assert_eq!(heard, "start failed:resolve stop");
    assert!(
        text.starts_with("cannot resolve no-such-host.invalid:80: ") && text.ends_with("give an IP address"),
        "{text}"
    );
    let (heard, text) = attempt(Connect::to("127.0.0.1"));
    assert_eq!(heard, "start failed:system stop");
    assert!(text.ends_with("an address is HOST:PORT, [IPV6]:PORT, unix:PATH or unix:@NAME"), "{text}");
}

#[test]
fn a_unix_socket_is_connected_to_by_its_path_or_its_name() {
    let folder = Folder::new();
    let name = format!("socketserver-clients-{}", std::process::id());
    let path = folder.path("x.sock");
    let by_path = UnixListener::bind(&path).unwrap();
    let by_name = UnixListener::bind_addr(&UnixSocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (server, to) in [(by_path, Address::from(path.clone())), (by_name, Address::from(format!("unix:@{name}")))] {
        let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
        let expected = to.to_string();
        let client = Client::new(&journal).with(move |journal| {
            let expected = expected.clone();
            Some(Script::new(journal).on("made", move |t, _| {
                assert_eq!((t.peer_addr().to_string(), t.local_addr()), (expected.clone(), Addr::Unnamed));
                Ok(t.write(b"hello")?)
            }))
        });
        reactor.context().connect(Connect::to(to), client);
        let (mut theirs, _) = {
            turn_until(&mut reactor, "it is connected", |_| journal.count("made") == 1);
            server.accept().unwrap()
        };
        expect(&mut theirs, "hello");
        drop(theirs);
        turn_until(&mut reactor, "nothing is left", |_| journal.count("stop") == 1);
    }
    std::fs::remove_file(&path).unwrap();
    let (heard, text) = attempt(Connect::to(path.clone()));
    assert_eq!(heard, "start failed:refused stop");
    assert!(text.starts_with(&format!("cannot connect to unix:{}: No such file", path.display())), "{text}");
}

/// A Unix server whose queue is full.
fn full(folder: &Folder) -> (UnixListener, std::os::unix::net::UnixStream, std::path::PathBuf) {
    let path = folder.path("full.sock");
    let server = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    (server, first, path)
}

#[test]
fn a_unix_server_whose_queue_is_full_is_tried_again_until_the_timeout() {
    let folder = Folder::new();
    let (server, _first, path) = full(&folder);
    let (heard, text) = attempt(Connect::to(path.clone()).timeout(ms(200)));
    assert_eq!(heard, "start failed:timed-out stop", "{text}");
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let connector = reactor.context().connect_unix(&path, Client::new(&journal));
    (0..5).for_each(|_| assert!(reactor.turn(Some(ms(10))).unwrap()));
    assert_eq!(reactor.context().connector_state(connector), ConnectorState::Connecting);
    drop(server.accept().unwrap());
    turn_until(&mut reactor, "it is connected", |r| {
        r.context().connector_state(connector) == ConnectorState::Connected
    });
}

/// A server that answers no call: its queue is full, and it does not accept.
struct BlackHole {
    server: TcpListener,
    _queued: Vec<std::net::TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let queued = vec![std::net::TcpStream::connect(server.local_addr().unwrap()).unwrap()];
        Self { server, _queued: queued }
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.server.local_addr().unwrap()
    }
}

#[test]
fn an_attempt_without_an_answer_in_time_has_failed() {
    let hole = BlackHole::new();
    let since = Instant::now();
    let (heard, text) = attempt(Connect::to(hole.addr()).timeout(ms(200)));
    assert_eq!(heard, "start failed:timed-out stop");
    assert!(text.contains("no answer within 200"), "{text}");
    assert!((ms(200)..20 * SECOND).contains(&since.elapsed()), "{:?}", since.elapsed());
}

#[test]
fn the_local_address_is_as_the_program_says() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let connector = reactor.context().connect(Connect::to(to).bind_address(([127, 0, 0, 5], 0)), Client::new(&journal));
    turn_until(&mut reactor, "it is connected", |r| {
        r.context().connector_state(connector) == ConnectorState::Connected
    });
    assert_eq!(server.accept().unwrap().1.ip().to_string(), "127.0.0.5");
    let (heard, text) = attempt(Connect::to(to).bind_address(([0u16, 0, 0, 0, 0, 0, 0, 1], 0)));
    assert_eq!(heard, "start failed:system stop");
    assert!(text.contains("no address of the local one's family"), "{text}");
    let (heard, text) = attempt(Connect::to(to).bind_address(([192, 0, 2, 1], 0)));
    assert_eq!(heard, "start failed:system stop");
    assert!(text.starts_with(&format!("cannot bind the local address to connect to {to}: ")), "{text}");
}

/// On a port from which the kernel may choose, a client can meet itself (simultaneous open).
#[test]
fn a_connection_to_itself_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (heard, text) = attempt(Connect::to(free).bind_address(free));
    assert_eq!(heard, "start failed:refused stop", "{text}");
}

#[test]
fn a_stop_waits_for_no_attempt_and_closes_idle_connections_of_clients() {
    let (hole, server) = (BlackHole::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let trying = Journal::default();
    let connector = reactor.context().connect_tcp(server.local_addr().unwrap(), Client::new(&journal));
    reactor.context().connect_tcp(hole.addr(), Client::new(&trying));
    turn_until(&mut reactor, "it is connected", |r| {
        r.context().connector_state(connector) == ConnectorState::Connected
    });
    let (mut theirs, _) = server.accept().unwrap();
    let since = Instant::now();
    reactor.shutdown(20 * SECOND);
    let report = reactor.run().unwrap();
    assert!(since.elapsed() < 10 * SECOND, "{:?}", since.elapsed());
    assert_eq!(trying.take(), "start failed:stopped stop");
    assert_eq!(journal.take(), "start build made shutting_down lost:the server stops stop");
    assert_eq!((report.accepted, report.drained, report.forced), (0, 0, 0));
    assert_eq!(read_all(&mut theirs), "");
}

/// Has connections to a server of its own, whose protocols fail as that says.
struct Upstream(std::net::SocketAddr);

impl Factory for Upstream {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        None
    }

    fn start_factory(&self, cx: &mut Context<'_>) {
        for _ in 0..2 {
            cx.connect_tcp(self.0, factory(|_| Faulty));
        }
    }
}

struct Faulty;

impl Protocol for Faulty {
    fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        assert_ne!(data, b"panic", "asked to");
        Err("asked to fail".into())
    }
}

#[test]
fn the_error_hook_hears_of_errors_and_panics_of_outgoing_connections() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = upstream.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let builder = ServerBuilder::new().strategy(EventLoop::new().slow_callback(LONG)).handle_error(move |failure| {
        let what = match failure {
            Failure::Error { peer, error, .. } => format!("error of {peer}: {error}"),
            Failure::Panic { peer, message, .. } => format!("panic of {peer}: {message}"),
            other => format!("{other:?}"),
        };
        tell.send(what).unwrap();
    });
    let server = kit::serve(builder.bind("127.0.0.1:0", Upstream(addr)).unwrap());
    let mut connections = [(); 2].map(|()| upstream.accept().unwrap().0);
    connections[0].write_all(b"fail").unwrap();
    assert_eq!(told.recv_timeout(LONG).unwrap(), format!("error of {addr}: asked to fail"));
    connections[1].write_all(b"panic").unwrap();
    let panic = told.recv_timeout(LONG).unwrap();
    assert!(panic.starts_with(&format!("panic of {addr}: ")) && panic.contains("asked to"), "{panic}");
    connections.iter_mut().for_each(|connection| assert_eq!(read_all(connection), "", "each is closed"));
    let stats = server.handle.stats();
    assert_eq!((stats.failed, stats.panicked), (0, 0), "they were not served");
    let report = server.stop();
    assert_eq!((report.accepted, report.failed, told.try_recv().is_err()), (0, 0, true));
}
