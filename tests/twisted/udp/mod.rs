//! `test_udp`: datagrams. The loops here are turned by hand: on the loopback a datagram is there when its send returns.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use socketserver::connection::DatagramTooLong;
use socketserver::event_loop::{DatagramPort, DatagramProtocol, DatagramTransport};
use socketserver::{Addr, Context, Error, HandlerResult, Reactor};

use crate::script::{self, Journal};

const ANY: &str = "127.0.0.1:0";

type Act = Box<dyn FnMut(&mut DatagramTransport<'_>, &[u8], &Addr) -> HandlerResult>;

/// Notes each callback, data as `data:...`, and does with data what the test says.
struct Noting {
    journal: Journal,
    at_start: Option<Addr>,
    act: Act,
}

impl DatagramProtocol for Noting {
    fn start_protocol(&mut self, t: &mut DatagramTransport<'_>) -> HandlerResult {
        self.journal.add("start");
        if let Some(peer) = &self.at_start {
            t.connect(peer)?;
            t.write(b"hello")?;
        }
        Ok(())
    }

    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        self.journal.add(format!("data:{}", String::from_utf8_lossy(data)));
        (self.act)(t, data, from)
    }

    fn connection_refused(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
        self.journal.add("refused");
        Ok(())
    }

    fn stop_protocol(&mut self, _: &mut Context<'_>) {
        self.journal.add("stop");
    }
}

