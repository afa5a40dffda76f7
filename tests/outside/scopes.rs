//! Link-local addresses, which need their interface: `[fe80::1%eth0]:80`.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::channel;

use crate::addresses::in_own_network;
use crate::kit::datagrams::receive;
use crate::kit::{ms, read_all, serve, uninterrupted, until, LONG};
use socketserver::event_loop::Connect;
use socketserver::{
    datagram_handler, factory, handler, Addr, Address, HandlerResult, Protocol, Reactor, Sequential, ServerBuilder,
    Transport, UdpServer,
};

const LINK_LOCAL: [&str; 2] = ["[fe80::1%1]:0", "[fe80::1%lo]:0"];

/// Gives the loopback, which is interface 1, a link-local address. The kernel adds its route a moment later, on a thread
/// of its own: until then the network is unreachable.
fn have_link_local() -> bool {
    let added = Command::new("ip").args(["-6", "addr", "add", "fe80::1/64", "dev", "lo", "nodad"]).status().unwrap();
    if !added.success() {
        println!("skipped: no IPv6 here");
        return false;
    }
    let nobody: SocketAddr = "[fe80::1%1]:1".parse().unwrap();
    until("there is a route to it", || {
        TcpStream::connect(nobody).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
    true
}

#[test]
fn an_interface_is_read_by_name_or_number() {
    for text in ["[fe80::1%1]:80", "[fe80::1%eth0]:80", "[fe80::1%eth0.7-a]:80"] {
        assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        assert_eq!(Address::from((&text[1..text.len() - 4], 80)).to_string(), text);
    }
    assert_eq!("[fe80::1%1]:80".parse::<Addr>().unwrap().to_string(), "[fe80::1%1]:80");
    assert_eq!("[::1%lo]:80".parse::<Addr>().unwrap().to_string(), "[::1%1]:80", "the number is in the socket");
    for text in ["[fe80::1%]:80", "[fe80::1%a b]:80", "[fe80::1%a/b]:80", "[%lo]:80", "[127.0.0.1%lo]:80"] {
        assert_eq!(text.parse::<Address>().unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let told = ServerBuilder::new().bind("[fe80::1%nowhere0]:0", handler(|_| Ok(()))).unwrap_err().to_string();
    assert!(told.contains("no interface has the name nowhere0"), "{told}");
}

#[test]
fn link_local_addresses_are_listened_on_and_connected_to() {
    if std::env::var_os("SOCKETSERVER_NETNS").is_none() {
        return in_own_network("scopes::link_local_addresses_are_listened_on_and_connected_to");
    }
    if !have_link_local() {
        return;
    }
    let told = ServerBuilder::new().bind("[fe80::1]:0", handler(|_| Ok(()))).unwrap_err().to_string();
    assert!(told.contains("needs its interface, as in [fe80::1%eth0]:80"), "{told}");
    for text in LINK_LOCAL {
        over_tcp(text);
        over_udp(text);
        in_a_loop(text);
    }
    a_reply_leaves_from_the_link_local_address();
}

fn over_tcp(text: &str) {
    let server = ServerBuilder::new().bind(text, handler(|conn| conn.send_line(conn.peer_addr().to_string()))).unwrap();
    let local = server.local_addr().clone();
    assert_eq!(local.to_string(), format!("[fe80::1%1]:{}", local.port().unwrap()));
    assert_eq!(local.to_string().parse::<Addr>().unwrap(), local);
    let _server = serve(server);
    let mut client = TcpStream::connect(local.socket_addr().unwrap()).unwrap();
    let ours = client.local_addr().unwrap().to_string();
    assert_eq!(read_all(&mut client).trim_end(), ours);
    assert!(ours.starts_with("[fe80::1%1]:"), "{ours}");
}

fn ask(to: SocketAddr) -> (String, SocketAddr) {
    let client = UdpSocket::bind("[::]:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.send_to(b"who", to).unwrap();
    let mut reply = [0; 100];
    let (n, from) = uninterrupted(|| client.recv_from(&mut reply)).unwrap();
    (String::from_utf8_lossy(&reply[..n]).into_owned(), from)
}

fn over_udp(text: &str) {
    let who = datagram_handler(|datagram| {
        let who = format!("{} to {}", datagram.peer_addr(), datagram.local_addr());
        Ok(datagram.write_all(who.as_bytes())?)
    });
    let server = receive(UdpServer::with_strategy(text, who, Sequential).unwrap());
    let (told, from) = ask(server.addr());
    assert_eq!(from, server.addr());
    assert!(told.starts_with("[fe80::1%1]:") && told.ends_with(&format!(" to {}", server.local)), "{told}");
}

/// A server of all addresses.
fn a_reply_leaves_from_the_link_local_address() {
    let who = datagram_handler(|datagram| {
        let who = datagram.local_addr().to_string();
        Ok(datagram.write_all(who.as_bytes())?)
    });
    let server = receive(UdpServer::with_strategy("[::]:0", who, Sequential).unwrap());
    let to: SocketAddr = format!("[fe80::1%1]:{}", server.addr().port()).parse().unwrap();
    assert_eq!(ask(to), (to.to_string(), to));
    // A client with another address is answered from this one too.
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.send_to(b"who", to).unwrap();
    assert_eq!(uninterrupted(|| client.recv_from(&mut [0; 100])).unwrap().1, to);
}

struct Greeting;

impl Protocol for Greeting {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        let local = transport.local_addr().to_string();
        transport.write(local.as_bytes())?;
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

struct Hearing(std::sync::mpsc::Sender<(String, String)>);

impl Protocol for Hearing {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(self.0.send((transport.peer_addr().to_string(), String::from_utf8_lossy(data).into_owned()))?)
    }
}

fn in_a_loop(text: &str) {
    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(text, factory(|_peer| Greeting)).unwrap();
    let local = port.local_addr().to_string();
    let to = text.replace("]:0", &format!("]:{}", port.local_addr().port().unwrap()));
    let (heard, hears) = channel();
    reactor.context().connect(Connect::to(to), factory(move |_peer| Hearing(heard.clone())));
    let mut got = None;
    until("the greeting", || {
        reactor.turn(Some(ms(1))).unwrap();
        got = hears.try_recv().ok();
        got.is_some()
    });
    assert_eq!(got.unwrap(), (local.clone(), local));
}
