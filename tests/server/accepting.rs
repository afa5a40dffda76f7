//! Binding and accepting: addresses, adopted sockets, single requests, strategies of one's own, bursts.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;

use crate::kit::{ask, concurrent, connect, expect, has_ipv6, ms, read_all, serve, strategies, until, Lines, LONG};
use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{
    handler, Address, AtLimit, Error, Failure, Sequential, ServerBuilder, TcpServer, ThreadPool, Threading,
};

const ANY: &str = "127.0.0.1:0";

#[test]
fn every_way_to_write_an_address_is_one() {
    let loopback = Ipv4Addr::LOCALHOST;
    let ways: [Address; 6] = [
        ANY.into(),
        ANY.to_owned().into(),
        SocketAddr::from((loopback, 0)).into(),
        (IpAddr::from(loopback), 0).into(),
        ("127.0.0.1", 0).into(),
        ANY.parse().unwrap(),
    ];
    for way in ways {
        let server = ServerBuilder::new().bind(way.clone(), Lines).unwrap();
        let addr = server.local_addr().socket_addr().unwrap();
        assert_eq!(addr.ip(), loopback, "{way}");
        assert_ne!(addr.port(), 0, "{way}");
    }
}

#[test]
fn a_bound_server_listens_before_it_serves() {
    let server = TcpServer::<_, Threading>::bind(ANY, Lines).unwrap();
    let mut early = connect(server.local_addr().socket_addr().unwrap());
    early.write_all(b"early\nquit\n").unwrap();
    let server = serve(server);
    assert_eq!(read_all(&mut early), "early\n");
    assert_eq!(server.stop().served, 1);
}

#[test]
fn a_name_is_listened_on_at_all_its_addresses_with_one_port() {
    let server = ServerBuilder::new().bind("localhost:0", Lines).unwrap();
    let addrs: Vec<_> = server.local_addrs().cloned().collect();
    let server = serve(server);
    assert!(!addrs.is_empty());
    for addr in &addrs {
        assert_eq!(addr.port(), addrs[0].port());
        assert_eq!(ask(addr.socket_addr().unwrap(), "hello\n"), "hello\n", "{addr}");
    }
    assert_eq!(server.stop().served, addrs.len() as u64);
}

#[test]
fn several_addresses_are_served_by_one_server() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).listen(ANY).listen(ANY).bind(ANY, Lines).unwrap();
        let addrs: Vec<_> = server.local_addrs().map(|a| a.socket_addr().unwrap()).collect();
        assert_eq!(addrs.len(), 3);
        let server = serve(server);
        for addr in addrs.iter().cycle().take(30) {
            assert_eq!(ask(*addr, "hello\n"), "hello\n", "{name}");
        }
        assert_eq!(server.stop().served, 30, "{name}");
    }
}

/// One listener's crowd does not keep another's client waiting.
#[test]
fn listeners_are_served_fairly() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).listen(ANY).bind(ANY, Lines).unwrap();
        let addrs: Vec<_> = server.local_addrs().map(|a| a.socket_addr().unwrap()).collect();
        let server = serve(server);
        let done = Arc::new(AtomicUsize::new(0));
        let crowd: Vec<_> = (0..4)
            .map(|_| {
                let (addr, done) = (addrs[0], done.clone());
                thread::spawn(move || {
                    while done.load(SeqCst) == 0 {
                        assert_eq!(ask(addr, "crowd\n"), "crowd\n");
                    }
                })
            })
            .collect();
        for _ in 0..20 {
            assert_eq!(ask(addrs[1], "lone\n"), "lone\n", "{name}");
        }
        done.store(1, SeqCst);
        crowd.into_iter().for_each(|client| client.join().unwrap());
        drop(server);
    }
}

#[test]
fn both_families_can_have_one_port() {
    if !has_ipv6() {
        return;
    }
    let six = ServerBuilder::new().only_v6(true).bind("[::]:0", Lines).unwrap();
    let port = six.local_addr().port().unwrap();
    let four = ServerBuilder::new().bind(format!("0.0.0.0:{port}"), handler(|c| Ok(write!(c, "four")?))).unwrap();
    let (six, four) = (serve(six), serve(four));
    assert_eq!(ask((Ipv6Addr::LOCALHOST, port).into(), "six\n"), "six\n");
    assert_eq!(read_all(&mut connect((Ipv4Addr::LOCALHOST, port).into())), "four");
    assert_eq!((six.stop().served, four.stop().served), (1, 1));
}