fn noting(
    journal: &Journal,
    act: impl FnMut(&mut DatagramTransport<'_>, &[u8], &Addr) -> HandlerResult + 'static,
) -> Noting {
    Noting { journal: journal.clone(), at_start: None, act: Box::new(act) }
}

fn quiet(journal: &Journal) -> Noting {
    noting(journal, |_, _, _| Ok(()))
}

fn echo(journal: &Journal) -> Noting {
    noting(journal, |t, data, from| {
        assert!(t.send_to(from, data)?, "there is room");
        Ok(())
    })
}

fn at(port: &DatagramPort) -> SocketAddr {
    port.local_addr().socket_addr().unwrap()
}

fn turn(reactor: &mut Reactor) -> bool {
    reactor.turn(Some(Duration::ZERO)).unwrap()
}

/// Has the loop send so many at once, and says what came of each; a panic within would stay in the loop.
fn sends(
    reactor: &mut Reactor,
    port: &DatagramPort,
    to: &Addr,
    texts: &[&'static str],
) -> Vec<Result<bool, io::ErrorKind>> {
    let results = Rc::new(RefCell::new(Vec::new()));
    let (port, to, texts, told) = (port.clone(), to.clone(), texts.to_vec(), results.clone());
    reactor.call_when_running(move |cx| {
        let send = |text: &str| cx.send_datagram(&port, &to, text.as_bytes()).map_err(|e| e.kind());
        told.borrow_mut().extend(texts.into_iter().map(send));
    });
    turn(reactor);
    results.take()
}

fn turns(reactor: &mut Reactor, count: usize) {
    (0..count).for_each(|_| assert!(turn(reactor)));
}

fn client_of(port: &DatagramPort) -> UdpSocket {
    let client = UdpSocket::bind(ANY).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.connect(at(port)).unwrap();
    client
}

fn next(client: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 1 << 16];
    let n = client.recv(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

fn is_free(addr: SocketAddr) -> bool {
    UdpSocket::bind(addr).is_ok()
}

/// `test_startStop`
#[test]
fn start_stop() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    assert_eq!(journal.take(), "start");
    assert!(!is_free(at(&port)));
    reactor.context().stop_listening_udp(&port);
    assert!(is_free(at(&port)), "closed at once");
    turn(&mut reactor);
    assert_eq!(journal.take(), "stop");
    reactor.context().stop_listening_udp(&port);
    turn(&mut reactor);
    drop(reactor);
    assert_eq!(journal.take(), "", "once");

    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    drop(reactor);
    assert_eq!(journal.take(), "start stop", "a loop that is dropped closes its sockets");
    assert!(is_free(at(&port)));
}

/// `test_rebind`
#[test]
fn rebind() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let first = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    reactor.context().stop_listening_udp(&first);
    let second = reactor.listen_udp(at(&first), echo(&journal)).unwrap();
    assert_eq!((at(&second), journal.take().as_str()), (at(&first), "start stop start"));
    let client = client_of(&second);
    client.send(b"again").unwrap();
    turn(&mut reactor);
    assert_eq!(next(&client), b"again");
}

/// `test_bindError`
#[test]
fn bind_error() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    let e = reactor.listen_udp(at(&port), quiet(&Journal::default())).unwrap_err();
    assert!(matches!(&e, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{e}");
    assert_eq!(journal.take(), "start");
}

/// `test_sendPackets`
#[test]
fn send_packets() {
    let (mut reactor, ours, theirs) = (Reactor::new().unwrap(), Journal::default(), Journal::default());
    let server = reactor.listen_udp(ANY, echo(&ours)).unwrap();
    let client = reactor.listen_udp(ANY, quiet(&theirs)).unwrap();
    let handle = reactor.handle();
    let (from, to) = (client.clone(), server.local_addr().clone());
    std::thread::spawn(move || {
        handle.call_from_thread(move |cx| {
            for text in ["one", "two", "three"] {
                assert!(cx.send_datagram(&from, &to, text.as_bytes()).unwrap());
            }
        })
    })
    .join()
    .unwrap()
    .unwrap();
    turns(&mut reactor, 4);
    assert_eq!(ours.take(), "start data:one data:two data:three");
    assert_eq!(theirs.take(), "start data:one data:two data:three");
}

/// `test_connectionRefused`
#[test]
fn connection_refused() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let nobody = { UdpSocket::bind(ANY).unwrap().local_addr().unwrap() };
    let protocol = Noting { at_start: Some(nobody.into()), ..quiet(&journal) };
    let port = reactor.listen_udp(ANY, protocol).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "start refused");
    // Each time; and neither do refusals end anything, nor is a later datagram lost by them.
    for _ in 0..20 {
        assert_eq!(sends(&mut reactor, &port, &Addr::Unnamed, &["again", "and again"]), [Ok(true), Ok(true)]);
        turn(&mut reactor);
        assert!(journal.count("refused") >= 1);
        journal.take();
    }
    let somebody = UdpSocket::bind(nobody).unwrap();
    somebody.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(sends(&mut reactor, &port, &Addr::Unnamed, &["there?"]), [Ok(true)]);
    let mut buf = [0; 10];
    let (n, from) = somebody.recv_from(&mut buf).unwrap();
    assert_eq!((&buf[..n], from), (&b"there?"[..], at(&port)));
    somebody.send_to(b"yes", at(&port)).unwrap();
    UdpSocket::bind(ANY).unwrap().send_to(b"a stranger", at(&port)).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "data:yes");
}

/// What came before the socket was connected is a stranger's as well.
#[test]
fn who_is_connected_hears_no_stranger() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let friend = UdpSocket::bind(ANY).unwrap();
    let chosen: Addr = friend.local_addr().unwrap().into();
    let connects =
        noting(&journal, move |t, data, _| if data == b"connect" { Ok(t.connect(&chosen)?) } else { Ok(()) });
    let port = reactor.listen_udp(ANY, connects).unwrap();
    let stranger = client_of(&port);
    stranger.send(b"connect").unwrap();
    stranger.send(b"queued").unwrap();
    friend.send_to(b"friend", at(&port)).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:connect data:friend");
}

/// `test_datagramReceivedError`
#[test]
fn datagram_received_error() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let faulty = noting(&journal, |_, data, _| match data {
        b"error" => Err("as it was told".into()),
        b"panic" => panic!("as it was told"),
        _ => Ok(()),
    });
    let port = reactor.listen_udp(ANY, faulty).unwrap();
    let client = client_of(&port);
    ["error", "panic", "fine"].iter().for_each(|text| assert!(client.send(text.as_bytes()).is_ok()));
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:error data:panic data:fine");
    let stats = reactor.server().stats();
    assert_eq!((stats.accepted, stats.served, stats.failed, stats.panicked), (3, 1, 2, 1));
}

