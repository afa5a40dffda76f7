//! `mosquitto_pub` and `mosquitto_sub`, clients that write each byte themselves, and packets that are none.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use crate::support::{output, tool, until, Server, AT_ONCE, LIMIT};
use crate::{client, start};

#[test]
fn mosquitto_publishes_to_those_who_have_subscribed() {
    let mut server = start!("mqtt");
    let port = server.port().to_string();
    for (filter, quality) in [("home/kitchen/lamp", "0"), ("home/+/lamp", "1"), ("#", "2")] {
        let Some(mut command) = tool("mosquitto_sub") else { return };
        command.args(["-h", "127.0.0.1", "-p", &port, "-v", "-C", "1", "-t", filter]);
        let mut subscriber =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("a message reaches the subscriber", || {
            let args = ["-h", "127.0.0.1", "-p", &port, "-q", quality, "-t", "home/kitchen/lamp", "-m", "on"];
            assert_eq!(client("mosquitto_pub", &args).unwrap(), "");
            subscriber.try_wait().unwrap().is_some()
        });
        let said = output(subscriber, "mosquitto_sub").stdout;
        assert_eq!(String::from_utf8(said).unwrap(), "home/kitchen/lamp on\n");
    }
    // A client that subscribes later gets what was retained.
    let retained = ["-h", "127.0.0.1", "-p", &port, "-r", "-t", "home/door", "-m", "shut"];
    assert_eq!(client("mosquitto_pub", &retained).unwrap(), "");
    let args = ["-h", "127.0.0.1", "-p", &port, "-W", "30", "-C", "1", "-v", "-t", "home/#"];
    assert_eq!(client("mosquitto_sub", &args).unwrap(), "home/door shut\n");
    server.term().well_within(AT_ONCE);
}

/// A client whose bytes the test writes.
struct Raw(TcpStream);

const PING: [u8; 2] = [0xc0, 0];
const PONG: [u8; 2] = [0xd0, 0];

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first, body.len() as u8], &body[..]].concat()
}

fn publish(first: u8, topic: &str, payload: &str) -> Vec<u8> {
    packet(first, &[&text(topic), payload.as_bytes()])
}

impl Raw {
    /// Connects; `will` is the topic and the text of a last will.
    fn connect(server: &Server, name: &str, will: Option<[&str; 2]>) -> Self {
        let mut raw = Self::open(server);
        let flags = if will.is_some() { 0b110 } else { 0b10 };
        let will: Vec<u8> = will.into_iter().flatten().flat_map(text).collect();
        raw.send(&packet(0x10, &[&text("MQTT"), &[4, flags, 0, 60], &text(name), &will]));
        raw.expect(&[0x20, 2, 0, 0]);
        raw
    }

    fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn subscribe(&mut self, filter: &str) {
        self.send(&packet(0x82, &[&[0, 1], &text(filter), &[0]]));
        self.expect(&[0x90, 3, 0, 1, 0]);
    }

    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }

    /// What comes until the server closes.
    fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest); // a reset is an end too
        rest
    }
}

#[test]
fn filters_stand_for_the_topics_that_they_should() {
    let server = start!("mqtt");
    for (filter, topic, fits) in [
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a", false),
        ("a/+", "a/b/c", false),
        ("+/+", "/b", true),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
    ] {
        let mut client = Raw::connect(&server, "", None);
        client.subscribe(filter);
        let message = publish(0x30, topic, "hello");
        client.send(&[&message, &PING[..]].concat());
        if fits {
            client.expect(&message);
        }
        client.expect(&PONG); // nothing else has come before it
        client.send(&packet(0xa2, &[&[0, 2], &text(filter)]));
        client.expect(&[0xb0, 2, 0, 2]);
        client.send(&[&message, &PING[..]].concat());
        client.expect(&PONG);
    }
}

#[test]
fn a_retained_message_is_replaced_and_forgotten() {
    let server = start!("mqtt");
    let mut client = Raw::connect(&server, "", None);
    for payload in ["old", "new"] {
        client.send(&publish(0x31, "a", payload));
    }
    client.subscribe("a");
    client.expect(&publish(0x31, "a", "new"));
    client.send(&publish(0x31, "a", ""));
    client.expect(&publish(0x30, "a", ""));
    client.subscribe("a");
    client.send(&PING);
    client.expect(&PONG);
}

#[test]
fn a_last_will_comes_unless_its_client_has_said_good_bye() {
    let server = start!("mqtt");
    let mut heir = Raw::connect(&server, "heir", None);
    heir.subscribe("will/#");
    let mut polite = Raw::connect(&server, "polite", Some(["will/polite", "lost"]));
    polite.send(&[0xe0, 0]);
    assert!(polite.rest().is_empty());
    drop(Raw::connect(&server, "rude", Some(["will/rude", "lost"])));
    heir.expect(&publish(0x30, "will/rude", "lost"));
    // A client of the same name takes its place.
    let first = Raw::connect(&server, "same", Some(["will/same", "lost"]));
    let mut second = Raw::connect(&server, "same", None);
    assert!(first.rest().is_empty());
    heir.expect(&publish(0x30, "will/same", "lost"));
    second.send(&PING);
    second.expect(&PONG);
}

#[test]
fn what_is_no_packet_ends_its_connection_only() {
    let server = start!("mqtt");
    let mut other = Raw::connect(&server, "other", None);
    let connect = packet(0x10, &[&text("MQTT"), &[4, 2, 0, 60], &text("x")]);
    for broken in [
        &PING[..],                             // before CONNECT
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff], // a length of five bytes
        &[0x10, 0xff, 0xff, 0xff, 0x7f],       // 256 MiB
        &packet(0x10, &[&text("MQTT"), &[9, 2, 0, 60], &text("x")]),
        &[&connect[..], &connect].concat(),
        &[&connect[..], &publish(0x30, "a/#", "x")].concat(), // a filter is no topic
        &[&connect[..], &packet(0x82, &[&[0, 1], &text("a#"), &[0]])].concat(),
        &[&connect[..], &packet(0x82, &[&[0, 1], &[0, 99], b"a"])].concat(), // a text that ends after the packet
        &[&connect[..], &[0x20, 2, 0, 0]].concat(),                          // a server says this
    ] {
        let mut client = Raw::open(&server);
        client.send(broken);
        let said = client.rest();
        assert!(said.is_empty() || said == [0x20, 2, 0, 0], "{broken:?}: {said:?}");
    }
    other.send(&PING);
    other.expect(&PONG);
}
