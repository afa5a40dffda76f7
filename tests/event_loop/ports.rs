//! Ports of a loop: whose they are, and what is left of one that is closed.

use std::cell::Cell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use crate::kit::{connect, Folder, LONG};
use crate::script::{Journal, Script};
use socketserver::event_loop::{DatagramPort, DatagramProtocol, DatagramTransport, Factory, ListeningPort, Peer};
use socketserver::{factory, Addr, Address, Context, HandlerResult, Protocol, Reactor};

const ANY: &str = "127.0.0.1:0";

/// Hears and says nothing.
struct Deaf;

impl DatagramProtocol for Deaf {
    fn datagram_received(&mut self, _: &mut DatagramTransport<'_>, _: &[u8], _: &Addr) -> HandlerResult {
        Ok(())
    }
}

fn quiet() -> impl Factory + 'static {
    factory(|_: &Peer| Script::new(&Journal::default()))
}

fn at(port: &ListeningPort) -> SocketAddr {
    port.local_addr().socket_addr().unwrap()
}

fn is_free(port: &DatagramPort) -> bool {
    UdpSocket::bind(port.local_addr().socket_addr().unwrap()).is_ok()
}

fn turn(reactor: &mut Reactor) {
    assert!(reactor.turn(Some(Duration::ZERO)).unwrap());
}

/// What a callback gives, which is called in the next turn.
fn within<T: 'static>(reactor: &mut Reactor, call: impl FnOnce(&mut Context<'_>) -> T + 'static) -> T {
    let given = Rc::new(Cell::new(None));
    let gives = given.clone();
    reactor.call_when_running(move |cx| gives.set(Some(call(cx))));
    turn(reactor);
    given.take().unwrap()
}

/// Each loop's first ones have the same places.
#[test]
fn ids_of_another_loop_stand_for_nothing() {
    let (mut ours, mut theirs) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let [our_port, their_port] = [&mut ours, &mut theirs].map(|r| r.listen_tcp(ANY, quiet()).unwrap());
    let [our_socket, their_socket] = [&mut ours, &mut theirs].map(|r| r.listen_udp(ANY, Deaf).unwrap());
    let fired = Rc::new(Cell::new(false));
    let fires = fired.clone();
    let theirs_timer = theirs.context().call_later(Duration::from_secs(3600), |_| ());
    let ours_timer = ours.context().call_later(Duration::from_secs(3600), move |_| fires.set(true));
    assert_ne!(ours_timer, theirs_timer);
    assert!(!ours.context().reset(theirs_timer, Duration::ZERO));
    turn(&mut ours);
    assert!(!fired.get(), "a timer of another loop has not set ours anew");
    assert!(!ours.context().cancel(theirs_timer) && ours.context().cancel(ours_timer), "nor has it cancelled ours");

    ours.context().stop_listening(&their_port);
    ours.context().stop_listening_udp(&their_socket);
    within(&mut ours, move |cx| {
        cx.stop_listening(&their_port);
        cx.stop_listening_udp(&their_socket);
        let to = their_socket.local_addr().clone();
        let e = cx.send_datagram(&their_socket, &to, b"x").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::NotConnected);
    });
    assert!(TcpStream::connect(at(&our_port)).is_ok() && !is_free(&our_socket));
}

/// A handle of a port that is closed is not one of what has its place now.
#[test]
fn a_stale_port_stands_for_nothing() {
    let mut reactor = Reactor::new().unwrap();
    let (gone, gone_socket) = (reactor.listen_tcp(ANY, quiet()).unwrap(), reactor.listen_udp(ANY, Deaf).unwrap());
    reactor.context().stop_listening(&gone);
    reactor.context().stop_listening_udp(&gone_socket);
    let (port, socket) = (reactor.listen_tcp(ANY, quiet()).unwrap(), reactor.listen_udp(ANY, Deaf).unwrap());
    reactor.context().stop_listening(&gone);
    reactor.context().stop_listening_udp(&gone_socket);
    within(&mut reactor, move |cx| {
        let to = gone_socket.local_addr().clone();
        assert!(cx.send_datagram(&gone_socket, &to, b"x").is_err());
        cx.stop_listening(&gone);
        cx.stop_listening_udp(&gone_socket);
    });
    assert!(TcpStream::connect(at(&port)).is_ok() && !is_free(&socket));
}

/// It stayed until the loop was dropped.
#[test]
fn a_closed_port_lets_go_of_its_factory() {
    let (mut reactor, kept) = (Reactor::new().unwrap(), Rc::new(()));
    let listen = |reactor: &mut Reactor| {
        let kept = kept.clone();
        let holds = move |_: &Peer| {
            let _ = &kept;
            Script::new(&Journal::default())
        };
        reactor.listen_tcp(ANY, factory(holds)).unwrap()
    };
    let port = listen(&mut reactor);
    assert_eq!(Rc::strong_count(&kept), 2);
    reactor.context().stop_listening(&port);
    turn(&mut reactor);
    assert_eq!(Rc::strong_count(&kept), 1);
    let port = listen(&mut reactor);
    within(&mut reactor, move |cx| cx.stop_listening(&port));
    turn(&mut reactor);
    assert_eq!(Rc::strong_count(&kept), 1, "from within as well");
}