struct FaultyAtTheEnds;

impl DatagramProtocol for FaultyAtTheEnds {
    fn start_protocol(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
        Err("at the start".into())
    }

    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        t.send_to(from, data)?;
        Ok(())
    }

    fn stop_protocol(&mut self, _: &mut Context<'_>) {
        panic!("at the end");
    }
}

impl Drop for FaultyAtTheEnds {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("when dropped");
        }
    }
}

#[test]
fn faults_at_the_start_and_at_the_end_are_contained() {
    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_udp(ANY, FaultyAtTheEnds).unwrap();
    let client = client_of(&port);
    client.send(b"hello").unwrap();
    turn(&mut reactor);
    assert_eq!(next(&client), b"hello");
    reactor.context().stop_listening_udp(&port);
    turn(&mut reactor);
    assert!(is_free(at(&port)));
}

#[test]
fn an_empty_datagram_is_delivered() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, echo(&journal)).unwrap();
    let client = client_of(&port);
    client.send(b"").unwrap();
    turn(&mut reactor);
    assert_eq!((journal.take().as_str(), next(&client)), ("start data:", Vec::new()));
}

/// Twisted cuts at 8192 bytes, without a word.
#[test]
fn what_is_too_long_is_cut_and_says_so() {
    let (mut reactor, told) = (Reactor::new().unwrap(), Rc::new(RefCell::new(Vec::new())));
    let tells = || {
        let told = told.clone();
        noting(&Journal::default(), move |t, data, _| {
            told.borrow_mut().push((data.len(), t.original_len(), t.is_truncated()));
            Ok(())
        })
    };
    let udp = reactor.listen_udp(ANY, tells()).unwrap();
    client_of(&udp).send(&[0; 65_507]).unwrap();
    let name = format!("unix:@socketserver-twisted-{}", std::process::id());
    reactor.listen_udp(name.as_str(), tells()).unwrap();
    let client = UnixDatagram::unbound().unwrap();
    let addr = UnixSocketAddr::from_abstract_name(name.trim_start_matches("unix:@"));
    client.send_to_addr(&[0; 65_537], &addr.unwrap()).unwrap();
    turn(&mut reactor);
    told.borrow_mut().sort_unstable();
    assert_eq!(*told.borrow(), [(65_507, 65_507, false), (65_536, 65_537, true)]);
}

#[test]
fn what_is_too_long_to_be_sent_is_an_error_with_the_sizes() {
    let (mut reactor, seen) = (Reactor::new().unwrap(), Rc::new(RefCell::new(None)));
    let sees = seen.clone();
    let sends = noting(&Journal::default(), move |t, _, from| {
        *sees.borrow_mut() = Some(t.send_to(from, &[0; 65_508]).unwrap_err());
        Ok(())
    });
    let port = reactor.listen_udp(ANY, sends).unwrap();
    client_of(&port).send(b"").unwrap();
    turn(&mut reactor);
    let e = seen.borrow_mut().take().expect("it has failed");
    let why = e.get_ref().and_then(|e| e.downcast_ref::<DatagramTooLong>()).expect("typed");
    assert_eq!((why.size, why.limit), (65_508, 65_507));
}

/// Twisted delivers what the kernel has already.
#[test]
fn after_a_stop_in_the_callback_nothing_more_is_delivered() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let stops = noting(&journal, |t, _, _| {
        t.stop_listening();
        t.stop_listening();
        Ok(())
    });
    let port = reactor.listen_udp(ANY, stops).unwrap();
    let client = client_of(&port);
    (0..3).for_each(|_| assert!(client.send(b"x").is_ok()));
    turn(&mut reactor);
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:x stop");
    assert!(is_free(at(&port)));
    let to = port.local_addr().clone();
    assert_eq!(sends(&mut reactor, &port, &to, &["x"]), [Err(io::ErrorKind::NotConnected)]);
}