#[test]
fn one_socket_takes_both_families_if_so_told() {
    if !has_ipv6() {
        return;
    }
    let server = serve(ServerBuilder::new().only_v6(false).bind("[::]:0", Lines).unwrap());
    let port = server.addr().port();
    assert_eq!(ask((Ipv6Addr::LOCALHOST, port).into(), "six\n"), "six\n");
    assert_eq!(ask((Ipv4Addr::LOCALHOST, port).into(), "four\n"), "four\n");
}

#[test]
fn a_listening_socket_is_taken_over() {
    for (name, strategy) in strategies() {
        let socket = TcpListener::bind(ANY).unwrap();
        let addr = socket.local_addr().unwrap();
        let server = ServerBuilder::new().strategy(strategy).from_listener(socket, Lines).unwrap();
        assert_eq!(server.local_addr().socket_addr(), Some(addr));
        assert_eq!(serve(server).ask("hello\n"), "hello\n", "{name}");
    }
}

#[test]
fn a_socket_that_does_not_listen_is_an_error() {
    let socket = TcpListener::bind(ANY).unwrap();
    let connected = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    let error = ServerBuilder::new().from_listener(TcpListener::from(OwnedFd::from(connected)), Lines).unwrap_err();
    assert!(matches!(&error, Error::Listen { source, .. } if source.kind() == io::ErrorKind::InvalidInput), "{error}");
}

/// As a service manager may pass: nothing of it is found out by the first client only (A17).
#[test]
fn a17_what_is_no_stream_socket_that_listens_is_an_error() {
    let datagrams = OwnedFd::from(std::net::UdpSocket::bind(ANY).unwrap());
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let pipe = OwnedFd::from(std::io::pipe().unwrap().0);
    let connected = OwnedFd::from(UnixStream::pair().unwrap().0);
    for odd in [datagrams, file, pipe, connected] {
        let error = ServerBuilder::new().from_listener(TcpListener::from(odd), Lines).unwrap_err();
        assert!(matches!(error, Error::Listen { .. }), "{error}");
    }
}

#[test]
fn a_single_request_is_handled_or_times_out() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        assert!(!server.handle_request(Some(ms(20))).unwrap(), "{name}: nobody came");
        for n in 0..3 {
            let mut client = connect(server.local_addr().socket_addr().unwrap());
            client.write_all(b"one\nquit\n").unwrap();
            assert!(server.handle_request(Some(LONG)).unwrap(), "{name}");
            assert_eq!(read_all(&mut client), "one\n", "{name}");
            until("it is counted", || server.handle().stats().served == n + 1);
        }
    }
}

#[test]
fn a_single_request_is_not_waited_for_once_told_to_stop() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let handle = server.handle();
        let stops = thread::spawn(move || {
            thread::sleep(ms(20));
            handle.shutdown();
        });
        assert!(!server.handle_request(None).unwrap(), "{name}");
        stops.join().unwrap();
    }
}

#[test]
fn a_single_request_is_handled_after_a_run_has_ended() {
    let mut server = ServerBuilder::new().strategy(Sequential).bind(ANY, Lines).unwrap();
    server.handle().shutdown();
    server.serve_forever().unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    client.write_all(b"again\nquit\n").unwrap();
    assert!(server.handle_request(Some(LONG)).unwrap());
    assert_eq!(read_all(&mut client), "again\n");
    assert!(!server.handle().is_shutting_down());
    let since = std::time::Instant::now();
    assert!(!server.handle_request(Some(ms(50))).unwrap());
    assert!(since.elapsed() >= ms(50), "it waited for a client, as it was told");
}

#[test]
fn a_burst_of_connections_is_served_whole() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).max_connections(1).bind(ANY, Lines).unwrap();
        let addr = server.local_addr().socket_addr().unwrap();
        let mut clients: Vec<_> = (0..500).map(|_| connect(addr)).collect(); // nobody accepts yet
        let server = serve(server);
        for (n, client) in clients.iter_mut().enumerate() {
            write!(client, "{n}\nquit\n").unwrap();
        }
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(read_all(client), format!("{n}\n"), "{name}");
        }
        let report = server.stop();
        assert_eq!((report.accepted, report.served), (500, 500), "{name}: {report}");
    }
}

#[test]
fn two_servers_of_one_process_are_apart() {
    let (a, b) = (serve(TcpServer::<_, Threading>::bind(ANY, Lines).unwrap()), serve(pool_of(2)));
    assert_eq!((a.ask("a\n"), b.ask("b\n")), ("a\n".to_owned(), "b\n".to_owned()));
    assert_eq!(a.stop().served, 1);
    assert_eq!(b.ask("still\n"), "still\n");
    assert_eq!(b.stop().served, 2);
}

