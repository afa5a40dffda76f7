//! Servers of datagrams, on every strategy that serves in this process. `fork_programs.rs` has the same for `Forking`.

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
        Ok(()) // who does not heed it sends no half of it
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

// Unix sockets.

fn unix_server(folder: &Folder, builder: ServerBuilder<impl ServingStrategy + 'static>) -> Receiving {
    receive(builder.bind_unix_datagram(folder.path("server"), datagram_handler(obeys)).unwrap())
}

#[test]
fn unix_clients_with_a_name_are_answered_whatever_it_is() {
    let folder = Folder::new();
    for (name, strategy) in all() {
        let server = unix_server(&folder, ServerBuilder::new().strategy(strategy));
        let client = unix_client(&folder.path("client"), &folder.path("server"));
        client.send(b"who").unwrap();
        let (ours, theirs) = (folder.path("server"), folder.path("client"));
        let expected = format!("unix:{} to unix:{}", theirs.display(), ours.display());
        assert_eq!(next_unix(&client), expected.into_bytes(), "{name}");
        std::fs::remove_file(theirs).unwrap();

        let name = format!("socketserver-test-client-{}", std::process::id());
        let client = UnixDatagram::bind_addr(&UnixSocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        client.send_to(b"who", folder.path("server")).unwrap();
        assert!(next_unix(&client).starts_with(format!("unix:@{name} to ").as_bytes()));
        assert_eq!(server.stop().served, 2);
    }
}

#[test]
fn an_abstract_name_is_received_on() {
    let name = format!("socketserver-test-server-{}", std::process::id());
    let server = receive(UdpServer::with_strategy(format!("unix:@{name}"), EchoBack, Sequential).unwrap());
    let folder = Folder::new();
    let client = UnixDatagram::bind(folder.path("client")).unwrap();
    client.connect_addr(&UnixSocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(next_unix(&client), b"hello");
    drop(server);
}

#[test]
fn a_client_without_a_name_cannot_be_answered_and_the_error_says_so() {
    let folder = Folder::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = told.clone();
    let server = unix_server(
        &folder,
        ServerBuilder::new().handle_error(move |failure| hook.lock().unwrap().push(failure.to_string())),
    );
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"silent", folder.path("server")).unwrap(); // who asks for nothing is served
    client.send_to(b"who", folder.path("server")).unwrap();
    until("both are done", || server.handle.stats().accepted == 2 && server.handle.stats().active == 0);
    let report = server.stop();
    assert_eq!((report.served, report.failed), (1, 1));
    let why = "the handler of unix: failed: the peer has no address to reply to: its socket is bound to no name";
    assert_eq!(*told.lock().unwrap(), [why]);
}

#[test]
fn a_unix_client_that_has_gone_is_no_failure() {
    let folder = Folder::new();
    let (release, held) = held_handler();
    let server = ServerBuilder::new().bind_unix_datagram(folder.path("server"), held.handler).unwrap();
    let server = receive(server);
    for remove in [false, true] {
        let client = unix_client(&folder.path("client"), &folder.path("server"));
        client.send(b"x").unwrap();
        held.begun.recv_timeout(LONG).unwrap();
        drop(client);
        if remove {
            std::fs::remove_file(folder.path("client")).unwrap();
        }
        release.send(()).unwrap();
        until("it is done", || server.handle.stats().active == 0);
        let _ = std::fs::remove_file(folder.path("client"));
    }
    let report = server.stop();
    assert_eq!((report.disconnected, report.failed), (2, 0));
}

/// Sends to itself through the server until nothing more fits, and reads nothing.
fn fill(client: &UnixDatagram, server: &Receiving) {
    client.set_nonblocking(true).unwrap();
    until("the client's queue is full", || {
        let _ = client.send(b"fill");
        server.handle.stats().active > 0 && server.handle.stats().served > 0 && {
            let served = server.handle.stats().served;
            !support::comes_true(ms(100), || server.handle.stats().served > served)
        }
    });
    client.set_nonblocking(false).unwrap();
}

#[test]
fn a_client_that_reads_nothing_holds_a_handler_up_to_the_write_limit() {
    let folder = Folder::new();
    let builder = ServerBuilder::new().strategy(Sequential).write_timeout(ms(300));
    let server = unix_server(&folder, builder);
    let client = unix_client(&folder.path("client"), &folder.path("server"));
    fill(&client, &server);
    until("the limit has ended one", || server.handle.stats().timed_out > 0);
    let before = server.handle.stats().served;
    assert!(!next_unix(&client).is_empty());
    client.send(b"and another").unwrap();
    until("there is room again", || server.handle.stats().served > before);
    let report = server.stop();
    assert_eq!(report.failed, report.timed_out, "{report}");
}

#[test]
fn a_reply_that_waits_for_room_ends_with_the_drain() {
    let folder = Folder::new();
    for (strategy, now) in [(Box::new(Sequential) as AnyStrategy, false), (Box::new(Threading::new()), true)] {
        let server = unix_server(&folder, ServerBuilder::new().strategy(strategy).drain_timeout(ms(100)));
        let client = unix_client(&folder.path("client"), &folder.path("server"));
        fill(&client, &server);
        let began = Instant::now();
        if now {
            server.handle.shutdown_now();
        }
        let report = server.stop();
        assert!(began.elapsed() < Duration::from_secs(10), "the write limit is 30 s");
        assert!(report.timed_out >= 1 && report.forced >= 1, "{report}");
        std::fs::remove_file(folder.path("client")).unwrap();
    }
}

#[test]
fn a_socket_s_file_is_the_owner_s_and_goes_with_the_server() {
    let folder = Folder::new();
    let path = folder.path("server");
    drop(UnixDatagram::bind(&path).unwrap()); // dead: replaced
    let server = ServerBuilder::new().unix_mode(0o620).bind_unix_datagram(&path, EchoBack).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o620);
    let second = ServerBuilder::new().bind_unix_datagram(&path, EchoBack).unwrap_err();
    assert!(matches!(&second, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{second}");
    drop(server);
    assert!(!path.exists() && !folder.path("server.lock").exists());

    let server = UdpServer::with_strategy(path.as_path(), EchoBack, Sequential).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    drop(server);
    let is_refused = |what: &str| {
        let e = ServerBuilder::new().bind_unix_datagram(&path, EchoBack).unwrap_err();
        assert!(matches!(&e, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{what}: {e}");
        std::fs::remove_file(&path).unwrap();
    };
    let others = UnixDatagram::bind(&path).unwrap();
    is_refused("a datagram socket");
    drop(others);
    let others = UnixListener::bind(&path).unwrap();
    is_refused("a stream socket");
    drop(others);
}

// Limits, hooks, the stop.

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
fn never_more_handlers_run_than_the_limit_and_the_kernel_s_queue_waits() {
    for (name, strategy) in
        [("Threading", Box::new(Threading::new()) as AnyStrategy), ("ThreadPool", Box::new(ThreadPool::new(8)))]
    {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, seen) = (running.clone(), most.clone());
        let slow = datagram_handler(move |datagram| {
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(ms(2)); // so that they overlap
            now.fetch_sub(1, SeqCst);
            EchoBack.handle(datagram)
        });
        let builder = ServerBuilder::new().strategy(strategy).max_connections(3);
        let server = receive(builder.bind_udp(ANY, slow).unwrap());
        let client = server.client();
        (0..60).for_each(|n| send(&client, n.to_string()));
        let mut replies: Vec<usize> = (0..60).map(|_| next(&client).parse().unwrap()).collect();
        replies.sort_unstable();
        assert!(replies.into_iter().eq(0..60), "{name}: none is lost, none comes twice");
        assert_eq!(most.load(SeqCst), 3, "{name}");
        assert_eq!(server.stop().served, 60);
    }
}

#[test]
fn a_server_that_refuses_at_its_limit_replies_with_its_message() {
    let (release, held) = held_handler();
    let builder = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(b"busy".to_vec()));
    let server = receive(builder.bind_udp(ANY, held.handler).unwrap());
    let first = server.client();
    first.send(b"first").unwrap();
    held.begun.recv_timeout(LONG).unwrap();
    assert_eq!(server.ask("second"), "busy");
    release.send(()).unwrap();
    assert_eq!(next(&first), "first");
    let report = server.stop();
    assert_eq!((report.accepted, report.served, report.refused), (2, 1, 1));
}

#[test]
fn verify_request_decides_about_each_datagram() {
    for (name, strategy) in all() {
        let builder = ServerBuilder::new().strategy(strategy).verify_request(|incoming| {
            assert_eq!(incoming.peer_credentials(), None);
            incoming.peer_addr().ip() != Some([127, 0, 0, 3].into()) && incoming.local_addr().port() != Some(0)
        });
        let server = obeying(builder);
        let refused = UdpSocket::bind("127.0.0.3:0").unwrap();
        refused.send_to(b"x", server.addr()).unwrap();
        until("it is refused", || server.handle.stats().refused == 1);
        assert!(nothing_for(&refused), "{name}");
        assert_eq!(server.ask("x"), "1 of 1", "{name}");
    }
}

#[test]
fn single_requests_are_served_and_waited_for_in_vain() {
    for (name, strategy) in all() {
        let missed = Arc::new(AtomicUsize::new(0));
        let counted = missed.clone();
        let builder = ServerBuilder::new().strategy(strategy).handle_timeout(move || {
            counted.fetch_add(1, SeqCst);
        });
        let mut server = builder.bind_udp(ANY, EchoBack).unwrap();
        assert!(!server.handle_request(Some(ms(5))).unwrap());
        assert_eq!(missed.load(SeqCst), 1, "{name}");
        let client = client_of(server.local_addr().socket_addr().unwrap());
        for text in ["one", "two"] {
            client.send(text.as_bytes()).unwrap();
        }
        assert!(server.handle_request(None).unwrap());
        assert_eq!(next(&client), "one", "{name}");
        assert!(nothing_for(&client), "{name}: one is one");
        assert!(server.handle_request(Some(LONG)).unwrap());
        assert_eq!(next(&client), "two", "{name}");
    }
}

#[test]
fn service_actions_are_called_while_nothing_comes() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let server = obeying(ServerBuilder::new().service_actions(ms(1), move || {
        counted.fetch_add(1, SeqCst);
    }));
    until("three turns", || turns.load(SeqCst) >= 3);
    drop(server);
}

#[test]
fn what_is_queued_at_the_stop_is_served_and_then_it_stops() {
    for (name, strategy) in
        [("Sequential", Box::new(Sequential) as AnyStrategy), ("Threading", Box::new(Threading::new()))]
    {
        let (release, held) = held_handler();
        let builder = ServerBuilder::new().strategy(strategy).max_connections(1);
        let mut server = receive(builder.bind_udp(ANY, held.handler).unwrap());
        let client = server.client();
        (0..5).for_each(|n| send(&client, n.to_string()));
        held.begun.recv_timeout(LONG).unwrap();
        server.handle.shutdown();
        (0..5).for_each(|_| release.send(()).unwrap());
        let replies: Vec<String> = (0..5).map(|_| next(&client)).collect();
        assert_eq!(replies, ["0", "1", "2", "3", "4"], "{name}");
        let report = server.joined();
        assert_eq!((report.accepted, report.served, report.drained), (5, 5, 5), "{name}");
    }
}

#[test]
fn a_flood_does_not_hold_up_a_stop() {
    let server = obeying(ServerBuilder::new().drain_timeout(ms(300)));
    let client = server.client();
    let stop = Arc::new(AtomicUsize::new(0));
    let told = stop.clone();
    let flood = std::thread::spawn(move || {
        while told.load(SeqCst) == 0 {
            let _ = client.send(b"silent");
        }
    });
    until("it is flooded", || server.handle.stats().served > 1000);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    stop.store(1, SeqCst);
    flood.join().unwrap();
}

#[test]
fn a_handler_may_stop_its_server_which_may_serve_again() {
    for (name, strategy) in all() {
        let builder = ServerBuilder::new().strategy(strategy);
        let mut server = builder.bind_udp(ANY, datagram_handler(obeys)).unwrap();
        let client = client_of(server.local_addr().socket_addr().unwrap());
        for _ in 0..2 {
            client.send(b"stop").unwrap();
            let report = server.serve_forever().unwrap();
            assert_eq!((report.served, report.drained), (1, 1), "{name}");
            assert_eq!(next(&client), "stopping", "{name}");
        }
    }
}

#[test]
fn a_handler_that_a_drain_leaves_behind_keeps_no_address() {
    let (release, held) = held_handler();
    let builder = ServerBuilder::new().drain_timeout(ms(50));
    let server = receive(builder.bind_udp(ANY, held.handler).unwrap());
    let (client, addr) = (server.client(), server.addr());
    send(&client, "x");
    held.begun.recv_timeout(LONG).unwrap();
    assert_eq!(server.stop().abandoned, 1);
    drop(UdpSocket::bind(addr).expect("the address is free although a handler is left"));
    release.send(()).unwrap();
}

#[test]
fn a_handler_that_a_drain_leaves_behind_sends_no_reply() {
    let (release, held) = held_handler();
    let (told, hears) = channel();
    let told = Mutex::new(told);
    let builder = ServerBuilder::new().drain_timeout(ms(50)).handle_error(move |failure| {
        if let Failure::Error { error, .. } = failure {
            let limit = error.downcast_ref::<io::Error>().and_then(Limit::of);
            told.lock().unwrap().send(limit).unwrap();
        }
    });
    let mut server = builder.bind_udp(ANY, held.handler).unwrap();
    let client = client_of(server.local_addr().socket_addr().unwrap());
    let handle = server.handle();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_forever().unwrap());
        send(&client, "x");
        held.begun.recv_timeout(LONG).unwrap();
        handle.shutdown();
        assert_eq!(serving.join().unwrap().abandoned, 1);
    });
    release.send(()).unwrap(); // the server is still there, and its socket
    assert_eq!(hears.recv_timeout(LONG).unwrap(), Some(Limit::Drain));
    assert!(nothing_for(&client));
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