#[test]
fn after_a_stop_of_the_loop_what_is_left_waits_for_the_next_run() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let stops = noting(&journal, |t, _, _| {
        t.stop();
        Ok(())
    });
    let port = reactor.listen_udp(ANY, stops).unwrap();
    let client = client_of(&port);
    ["one", "two"].iter().for_each(|text| assert!(client.send(text.as_bytes()).is_ok()));
    reactor.run().unwrap();
    assert_eq!(journal.take(), "start data:one");
    reactor.run().unwrap();
    assert_eq!(journal.take(), "data:two");
}

/// Twisted counts bytes only, so that empty datagrams can keep everybody else waiting.
#[test]
fn a_turn_delivers_so_many_datagrams() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    let client = client_of(&port);
    (0..200).for_each(|_| assert!(client.send(b"").is_ok()));
    for delivered in [64, 128, 192, 200] {
        turn(&mut reactor);
        assert_eq!(journal.count("data"), delivered);
    }
}

/// From several Unix sockets, since the kernel queues so much of neither one sender nor UDP.
#[test]
fn a_turn_delivers_so_many_bytes() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let name = format!("socketserver-twisted-bytes-{}", std::process::id());
    reactor.listen_udp(format!("unix:@{name}"), quiet(&journal)).unwrap();
    let to = UnixSocketAddr::from_abstract_name(name).unwrap();
    let senders: Vec<_> = (0..8).map(|_| UnixDatagram::unbound().unwrap()).collect();
    senders.iter().for_each(|sender| assert!(sender.send_to_addr(&[b'x'; 60_000], &to).is_ok()));
    for delivered in [5, 8] {
        turn(&mut reactor);
        assert_eq!(journal.count("data"), delivered, "256 KiB are reached with the fifth");
    }
}

#[test]
fn replies_leave_from_the_address_that_was_sent_to() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let tells = noting(&journal, |t, _, from| {
        let to = t.local_addr().to_string();
        t.send_to(from, to.as_bytes())?;
        Ok(())
    });
    let port = reactor.listen_udp("0.0.0.0:0", tells).unwrap();
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let to = SocketAddr::from((ip, at(&port).port()));
        let client = UdpSocket::bind(ANY).unwrap();
        client.connect(to).unwrap(); // hears that one only
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client.send(b"x").unwrap();
        turn(&mut reactor);
        assert_eq!(next(&client), to.to_string().into_bytes());
    }
}

#[test]
fn a_full_queue_drops_and_says_so() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let name = |what| format!("socketserver-twisted-{what}-{}", std::process::id());
    let port = reactor.listen_udp(format!("unix:@{}", name("sender")), quiet(&journal)).unwrap();
    let to = Addr::Abstract(name("deaf").into_bytes());
    let addr = UnixSocketAddr::from_abstract_name(name("deaf")).unwrap();
    let deaf = UnixDatagram::bind_addr(&addr).unwrap();
    let sent = Rc::new(RefCell::new(0));
    let counted = sent.clone();
    reactor.call_when_running(move |cx| {
        while *counted.borrow() < 10_000 && cx.send_datagram(&port, &to, b"x").unwrap() {
            *counted.borrow_mut() += 1;
        }
    });
    turn(&mut reactor);
    assert!((1..10_000).contains(&*sent.borrow()));
    deaf.set_nonblocking(true).unwrap();
    assert_eq!((0..).take_while(|_| deaf.recv(&mut [0; 1]).is_ok()).count(), *sent.borrow(), "no other was sent");
}

#[test]
fn a_shutdown_stops_receiving_and_tells_the_protocol() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let shuts = noting(&journal, |t, _, _| {
        t.shutdown(Duration::from_secs(30));
        Ok(())
    });
    let port = reactor.listen_udp(ANY, shuts).unwrap();
    let client = client_of(&port);
    (0..3).for_each(|_| assert!(client.send(b"x").is_ok()));
    let report = reactor.run().unwrap();
    assert_eq!(journal.take(), "start data:x stop");
    assert_eq!((report.accepted, report.served), (1, 1));
    assert!(is_free(at(&port)));
}

