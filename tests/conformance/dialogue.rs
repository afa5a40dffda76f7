//! What clients send is answered, however it is cut into segments.

use std::thread;

use crate::support::AT_ONCE;
use crate::Traits;

pub(crate) fn echoes(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    assert_eq!(client.ask("ECHO hello"), "hello");
    assert_eq!(client.ask("ECHO again"), "again");
    assert_eq!(client.ask("CLOSE"), "", "the end of the stream");
    assert_eq!(server.ask("ECHO another client"), "another client");
}

pub(crate) fn answers_64_clients(of: &Traits) {
    let server = of.start(&[]);
    thread::scope(|scope| {
        for i in 0..64 {
            let server = &server;
            scope.spawn(move || assert_eq!(server.ask(&format!("ECHO hello {i}")), format!("hello {i}")));
        }
    });
}

pub(crate) fn answers_a_thousand_pipelined_requests_in_order(of: &Traits) {
    let numbers: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let server = of.start(&[]);
    let mut client = server.connect();
    client.send(numbers.iter().map(|n| format!("ECHO {n}\n")).collect::<String>());
    client.half_close();
    let answers = client.rest();
    assert_eq!(answers.lines().collect::<Vec<_>>(), numbers);
}

pub(crate) fn takes_a_request_byte_by_byte(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    for i in 0..20 {
        for byte in format!("ECHO word {i}\r\n").into_bytes() {
            client.send([byte]);
        }
        assert_eq!(client.line(), format!("word {i}"));
    }
}

/// The end of the client's stream is not the end of the connection.
pub(crate) fn answers_in_full_after_a_half_close(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    client.send("SLEEP 100\nBIG 300000\nECHO last\n");
    client.half_close();
    assert_eq!(client.line(), "slept");
    let rest = client.rest();
    assert_eq!(rest.len(), 300_000 + "\nlast\n".len());
    assert!(rest.ends_with("x\nlast\n"));
}

pub(crate) fn rejects_an_unknown_line(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    for line in ["NONSENSE", "", "echo lower case"] {
        let answer = client.ask(line);
        assert!(answer.starts_with("ERR "), "{line:?} was answered with {answer:?}");
    }
    assert_eq!(client.ask("ECHO and goes on"), "and goes on");
}

pub(crate) fn speaks_over_a_unix_socket_and_removes_its_file(of: &Traits) {
    let path = std::env::temp_dir().join(format!("conformance-{}-{}.sock", std::process::id(), of.name));
    let addr = format!("unix:{}", path.display());
    // Ten times: whether the process or the last of its threads ends first is a matter of chance.
    for _ in 0..10 {
        let mut server = of.start_at(&addr, &[]);
        assert_eq!(server.addr(), addr);
        assert_eq!(server.ask("ECHO over a file"), "over a file");
        assert_eq!(server.ask("PEER"), "unix:", "a client's end has no name");
        server.term().well_within(AT_ONCE);
        let left = std::fs::remove_file(&path).is_ok();
        assert!(!left, "{} was left behind", path.display());
    }
}

pub(crate) fn tells_the_peer_address(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    let ours = client.local_addr().to_string();
    assert_eq!(client.ask("PEER"), ours);
}
