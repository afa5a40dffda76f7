//! `dig` over UDP and TCP, and datagrams that are no questions.

use std::net::UdpSocket;
use std::path::PathBuf;

use crate::support::{uninterrupted, Server, AT_ONCE, LIMIT};
use crate::{client, start};

/// A server of each kind, for a file of hosts: `www` has addresses of both kinds, `many` more than fit into a datagram.
fn servers(test: &str) -> Vec<Server> {
    let file: PathBuf = [env!("CARGO_TARGET_TMPDIR"), &format!("hosts.{test}")].iter().collect();
    let mut hosts = "192.0.2.1 www.test web.test # the first\n\n2001:db8::1 WWW.test\n".to_owned();
    (0..40).for_each(|n| hosts += &format!("198.51.100.{n} some.test\n"));
    (0..200).for_each(|n| hosts += &format!("203.0.113.{n} many.test\n"));
    std::fs::write(&file, hosts).unwrap();
    let start = |strategy| start!("dns", "--strategy", strategy, "--hosts", file.to_str().unwrap());
    ["threading", "event-loop"].map(start).into()
}

fn dig(server: &Server, words: &str) -> Option<String> {
    let port = server.port().to_string();
    let words = words.split(' ').collect::<Vec<_>>();
    client("dig", &[&["@127.0.0.1", "-p", &port, "+tries=2", "+timeout=10"], &words[..]].concat())
}

#[test]
fn dig_finds_addresses() {
    for mut server in servers("addresses") {
        let Some(found) = dig(&server, "+short www.test A") else { return };
        assert_eq!(found, "192.0.2.1\n");
        let dig = |words: &str| dig(&server, words).unwrap();
        assert_eq!(dig("+short Web.TEST"), "192.0.2.1\n");
        assert_eq!(dig("+short +tcp www.test AAAA"), "2001:db8::1\n");
        assert_eq!(dig("+short web.test AAAA"), "");
        for (question, status) in [
            ("web.test AAAA", "status: NOERROR"),
            ("none.test", "status: NXDOMAIN"),
            ("-c CH version.bind TXT", "status: REFUSED"),
            ("+opcode=notify www.test", "status: NOTIMP"),
            ("+dnssec www.test", "status: NOERROR"),
            ("www.test", "flags: qr aa rd;"),
        ] {
            let said = dig(question);
            assert!(said.contains(status), "{question}: {said}");
        }
        // 8 questions on one connection.
        let many = dig(&format!("+tcp +keepopen +short{}", " www.test".repeat(8)));
        assert_eq!(many, "192.0.2.1\n".repeat(8));
        server.term().well_within(AT_ONCE);
    }
}

#[test]
fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    for server in servers("long") {
        let Some(whole) = dig(&server, "+short many.test") else { return };
        assert_eq!(whole.lines().count(), 200, "it asks again by TCP");
        let dig = |words: &str| dig(&server, words).unwrap();
        assert!(dig("+ignore many.test").contains("flags: qr aa tc rd;"));
        assert!(dig("+ignore +noedns some.test").contains("flags: qr aa tc rd;"), "512 bytes without EDNS");
        assert_eq!(dig("+ignore +short some.test").lines().count(), 40);
        assert!(dig("+ignore +bufsize=65000 many.test").contains("flags: qr aa tc rd;"), "never more than 1232 bytes");
    }
}

#[test]
fn what_is_no_question_harms_nothing() {
    for mut server in servers("noise") {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(server.addr()).unwrap();
        let question = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03www\x04test\0\0\x01\0\x01";
        let mut answer = [0; 2000];
        let mut ask = |question: &[u8]| {
            socket.send(question).unwrap();
            uninterrupted(|| socket.recv(&mut answer)).map(|len| answer[..len].to_vec()).unwrap()
        };
        assert_eq!(ask(question)[..8], *b"\x12\x34\x85\x00\0\x01\0\x01");
        // A name that points to itself, and thousands of records that are not there.
        let itself = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01";
        let thousands = b"\x12\x34\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\x03www\x04test\0\0\x01\0\x01";
        for broken in [&itself[..], thousands] {
            assert_eq!(ask(broken)[..4], *b"\x12\x34\x80\x01", "a format error");
        }
        // Each byte of the question as each value; none is answered by a panic, and no answer is answered.
        for at in 0..question.len() {
            for value in (0..=255).step_by(5) {
                let mut broken = *question;
                broken[at] = value;
                socket.send(&broken[..]).unwrap();
                socket.send(&broken[..at]).unwrap();
            }
        }
        server.term().well_within(AT_ONCE);
        server.until_all_is_read();
        let log = server.stderr().join("\n");
        assert!(!log.contains("panic"), "{log}");
    }
}

/// Both servers at once, since each takes its 10 s.
#[test]
fn a_client_that_does_not_end_its_question_is_cut() {
    let servers = servers("slow");
    let mut clients: Vec<_> = servers.iter().map(Server::connect).collect();
    clients.iter_mut().for_each(|client| client.send(b"\0\x20half a question"));
    clients.iter_mut().for_each(|client| assert!(client.until_closed().is_empty()));
}

#[test]
fn a_file_that_is_none_is_named() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_dns")).args(["127.0.0.1:0", "--hosts", "/none"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "Error: /none: No such file or directory (os error 2)\n");
}