#[test]
fn a_pause_leaves_datagrams_in_the_kernel() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    reactor.server().pause();
    client_of(&port).send(b"x").unwrap();
    turn(&mut reactor);
    turn(&mut reactor);
    assert_eq!(journal.take(), "start");
    reactor.server().resume();
    turn(&mut reactor);
    assert_eq!(journal.take(), "data:x");
}

#[test]
fn a_socket_that_is_opened_in_a_callback_begins_after_it() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let inner = journal.clone();
    let opened = Rc::new(RefCell::new(None));
    let opens = opened.clone();
    reactor.call_when_running(move |cx| {
        *opens.borrow_mut() = Some(cx.listen_udp(ANY, quiet(&inner)).unwrap());
        let port = opens.borrow().clone().unwrap();
        UdpSocket::bind(ANY).unwrap().send_to(b"early", at(&port)).unwrap();
        inner.add("callback");
    });
    turns(&mut reactor, 3);
    assert_eq!(journal.take(), "callback start data:early");
    // One that is closed before it has begun hears of neither.
    let inner = journal.clone();
    reactor.call_when_running(move |cx| {
        let port = cx.listen_udp(ANY, quiet(&inner)).unwrap();
        cx.stop_listening_udp(&port);
    });
    turns(&mut reactor, 3);
    assert_eq!(journal.take(), "");
}

#[test]
fn a_quiet_socket_costs_no_turn() {
    let looped = script::run(move |reactor| {
        reactor.listen_udp(ANY, quiet(&Journal::default())).unwrap();
        reactor.listen_tcp(ANY, socketserver::factory(|_| script::Echo)).unwrap()
    });
    script::teller::assert_no_spin(&looped, "a socket without datagrams");
}

/// Connects to what it is told, and notes where answers come from.
fn asks(reactor: &mut Reactor, journal: &Journal, from: &str, peer: Addr) -> DatagramPort {
    reactor.listen_udp(from, Noting { at_start: Some(peer), ..quiet(journal) }).unwrap()
}

/// The peer's name, however it was spelt: for the kernel, "this host" is the loopback, and a file has many paths. Who
/// was connected to another spelling was deaf.
#[test]
fn who_is_connected_hears_the_peer_however_it_was_spelt() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let server = UdpSocket::bind(ANY).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut buf = [0; 10];
    for peer in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        let socket = asks(&mut reactor, &journal, ANY, peer.parse().unwrap());
        let (_, from) = server.recv_from(&mut buf).unwrap();
        assert_eq!(from, at(&socket));
        server.send_to(b"answer", from).unwrap();
        turn(&mut reactor);
        assert_eq!(journal.take(), "start data:answer", "{peer}");
    }
    let Ok(server) = UdpSocket::bind("[::1]:0") else { return }; // no IPv6 here
    let peer = std::net::SocketAddrV6::new([0, 0, 0, 0, 0, 0, 0, 1].into(), server.local_addr().unwrap().port(), 5, 0);
    asks(&mut reactor, &journal, "[::1]:0", SocketAddr::from(peer).into());
    let (_, from) = server.recv_from(&mut buf).unwrap();
    server.send_to(b"answer", from).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:answer", "a flow label is no part of the name");
}

#[test]
fn who_is_connected_hears_the_peer_by_any_path() {
    let dir = std::env::temp_dir().join(format!("socketserver-twisted-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let server = UnixDatagram::bind(dir.join("d.sock")).unwrap();
    let (dir_text, own) = (dir.display(), dir.join("own.sock"));
    for peer in [format!("unix:{dir_text}/d.sock"), format!("unix:{dir_text}/sub/../d.sock")] {
        let port = asks(&mut reactor, &journal, &format!("unix:{}", own.display()), peer.parse().unwrap());
        server.recv(&mut [0; 10]).unwrap();
        server.send_to(b"answer", &own).unwrap();
        turn(&mut reactor);
        reactor.context().stop_listening_udp(&port);
        turn(&mut reactor);
        assert_eq!(journal.take(), "start data:answer stop", "{peer}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}
