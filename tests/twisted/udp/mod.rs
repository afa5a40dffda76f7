//! `test_udp`: datagrams. The loops here are turned by hand: on the loopback a datagram is there when its send returns.

mod events;
mod peers;
mod turns;

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

use crate::patience::uninterrupted;
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

/// Has the loop send this number at once, and says what came of each; a panic within would stay in the loop.
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
    let n = uninterrupted(|| client.recv(&mut buf)).unwrap();
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
    let (n, from) = uninterrupted(|| somebody.recv_from(&mut buf)).unwrap();
    assert_eq!((&buf[..n], from), (&b"there?"[..], at(&port)));
    somebody.send_to(b"yes", at(&port)).unwrap();
    UdpSocket::bind(ANY).unwrap().send_to(b"a stranger", at(&port)).unwrap();
    turn(&mut reactor);
    assert_eq!(journal.take(), "data:yes");
}

/// What came before the socket was connected is a stranger's as well.
#[test]
fn a_connected_socket_hears_no_stranger() {
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
