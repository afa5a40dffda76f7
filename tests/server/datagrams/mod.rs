//! Servers of datagrams, on every strategy that serves in this process. `datagram_programs.rs` has the same for `Forking`.

mod limits;
mod unix;

use crate::support;
use std::io::{self, BufRead, Read, Write};
use std::net::UdpSocket;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixDatagram, UnixListener};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::datagrams::{client_of, next, next_unix, nothing_for, receive, send, unix_client, EchoBack, Receiving};
use crate::kit::{ms, strategies, until, AnyStrategy, Folder, LONG};
use socketserver::connection::DatagramTooLong;
use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{
    datagram_handler, Addr, AtLimit, Datagram, DatagramRequestHandler, Error, Failure, HandlerResult, Limit,
    Sequential, ServerBuilder, ThreadPool, Threading, UdpServer,
};

const ANY: &str = "127.0.0.1:0";

/// A strategy of one's own, which knows nothing of datagrams.
struct Spawning;

impl ServingStrategy for Spawning {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        assert!(request.socket().is_none(), "a datagram has none of its own");
        std::thread::spawn(move || request.run());
        Ok(())
    }
}

/// Each once, a user's own included.
fn all() -> Vec<(&'static str, AnyStrategy)> {
    let mut all = strategies();
    all.push(("Spawning", Box::new(Spawning)));
    all
}

/// Does as the datagram says; echoes what it does not know.
fn obeys(datagram: &mut Datagram) -> HandlerResult {
    match datagram.data() {
        b"silent" => {}
        b"fail" => {
            write!(datagram, "half a")?;
            return Err("as it was told".into());
        }
        b"panic" => {
            write!(datagram, "half a")?;
            panic!("as it was told");
        }
        b"stop" => {
            datagram.server().shutdown();
            write!(datagram, "stopping")?;
        }
        b"who" => {
            let who = format!("{} to {}", datagram.peer_addr(), datagram.local_addr());
            write!(datagram, "{who}")?;
        }
        _ => {
            let (n, len) = (datagram.data().len(), datagram.original_len());
            write!(datagram, "{n} of {len}{}", if datagram.is_truncated() { ", truncated" } else { "" })?;
        }
    }
    Ok(())
}

fn obeying(builder: ServerBuilder<impl ServingStrategy + 'static>) -> Receiving {
    receive(builder.bind_udp(ANY, datagram_handler(obeys)).unwrap())
}

struct Held<H> {
    handler: H,
    begun: Receiver<()>,
}

/// A handler that tells that it has begun, waits for its release, and echoes.
fn held_handler() -> (Sender<()>, Held<impl DatagramRequestHandler>) {
    let ((begins, begun), (release, released)) = (channel(), channel::<()>());
    let (begins, released) = (Mutex::new(begins), Mutex::new(released));
    let handler = datagram_handler(move |datagram| {
        begins.lock().unwrap().send(())?;
        released.lock().unwrap().recv_timeout(LONG)?;
        EchoBack.handle(datagram)
    });
    (release, Held { handler, begun })
}

#[test]
fn every_strategy_replies_from_the_address_that_was_sent_to() {
    for (name, strategy) in all() {
        let server = receive(ServerBuilder::new().strategy(strategy).bind_udp(ANY, EchoBack).unwrap());
        let clients: Vec<_> = (0..8).map(|_| server.client()).collect();
        for round in 0..10 {
            let text = |n: usize| format!("{name} {n} {round}");
            clients.iter().enumerate().for_each(|(n, client)| send(client, text(n)));
            clients.iter().enumerate().for_each(|(n, client)| assert_eq!(next(client), text(n)));
        }
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.accept_errors), (80, 80, 0), "{name}");
    }
}

#[test]
fn an_empty_datagram_is_a_request_and_nothing_written_is_no_reply() {
    for (name, strategy) in all() {
        let server = obeying(ServerBuilder::new().strategy(strategy));
        let client = server.client();
        client.send(b"").unwrap();
        assert_eq!(next(&client), "0 of 0", "{name}");
        client.send(b"silent").unwrap();
        until("it is served", || server.handle.stats().served == 2);
        assert!(nothing_for(&client), "{name}: not even an empty datagram");
    }
}