/// What it holds panics when it is dropped.
struct Mined;

impl Factory for Mined {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        None
    }
}

impl Drop for Mined {
    fn drop(&mut self) {
        panic!("as it was told");
    }
}

#[test]
fn a_factory_may_panic_when_it_is_dropped() {
    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(ANY, Mined).unwrap();
    reactor.context().stop_listening(&port);
    let port = reactor.listen_tcp(ANY, Mined).unwrap();
    within(&mut reactor, move |cx| cx.stop_listening(&port));
    turn(&mut reactor);
    reactor.listen_tcp(ANY, Mined).unwrap();
    drop(reactor);
}

/// 16,000 were the most in a loop's life.
#[test]
fn a_port_may_be_opened_and_closed_for_ever() {
    let mut reactor = Reactor::new().unwrap();
    let shared = Rc::new(quiet());
    let unix = format!("unix:@socketserver-ports-{}", std::process::id());
    for _ in 0..16_500 {
        let port = reactor.listen_tcp(unix.as_str(), shared.clone()).unwrap();
        reactor.context().stop_listening(&port);
    }
    let port = reactor.listen_tcp(ANY, shared).unwrap();
    turn(&mut reactor);
    drop(TcpStream::connect(at(&port)).unwrap());
    let before = reactor.server().stats().accepted;
    while reactor.server().stats().accepted == before {
        assert!(reactor.turn(Some(LONG)).unwrap());
    }
}

/// The address was kept with the port. The connection's own is the same, but where the port had all addresses.
#[test]
fn a_connection_outlives_its_port() {
    let folder = Folder::new();
    let path = folder.path("port.sock");
    for address in [Address::from(ANY), path.into()] {
        let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
        let noted = journal.clone();
        let says = factory(move |_: &Peer| {
            let journal = noted.clone();
            Script::new(&noted).on("data", move |t, _| {
                journal.add(t.local_addr().to_string());
                Ok(())
            })
        });
        let port = reactor.listen_tcp(address, says).unwrap();
        let mut client: Box<dyn Write> = match port.local_addr() {
            Addr::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
            _ => Box::new(connect(at(&port))),
        };
        while journal.count("made") == 0 {
            assert!(reactor.turn(Some(LONG)).unwrap());
        }
        reactor.context().stop_listening(&port);
        let other = reactor.listen_tcp(ANY, quiet()).unwrap();
        client.write_all(b"x").unwrap();
        while journal.count("data") == 0 {
            assert!(reactor.turn(Some(LONG)).unwrap());
        }
        assert_eq!(journal.take(), format!("made data:x {}", port.local_addr()));
        assert_ne!(port.local_addr(), other.local_addr());
    }
}

#[test]
fn a_port_behind_a_proxy_makes_its_connections_after_the_header() {
    let journal = Journal::default();
    let mut reactor = Reactor::new().unwrap();
    let written = journal.clone();
    let port = reactor
        .listen_tcp(
            ANY,
            factory(move |peer: &Peer| {
                written.add(format!("built:{peer}"));
                Script::new(&written).on("made", |t, _| {
                    let id = t.proxy_header().and_then(|header| header.unique_id());
                    assert_eq!((t.peer_addr().to_string().as_str(), id), ("192.0.2.7:56324", None));
                    Ok(())
                })
            }),
        )
        .unwrap();
    let plain = reactor.listen_tcp(ANY, quiet()).unwrap();
    let error = reactor.context().set_proxy_protocol(&port, ["127.0.0.1/33"]).unwrap_err();
    assert!(error.to_string().starts_with("proxy_protocol: \"127.0.0.1/33\""), "{error}");
    reactor.context().set_proxy_protocol(&port, ["127.0.0.1"]).unwrap();

    let mut slow = connect(at(&port));
    slow.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1").unwrap();
    let mut other = connect(at(&plain));
    other.write_all(b"PROXY").unwrap();
    until_turned(&mut reactor, || journal.count("built") == 0, |reactor| reactor.server().stats().accepted == 2);
    assert_eq!((journal.take(), reactor.context().connections()), (String::new(), 1), "the header is on its way");
    slow.write_all(b" 56324 443\r\nhello").unwrap();
    until_turned(&mut reactor, || true, |_| journal.count("data") == 1);
    assert_eq!(journal.take(), "built:192.0.2.7:56324 made data:hello");

    // The port may close before the header has come.
    let mut late = connect(at(&port));
    late.write_all(b"PROXY TCP4 192.0.2.7 127.0.0.1").unwrap();
    until_turned(&mut reactor, || true, |reactor| reactor.server().stats().accepted == 3);
    reactor.context().stop_listening(&port);
    late.write_all(b" 56324 443\r\n").unwrap();
    until_turned(&mut reactor, || true, |_| journal.count("made") == 1);
    assert_eq!(journal.take(), "built:192.0.2.7:56324 made");
}

/// Turns the loop until this has come true; meanwhile the other holds.
fn until_turned(reactor: &mut Reactor, holds: impl Fn() -> bool, mut done: impl FnMut(&Reactor) -> bool) {
    let by = std::time::Instant::now() + LONG;
    while !done(reactor) {
        assert!(holds() && std::time::Instant::now() < by);
        assert!(reactor.turn(Some(Duration::from_millis(1))).unwrap());
    }
}
