//! Behind a proxy, the client's address is known, and no connection is held up by its beginning.

use std::time::{Duration, Instant};

use crate::support::{queues, until, Client, Server, Stats, AT_ONCE};
use crate::Traits;

/// A header of version 2 for the client 198.51.100.3:4242, with a unique id.
pub(crate) fn v2() -> Vec<u8> {
    let body = [198, 51, 100, 3, 192, 0, 2, 1, 0x10, 0x92, 1, 0xBB, 5, 0, 2, b'i', b'd'];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0", &[17][..], &body].concat()
}

pub(crate) const V1: &[u8] = b"PROXY TCP6 2001:db8::9 ::1 9 443\r\n";

pub(crate) fn tells_the_clients_address_behind_a_proxy(of: &Traits) {
    let server = of.start(&["--proxy-from", "127.0.0.1,::1"]);
    for (header, address) in [(V1, "[2001:db8::9]:9"), (&v2(), "198.51.100.3:4242")] {
        let mut client = server.connect();
        client.send([header, b"PEER\n"].concat());
        assert_eq!(client.line(), address);
        assert_eq!(client.ask("ECHO goes on"), "goes on");
        drop(client);

        let mut slow = server.connect();
        for byte in [header, b"PEER\n"].concat() {
            slow.send([byte]);
        }
        assert_eq!(slow.line(), address, "byte by byte");
    }
    let mut nobody = server.connect();
    let ours = nobody.local_addr().to_string();
    nobody.send("PROXY UNKNOWN\r\nPEER\n");
    assert_eq!(nobody.line(), ours, "the proxy does not know its client");
}

const FROM_HERE: &[&str] = &["--proxy-from", "127.0.0.1"];

/// The proxies' network is another one.
pub(crate) fn refuses_clients_of_other_networks(of: &Traits) {
    let mut server = of.start(&["--proxy-from", "127.0.0.2,10.0.0.0/8"]);
    let mut client = server.connect();
    client.send([V1, b"PEER\n"].concat());
    assert!(client.until_closed().is_empty());
    server.until_logged("it is no proxy");
    server.term().well_within(AT_ONCE);
    server.until_reported("accepted 1, served 0, refused 1, failed greetings 1");
}

pub(crate) fn refuses_a_connection_without_a_header(of: &Traits) {
    for (said, why) in [
        (&b"GET / HTTP/1.0\r\n\r\n"[..], "no PROXY header: the connection begins with something else"),
        (b"PROXY TCP4 999.1.1.1 127.0.0.1 1 2\r\nPEER\n", "malformed PROXY header: no address of its family"),
    ] {
        let mut server = of.start(FROM_HERE);
        let mut client = server.connect();
        client.send(said);
        assert!(client.until_closed().is_empty());
        server.until_logged(&format!("refused {}: {why}", client.local_addr()));
        let mut honest = server.connect();
        honest.send([V1, b"PEER\n"].concat());
        assert_eq!(honest.line(), "[2001:db8::9]:9");
        drop(honest);
        server.term().well_within(AT_ONCE);
        server.until_logged("accepted 2, served 1, refused 1");
    }
}

/// HAProxy connects and closes, or resets, or says that it speaks for itself.
pub(crate) fn health_checks_are_no_failures(of: &Traits) {
    let mut server = of.start(FROM_HERE);
    for _ in 0..10 {
        drop(server.connect());
        server.connect().reset();
        let mut local = server.connect();
        local.send(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        local.half_close();
        assert_eq!(local.rest(), "", "it is served, and says nothing");
    }
    let mut honest = server.connect();
    honest.send([V1, b"PEER\n"].concat());
    assert_eq!(honest.line(), "[2001:db8::9]:9");
    // A stop refuses those whose end has not been seen by then.
    until("all others are counted", || Stats::parse(&honest.ask("STATS"))["disconnected"] == 20);
    drop(honest);
    server.term().well_within(AT_ONCE);
    server.until_logged("accepted 31, served 11, disconnected 20");
    let loud = ["ERROR", "WARN", "refused", "went away"];
    assert!(!server.stderr().iter().any(|line| loud.iter().any(|word| line.contains(word))), "{:#?}", server.stderr());
}

pub(crate) fn the_log_names_the_client_behind_a_proxy(of: &Traits) {
    let server = of.start(FROM_HERE);
    let mut client = server.connect();
    client.send([&v2()[..], b"PANIC\n"].concat());
    client.until_closed();
    server.until_logged("the handler of 198.51.100.3:4242 panicked");
}

/// The beginning of a header, which the server has taken.
fn begun(server: &Server) -> Client {
    let mut client = server.connect();
    client.send(&v2()[..20]);
    let ours = client.local_addr().port();
    until("the server takes the beginning", || queues::unread(server.port(), ours) == Some(0));
    client
}

pub(crate) fn a_stop_ends_greetings_at_once(of: &Traits) {
    let mut server = of.start(FROM_HERE);
    let mut clients: Vec<_> = (0..if of.concurrent { 3 } else { 1 }).map(|_| begun(&server)).collect();
    server.term().well_within(AT_ONCE);
    for client in &mut clients {
        assert!(client.until_closed().is_empty());
    }
    let many = clients.len();
    server.until_reported(&format!("accepted {many}, served 0, refused {many}, failed greetings {many}"));
}

/// Each byte is in time, all of them are not.
pub(crate) fn cuts_a_slow_header_at_the_handshake_limit(of: &Traits) {
    let mut server = of.start(&["--proxy-from", "127.0.0.1", "--handshake-timeout", "400"]);
    let began = Instant::now();
    let mut slow = server.connect();
    let mut bytes = v2().into_iter();
    while bytes.next().is_some_and(|byte| slow.try_send(&[byte]).is_ok()) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    assert!(slow.until_closed().is_empty());
    assert!(took > Duration::from_millis(350), "it was cut after {took:?}, its limit is 400 ms");
    server.until_logged("handshake limit of 400ms exceeded");
    server.term().well_within(AT_ONCE);
    server.until_logged("refused 1, failed greetings 1");
}

/// As many as leave room for one client, whatever the strategy.
pub(crate) fn a_mute_crowd_holds_up_nobody(of: &Traits) {
    if !of.concurrent {
        return;
    }
    let server = of.start(FROM_HERE);
    let mut mute: Vec<_> = (0..2).map(|_| server.connect()).collect();
    mute.push(begun(&server));
    for _ in 0..3 {
        let mut honest = server.connect();
        honest.send([V1, b"PEER\n"].concat());
        assert_eq!(honest.line(), "[2001:db8::9]:9");
    }
}

/// Whatever the header takes is no part of the request: the limit of the child of a forking server neither.
pub(crate) fn the_request_limit_begins_after_the_header(of: &Traits) {
    let server = of.start(&["--proxy-from", "127.0.0.1", "--request-timeout", "1000"]);
    let mut slow = begun(&server);
    std::thread::sleep(Duration::from_millis(2000)); // more than the limit, and than a child has beyond it
    slow.send([&v2()[20..], b"PEER\n"].concat());
    assert_eq!(slow.line(), "198.51.100.3:4242");
}