fn pool_of(threads: usize) -> TcpServer<Lines, ThreadPool> {
    TcpServer::with_strategy(ANY, Lines, ThreadPool::new(threads)).unwrap()
}

/// A thread for each request, by hand; some are dropped, some are handed back.
struct Choosy {
    seen: AtomicUsize,
}

impl ServingStrategy for Choosy {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        match self.seen.fetch_add(1, SeqCst) % 3 {
            0 => {
                let socket = request.socket().expect("a connection has one").try_clone_to_owned().unwrap();
                assert_eq!(TcpStream::from(socket).peer_addr().ok(), request.peer_addr().socket_addr());
                drop(thread::spawn(move || request.run()));
            }
            1 => drop(request),
            _ => return Err(Rejected::new(request, io::Error::other("no room"))),
        }
        Ok(())
    }
}

#[test]
fn what_a_strategy_does_not_run_is_refused_and_reported() {
    let (tell, told) = mpsc::channel();
    let strategy: Box<dyn ServingStrategy> = Box::new(Choosy { seen: AtomicUsize::new(0) });
    let server = ServerBuilder::new().strategy(strategy).handle_error(move |failure: &Failure<'_>| {
        if let Failure::Refused { error, .. } = failure {
            tell.send(error.to_string()).unwrap();
        }
    });
    let server = serve(server.bind(ANY, handler(|conn| Ok(write!(conn, "served")?))).unwrap());
    let answers: Vec<_> = (0..6).map(|_| read_all(&mut server.connect())).collect();
    assert_eq!(answers, ["served", "", "", "served", "", ""]);
    let report = server.stop();
    assert_eq!((report.accepted, report.served, report.refused), (6, 2, 4), "{report}");
    let causes: Vec<_> = told.iter().collect();
    assert_eq!(causes, ["the strategy dropped it", "no room", "the strategy dropped it", "no room"]);
}

#[test]
fn beyond_the_limit_clients_wait_by_default() {
    for (name, strategy) in concurrent() {
        let server = serve(ServerBuilder::new().strategy(strategy).max_connections(1).bind(ANY, Lines).unwrap());
        let (mut first, mut second) = (server.connect(), server.connect());
        first.write_all(b"1\n").unwrap();
        expect(&mut first, "1\n");
        second.write_all(b"2\nquit\n").unwrap();
        thread::sleep(ms(50));
        assert_eq!(server.handle.stats().accepted, 1, "{name}: the second is in the kernel's queue");
        first.write_all(b"quit\n").unwrap();
        assert_eq!(read_all(&mut second), "2\n", "{name}");
    }
}

/// A close with unread input is a reset, and a reset may destroy the message.
#[test]
fn a_client_that_speaks_first_reads_the_refusal_and_no_reset() {
    for (name, strategy) in concurrent() {
        let server = ServerBuilder::new().at_limit(AtLimit::Refuse(b"busy\n".to_vec())).max_connections(1);
        let server = serve(server.strategy(strategy).bind(ANY, Lines).unwrap());
        let mut first = server.connect();
        first.write_all(b"1\n").unwrap();
        expect(&mut first, "1\n");
        for size in [1, 60_000] {
            server.handle.pause(); // so that its words are there before it is refused
            let mut eager = server.connect();
            eager.write_all(&vec![b'x'; size]).unwrap();
            server.handle.resume();
            assert_eq!(read_all(&mut eager), "busy\n", "{name}");
        }
    }
}

#[test]
fn beyond_the_limit_clients_are_told_if_so_set() {
    for (name, strategy) in concurrent() {
        let server = ServerBuilder::new().at_limit(AtLimit::Refuse(b"busy\n".to_vec())).max_connections(1);
        let server = serve(server.strategy(strategy).bind(ANY, Lines).unwrap());
        let mut first = server.connect();
        first.write_all(b"1\n").unwrap();
        expect(&mut first, "1\n");
        for _ in 0..3 {
            assert_eq!(read_all(&mut server.connect()), "busy\n", "{name}");
        }
        first.write_all(b"2\nquit\n").unwrap();
        assert_eq!(read_all(&mut first), "2\n", "{name}");
        until("the place is free", || server.handle.stats().active == 0);
        assert_eq!(server.ask("3\n"), "3\n", "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.refused, report.accepted), (2, 3, 5), "{name}: {report}");
    }
}