#[test]
fn after_an_error_or_a_panic_nothing_is_sent_and_the_server_goes_on() {
    for (name, strategy) in all() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = told.clone();
        let server = obeying(ServerBuilder::new().strategy(strategy).handle_error(move |failure| {
            let kind = if matches!(failure, Failure::Panic { .. }) { "panic" } else { "error" };
            hook.lock().unwrap().push(format!("{kind}: {failure}"));
        }));
        let client = server.client();
        for what in ["fail", "panic"] {
            let before = server.handle.stats().failed;
            client.send(what.as_bytes()).unwrap();
            until("it has failed", || server.handle.stats().failed > before);
            assert!(nothing_for(&client), "{name}: {what}");
        }
        assert_eq!(server.ask("on"), "2 of 2", "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.failed, report.panicked), (1, 2, 1), "{name}");
        let peer = client.local_addr().unwrap();
        let lines = [
            format!("error: the handler of {peer} failed: as it was told"),
            format!("panic: the handler of {peer} panicked: as it was told"),
        ];
        assert_eq!(*told.lock().unwrap(), lines, "{name}");
    }
}

#[test]
fn the_longest_datagram_is_received_whole_and_sent_back() {
    let server = receive(UdpServer::with_strategy(ANY, EchoBack, Sequential).unwrap());
    let (client, longest) = (server.client(), vec![b'x'; 65_507]);
    client.send(&longest).unwrap();
    assert_eq!(next(&client).into_bytes(), longest);
}

#[test]
fn what_is_longer_than_max_packet_size_is_cut_and_says_so() {
    let server = obeying(ServerBuilder::new().max_packet_size(100));
    assert_eq!(server.ask(&"x".repeat(100)), "100 of 100");
    assert_eq!(server.ask(&"x".repeat(101)), "100 of 101, truncated");
    assert_eq!(server.ask(&"x".repeat(60_000)), "100 of 60000, truncated");
    assert_eq!(server.ask("short again"), "11 of 11");
}

#[test]
fn a_packet_size_of_nothing_is_an_error() {
    let wrong = |size| ServerBuilder::new().max_packet_size(size).bind_udp(ANY, EchoBack).unwrap_err().to_string();
    assert!(wrong(0).starts_with("max_packet_size: "), "{}", wrong(0));
    assert!(wrong(usize::MAX).starts_with("max_packet_size: "));
}

/// What a handler does; what becomes of it, as the hook hears; and what its client gets.
fn failure_of(
    builder: ServerBuilder<impl ServingStrategy + 'static>,
    handler: impl Fn(&mut Datagram) -> HandlerResult + Send + Sync + 'static,
) -> (String, socketserver::Report) {
    let told = Arc::new(Mutex::new(String::new()));
    let hook = told.clone();
    let builder = builder.handle_error(move |failure| *hook.lock().unwrap() = failure.to_string());
    let server = receive(builder.bind_udp(ANY, datagram_handler(handler)).unwrap());
    let client = server.client();
    client.send(b"x").unwrap();
    until("it is done", || server.handle.stats().accepted == 1 && server.handle.stats().active == 0);
    assert!(nothing_for(&client));
    let report = server.stop();
    let told = told.lock().unwrap().clone();
    (told.split_once(": ").map(|(_, why)| why.to_owned()).unwrap_or_default(), report)
}

#[test]
fn a_reply_too_long_for_a_datagram_is_an_error_with_the_sizes() {
    let sizes = |e: &io::Error| {
        let why = e.get_ref().and_then(|e| e.downcast_ref::<DatagramTooLong>()).expect("typed");
        (e.kind(), why.size, why.limit)
    };
    let (why, report) = failure_of(ServerBuilder::new(), move |datagram| {
        datagram.write_all(&[0; 65_507])?; // so much is no error yet
        let e = datagram.write_all(&[0; 3]).unwrap_err();
        assert_eq!(sizes(&e), (io::ErrorKind::InvalidInput, 65_510, 65_507));
        Ok(()) // a handler that ignores the error sends no half of it
    });
    assert_eq!(
        (why.as_str(), report.failed),
        ("65510 bytes are too long for a datagram, which can have 65507 here", 1)
    );
    let (why, report) = failure_of(ServerBuilder::new(), |datagram| {
        let to = datagram.peer_addr();
        Ok(datagram.send_to(&to, &[0; 70_000])?)
    });
    assert_eq!(
        (why.as_str(), report.failed),
        ("70000 bytes are too long for a datagram, which can have 65507 here", 1)
    );
}

