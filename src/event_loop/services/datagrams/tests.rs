//! Which socket a datagram leaves from, and what late events are worth.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::event_loop::Reactor;

const HERE_V4: &str = "127.0.0.1:0";
const HERE_V6: &str = "[::1]:0";
const LONG: Option<Duration> = Some(Duration::from_secs(30));

/// Notes its callbacks, and connects to the address that a datagram contains.
#[derive(Clone, Default)]
struct Noting(Rc<RefCell<Vec<String>>>);

impl DatagramProtocol for Noting {
    fn start_protocol(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
        self.0.borrow_mut().push("start".into());
        Ok(())
    }

    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], _: &Addr) -> HandlerResult {
        let text = String::from_utf8_lossy(data);
        self.0.borrow_mut().push(text.to_string());
        if let Ok(peer) = text.parse() {
            t.connect(&peer)?;
            t.write(b"hello")?;
        }
        Ok(())
    }

    fn connection_refused(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
        self.0.borrow_mut().push("refused".into());
        Ok(())
    }
}

fn client(address: &str) -> (UdpSocket, Addr) {
    let client = UdpSocket::bind(address).unwrap();
    client.set_read_timeout(LONG).unwrap();
    let addr = client.local_addr().unwrap().into();
    (client, addr)
}

fn text_of(client: &UdpSocket) -> String {
    let mut buf = [0; 100];
    let (n, _) = client.recv_from(&mut buf).unwrap();
    String::from_utf8_lossy(&buf[..n]).into()
}

fn addr_of(port: &Port, number: usize) -> Addr {
    port.sockets[number].local_addr().clone()
}

/// A port of both families, IPv6 first, as of a name that has both addresses; none where there is no IPv6.
fn of_both(reactor: &mut Reactor, protocol: Noting) -> Option<DatagramPort> {
    let mut sockets = bind(&HERE_V6.into(), BindOptions::datagrams()).ok()?;
    sockets.extend(bind(&HERE_V4.into(), BindOptions::datagrams()).unwrap());
    let port = reactor.listen_udp("127.0.0.1:0", protocol).unwrap();
    reactor.state.datagrams.list.get_mut(port.place).unwrap().sockets = sockets;
    Some(port)
}

#[test]
fn the_socket_is_chosen_by_its_family_and_its_peer() {
    let (mut reactor, noting) = (Reactor::new().unwrap(), Noting::default());
    let Some(port) = of_both(&mut reactor, noting.clone()) else { return };
    let ((v4, v4_addr), (v6, v6_addr)) = (client(HERE_V4), client(HERE_V6));
    let send = |reactor: &mut Reactor, to: &Addr| {
        Context { state: &mut reactor.state }.send_datagram(&port, to, b"hello").unwrap()
    };
    assert!(send(&mut reactor, &v4_addr) && send(&mut reactor, &v6_addr));
    assert_eq!((text_of(&v4), text_of(&v6)), ("hello".into(), "hello".into()));
    assert!(Context { state: &mut reactor.state }.send_datagram(&port, &Addr::Unnamed, b"").is_err());

    // In the delivery by one family to a peer of the other, and from then on.
    let own = reactor.state.datagrams.list.get(port.place).map(|port| [addr_of(port, 0), addr_of(port, 1)]).unwrap();
    v6.send_to(v4_addr.to_string().as_bytes(), own[0].socket_addr().unwrap()).unwrap();
    assert!(reactor.turn(LONG).unwrap());
    assert_eq!(text_of(&v4), "hello");
    assert!(send(&mut reactor, &Addr::Unnamed));
    assert_eq!(text_of(&v4), "hello");
    v6.send_to(b"a stranger", own[0].socket_addr().unwrap()).unwrap();
    v4.send_to(b"friend", own[1].socket_addr().unwrap()).unwrap();
    assert!(reactor.turn(LONG).unwrap());
    drop(v4);
    send(&mut reactor, &Addr::Unnamed);
    assert!(reactor.turn(LONG).unwrap());
    assert_eq!(noting.0.take(), ["start", v4_addr.to_string().as_str(), "friend", "refused"]);
}

#[test]
fn a_datagram_for_a_v4_address_may_leave_from_a_socket_of_both_kinds() {
    let (mut reactor, (v4, addr)) = (Reactor::new().unwrap(), client(HERE_V4));
    let Ok(port) = reactor.listen_udp("[::]:0", Noting::default()) else { return }; // no IPv6 here
    assert!(Context { state: &mut reactor.state }.send_datagram(&port, &addr, b"hello").unwrap());
    assert_eq!(text_of(&v4), "hello");
}

#[test]
fn places_are_used_again_and_an_event_of_before_is_of_no_effect() {
    let (mut reactor, noting) = (Reactor::new().unwrap(), Noting::default());
    let gone = reactor.listen_udp(HERE_V4, Noting::default()).unwrap();
    let state = &mut reactor.state;
    state.stop_datagrams(gone.place);
    let port = state.listen_udp(&HERE_V4.into(), Box::new(noting.clone())).unwrap();
    assert_eq!((port.place.index(), state.datagrams.list.len()), (gone.place.index(), 1));
    let (client, _) = client(HERE_V4);
    client.send_to(b"early", port.local_addr().socket_addr().unwrap()).unwrap();
    state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0));
    assert!(noting.0.borrow().is_empty(), "before it has begun");
    state.start_datagrams(gone.place);
    state.start_datagrams(port.place);
    state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0));
    state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0)); // in vain
    state.receive(token::of(token::DATAGRAMS, port.place.index() + 1, 0));
    assert_eq!(noting.0.take(), ["start", "early"]);
}
