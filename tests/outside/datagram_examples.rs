//! The example servers of datagrams, as processes: what they show, and how they stop.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use nix::sys::socket::{sendto, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn};

use crate::support::{procfs, tool, uninterrupted, until, Server, AT_ONCE, LIMIT};

fn client(server: &Server) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.connect(server.addr()).unwrap();
    client
}

fn ask(server: &Server, text: &str) -> String {
    let (client, mut buf) = (client(server), [0; 1000]);
    client.send(text.as_bytes()).unwrap();
    let n = uninterrupted(|| client.recv(&mut buf)).unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

#[test]
fn the_udp_server_answers_in_upper_case_on_every_strategy() {
    for strategy in ["sequential", "threading", "thread-pool", "forking"] {
        let mut server = Server::start("udp_server", &["--strategy", strategy]);
        assert_eq!(ask(&server, "hello world\n"), "HELLO WORLD\n", "{strategy}");
        assert_eq!(ask(&server, "pid") == format!("{}\n", server.pid()), strategy != "forking");
        client(&server).send(b"panic").unwrap();
        server.until_logged("it was told to");
        assert_eq!(ask(&server, ""), "\n", "{strategy}: an empty datagram is a request");
        until("it prints the sender", || server.stdout().iter().any(|line| line.ends_with(r#"wrote: "hello world""#)));
        server.signal(if strategy == "forking" { "INT" } else { "TERM" });
        server.ended().well_within(AT_ONCE);
        assert_eq!(procfs::descendants(server.pid()), [], "{strategy}");
        server.until_logged("accepted 4, served 3, failed 1");
    }
}

#[test]
fn a_child_that_aborts_is_no_end_of_the_udp_server() {
    let mut server = Server::start("udp_server", &["--strategy", "forking"]);
    client(&server).send(b"abort").unwrap();
    server.until_logged("was killed by SIGABRT");
    assert_eq!(ask(&server, "on"), "ON\n");
    server.term().well_within(AT_ONCE);
}

#[test]
fn a_second_signal_ends_the_udp_server_at_once() {
    for (name, args) in [("udp_server", &["--strategy", "sequential"][..]), ("udp_echo_loop", &[])] {
        let mut server = Server::start(name, args);
        server.signal("STOP"); // so that both signals find it in the middle of its work
        server.signal("TERM");
        server.signal("INT");
        server.signal("CONT");
        let ended = server.ended();
        assert!(matches!(ended.code(), Some(130 | 143)), "{name}: {ended:?}");
    }
}

#[test]
fn the_echo_loop_echoes_and_stops() {
    let mut server = Server::start("udp_echo_loop", &[]);
    assert_eq!(ask(&server, "hello"), "hello");
    assert_eq!(ask(&server, ""), "");
    server.term().well_within(AT_ONCE);
    until("its last words", || server.stdout().contains(&"echoed 2, dropped 0".to_owned()));
}

#[test]
fn unix_paths_are_received_on_and_removed() {
    for name in ["udp_server", "udp_echo_loop"] {
        let path = |what| std::env::temp_dir().join(format!("{name}-{what}-{}", std::process::id()));
        let mut server = Server::start_at(&format!("unix:{}", path("server").display()), name, &[]);
        let client = UnixDatagram::bind(path("client")).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.send_to(b"HELLO\n", path("server")).unwrap();
        let mut buf = [0; 100];
        assert_eq!(uninterrupted(|| client.recv(&mut buf)).unwrap(), 6);
        assert_eq!(&buf[..6], b"HELLO\n");
        std::fs::remove_file(path("client")).unwrap();
        server.term().well_within(AT_ONCE);
        assert!(!path("server").exists());
    }
}

#[test]
fn netcat_is_answered() {
    let Some(_) = tool("nc") else { return };
    let server = Server::start("udp_server", &[]);
    let port = server.port().to_string();
    let told = tool("sh").unwrap().args(["-c", "echo hello | nc -u -w 1 127.0.0.1 \"$0\"", &port]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "HELLO\n", "{told:?}");
}

/// Sends datagrams whose source port is 0, as a forger can. `false` without the rights for it.
fn forge(to: SocketAddr, count: usize) -> bool {
    let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp);
    let (Ok(raw), SocketAddr::V4(ip)) = (raw, to) else {
        assert_ne!(std::env::var("REQUIRE_TOOLS").as_deref(), Ok("1"), "no raw socket");
        println!("skipped: no raw socket for us");
        return false;
    };
    let mut datagram = Vec::new();
    // Source, destination, length, and no checksum.
    [0, to.port(), 12, 0].iter().for_each(|field| datagram.extend(field.to_be_bytes()));
    datagram.extend(b"ping");
    for _ in 0..count {
        let sent = sendto(raw.as_raw_fd(), &datagram, &SockaddrIn::from(ip), MsgFlags::empty());
        assert_eq!(sent, Ok(datagram.len()));
    }
    true
}

#[test]
fn senders_that_cannot_be_answered_are_no_line_above_debug() {
    let servers = [
        ("udp_server", &["--strategy", "sequential"][..]),
        ("udp_server", &["--strategy", "threading"]),
        ("udp_server", &["--strategy", "forking"]),
        ("udp_echo_loop", &[]),
    ];
    for (name, args) in servers {
        let mut server = Server::start(name, args);
        if !forge(server.addr().parse().unwrap(), 50) {
            return;
        }
        assert_eq!(ask(&server, "STILL THERE").trim_end(), "STILL THERE");
        server.term();
        server.until_logged("served 1, failed 50 (peer faults 50)");
        assert!(!server.stderr().iter().any(|line| line.contains("socketserver::handler")), "{:?}", server.stderr());
    }
}

#[test]
fn unix_clients_that_cannot_be_answered_are_no_line_above_debug() {
    for (name, args) in [("udp_server", &["--strategy", "threading"][..]), ("udp_echo_loop", &[])] {
        let path = |what| std::env::temp_dir().join(format!("{name}-{what}-{}", std::process::id()));
        let mut server = Server::start_at(&format!("unix:{}", path("wrong").display()), name, args);
        // Without a name, connected to another, and gone.
        UnixDatagram::unbound().unwrap().send_to(b"hi", path("wrong")).unwrap();
        let (_other, elsewhere) =
            (UnixDatagram::bind(path("other")).unwrap(), UnixDatagram::bind(path("else")).unwrap());
        elsewhere.connect(path("other")).unwrap();
        elsewhere.send_to(b"hi", path("wrong")).unwrap();
        UnixDatagram::bind(path("gone")).unwrap().send_to(b"hi", path("wrong")).unwrap();
        // The last one is answered: the server has taken those before it.
        let asks = UnixDatagram::bind(path("asks")).unwrap();
        asks.send_to(b"hi", path("wrong")).unwrap();
        asks.recv(&mut [0; 100]).unwrap();
        server.term();
        server.until_logged("served 1, failed 2 (peer faults 2), disconnected 1");
        assert!(!server.stderr().iter().any(|line| line.contains("socketserver::handler")), "{:?}", server.stderr());
        ["other", "else", "gone", "asks"].into_iter().for_each(|what| std::fs::remove_file(path(what)).unwrap());
    }
}