#[test]
fn a_datagram_is_read_by_lines_and_written_as_one() {
    let numbers = datagram_handler(|datagram| {
        let mut first = String::new();
        datagram.read_line(&mut first)?;
        let mut rest = Vec::new();
        datagram.read_to_end(&mut rest)?;
        assert_eq!(datagram.data(), [first.as_bytes(), &rest].concat(), "what was read is still there");
        for part in ["one", " ", "reply"] {
            datagram.write_all(part.as_bytes())?;
            datagram.flush()?;
        }
        write!(datagram, ": {first:?} {}", rest.len())?;
        Ok(())
    });
    let server = receive(UdpServer::with_strategy(ANY, numbers, Sequential).unwrap());
    assert_eq!(server.ask("12\n345"), "one reply: \"12\\n\" 3");
    assert_eq!(server.ask(""), "one reply: \"\" 0");
}

#[test]
fn a_handler_may_send_more_than_its_reply() {
    let to_both = datagram_handler(|datagram| {
        let other: Addr = std::str::from_utf8(datagram.data())?.parse()?;
        let me = datagram.peer_addr();
        datagram.send_to(&other, b"to the other")?;
        datagram.send_to(&me, b"")?;
        Ok(write!(datagram, "to me")?)
    });
    let server = receive(UdpServer::with_strategy("0.0.0.0:0", to_both, Sequential).unwrap());
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.set_read_timeout(Some(LONG)).unwrap();
    let client = client_of(([127, 0, 0, 1], server.addr().port()).into());
    client.send(other.local_addr().unwrap().to_string().as_bytes()).unwrap();
    assert_eq!([next(&client), next(&client)], ["", "to me"]);
    assert_eq!(next(&other), "to the other");
}

// Addresses.

#[test]
fn bound_to_all_addresses_it_replies_from_the_one_that_was_sent_to() {
    for wildcard in ["0.0.0.0:0", "[::]:0"] {
        let server = match UdpServer::with_strategy(wildcard, datagram_handler(obeys), Threading::new()) {
            Ok(server) => receive(server),
            Err(Error::Listen { .. }) if wildcard.starts_with('[') => continue, // no IPv6 here
            Err(e) => panic!("{e}"),
        };
        let port = server.addr().port();
        for ip in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 8, 7]] {
            let client = client_of((ip, port).into()); // it hears that address only
            client.send(b"who").unwrap();
            let told: Vec<Addr> = next(&client).split(" to ").map(|addr| addr.parse().unwrap()).collect();
            assert_eq!(told[0].port(), Some(client.local_addr().unwrap().port()));
            assert_eq!((told[1].ip(), told[1].port()), (Some(ip.into()), Some(port)), "{wildcard}");
        }
        if wildcard.starts_with('[') {
            let client = client_of(([0, 0, 0, 0, 0, 0, 0, 1], port).into());
            client.send(b"who").unwrap();
            assert!(next(&client).ends_with(&format!(" to [::1]:{port}")));
        }
    }
}

#[test]
fn an_address_that_somebody_receives_on_is_refused() {
    let first = UdpServer::with_strategy(ANY, EchoBack, Sequential).unwrap();
    let e = UdpServer::with_strategy(first.local_addr().to_string(), EchoBack, Sequential).unwrap_err();
    assert!(matches!(&e, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{e}");
}

#[test]
fn one_server_receives_on_several_addresses() {
    let builder = ServerBuilder::new().listen("127.0.0.2:0").strategy(Sequential);
    let server = builder.bind_udp(ANY, datagram_handler(obeys)).unwrap();
    let addrs: Vec<_> = server.local_addrs().map(|addr| addr.socket_addr().unwrap()).collect();
    assert_eq!(addrs.len(), 2);
    let server = receive(server);
    for addr in addrs {
        let client = client_of(addr);
        client.send(b"who").unwrap();
        assert_eq!(next(&client), format!("{} to {addr}", client.local_addr().unwrap()));
    }
    assert_eq!(server.stop().served, 2);
}

/// As `socketserver`'s documentation has its client, and `nc -u`.
#[test]
fn the_clients_of_pythons_documentation_are_answered() {
    let Some(mut python) = support::tool("python3") else { return };
    let upper = datagram_handler(|datagram| {
        let upper = datagram.data().trim_ascii().to_ascii_uppercase();
        Ok(datagram.write_all(&upper)?)
    });
    let server = receive(UdpServer::with_strategy(ANY, upper, Threading::new()).unwrap());
    let script = "\
import socket, sys
HOST, PORT = 'localhost', int(sys.argv[1])
data = 'hello world'
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(30)
sock.sendto(bytes(data + '\\n', 'utf-8'), (HOST, PORT))
received = str(sock.recv(1024), 'utf-8')
print(f'Sent:     {data}')
print(f'Received: {received}')
";
    let told = python.args(["-c", script, &server.addr().port().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "Sent:     hello world\nReceived: HELLO WORLD\n", "{told:?}");
}
