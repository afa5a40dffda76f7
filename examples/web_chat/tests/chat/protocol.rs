//! HTTP and WebSocket by their bytes: what is answered, what is refused, and how.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::Arc;

use super::guests::{Chat, Guest, STRATEGIES, UPGRADE};
use super::support::{until, AT_ONCE};

#[test]
fn requests_get_what_they_ask_for_and_others_are_refused() {
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let ask =
            |line: &str, more: &str| chat.http(&format!("{line}\r\nHost: chat\r\nConnection: close\r\n{more}\r\n"));
        let page = ask("GET / HTTP/1.1", "");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/html") && page.ends_with("</html>\n"));
        assert!(page.contains("Content-Security-Policy: default-src 'none'"));
        assert!(ask("GET /stats?x HTTP/1.1", "").contains("id=\"tiles\""));
        let head = ask("HEAD / HTTP/1.1", "");
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
        for (line, more, status) in [
            ("GET /nothing HTTP/1.1", "", "404 "),
            ("POST / HTTP/1.1", "Content-Length: 4\r\n", "405 "),
            ("GET /ws HTTP/1.1", "", "426 "),
            ("GET /ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", "426 "),
            ("GET /ws HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "400 "),
            ("GET  / HTTP/1.1", "", "400 "),
            ("GET / HTTP/3", "", "400 "),
            ("GET / HTTP/1.1", "a b: c\r\n", "400 "),
            ("GET / HTTP/1.1", &format!("Long: {}\r\n", "x".repeat(17 << 10)), "431 "),
        ] {
            let answer = ask(line, more);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{strategy}, {line} {more}: {answer}");
        }
    }
}

#[test]
fn requests_that_follow_each_other_are_answered_in_order_on_one_connection() {
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let one = "GET /1 HTTP/1.1\r\nHost: chat\r\n\r\n";
        let last = "GET /2 HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n";
        let answers = chat.http(&[one, one, last, one].concat());
        assert_eq!(answers.matches("404 Not Found").count(), 3, "{answers}"); // none after `close`
                                                                              // A body would be read as the next request: its connection ends.
        let smuggled = format!("GET /1 HTTP/1.1\r\nHost: chat\r\nContent-Length: {}\r\n\r\n{one}", one.len());
        assert_eq!(chat.http(&smuggled).matches("404 Not Found").count(), 1);
    }
}

#[test]
fn only_our_own_page_and_clients_that_are_no_browsers_may_join() {
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        for (origin, status) in [
            ("", "101 "),
            ("Origin: http://chat\r\n", "101 "),
            ("Origin: https://chat\r\n", "101 "), // a proxy may have ended TLS
            ("Origin: http://evil\r\n", "403 "),
            ("Origin: http://chat.evil\r\n", "403 "),
            ("Origin: http://chat:81\r\n", "403 "),
            ("Origin: null\r\n", "403 "),
        ] {
            let mut client = chat.server.connect();
            client.send(UPGRADE.replace("Host: chat\r\n", &format!("Host: chat\r\n{origin}")));
            assert!(client.line().starts_with(&format!("HTTP/1.1 {status}")), "{strategy}: {origin}");
        }
    }
}

/// A frame of a client: masked with zeros, so its bytes are as they read.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..=125 => bytes.push(0x80 | len as u8),
        len => bytes.extend([0xfe, (len >> 8) as u8, len as u8]),
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

const FINAL: u8 = 0x80;
const CONTINUE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

#[test]
fn hostile_frames_are_answered_with_their_code_and_hurt_nobody_else() {
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("no mask", vec![FINAL | TEXT, 2, b'h', b'i'], 1002),
        ("a reserved bit", frame(FINAL | 0x40 | TEXT, b"hi"), 1002),
        ("a reserved opcode", frame(FINAL | 3, b"hi"), 1002),
        ("a reserved control", frame(FINAL | 11, b"hi"), 1002),
        ("a ping in parts", frame(PING, b"hi"), 1002),
        ("a long ping", frame(FINAL | PING, &[b'x'; 126]), 1002),
        ("a part without a start", frame(FINAL | CONTINUE, b"hi"), 1002),
        ("two starts", [frame(TEXT, b"a"), frame(TEXT, b"b")].concat(), 1002),
        ("half a code", frame(FINAL | CLOSE, &[3]), 1002),
        ("no UTF-8", frame(FINAL | TEXT, b"\xc3\x28"), 1007),
        ("no UTF-8 across parts", [frame(TEXT, b"\xc3"), frame(FINAL | CONTINUE, b"(")].concat(), 1007),
        ("binary", frame(FINAL | BINARY, b"hi"), 1003),
        ("17 KiB", frame(FINAL | TEXT, &[b'x'; 17 << 10]), 1009),
        ("17 KiB in parts", [frame(TEXT, &[b'x'; 9 << 10]), frame(CONTINUE, &[b'x'; 8 << 10])].concat(), 1009),
        ("4 EiB, announced", [&[FINAL | TEXT, 0xff, 0x40][..], &[0; 11]].concat(), 1009),
    ];
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let mut witness = chat.member("witness");
        for (what, bytes, code) in &cases {
            let mut guest = chat.member("hostile");
            witness.until_text("* hostile has joined");
            guest.0.get_mut().write_all(bytes).unwrap();
            assert_eq!(guest.close_code(), *code, "{strategy}: {what}");
            witness.until_text("* hostile has left");
        }
        // Each is a fault of the peer, and nothing that is logged at `info`.
        assert!(chat.server.stderr().iter().all(|line| !line.contains("WARN") && !line.contains("ERROR")));
    }
}

#[test]
fn frames_arrive_however_they_are_cut() {
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let mut ben = chat.member("ben");
        let parts = [
            UPGRADE.as_bytes(),
            &frame(FINAL | TEXT, b"anna"),
            &frame(TEXT, b"hello, "),
            &frame(FINAL | PING, b"still there?"), // controls may come between parts
            &frame(FINAL | CONTINUE, "wörld".as_bytes()),
        ];
        for size in [1, 7, usize::MAX] {
            let mut anna = chat.server.connect();
            for piece in parts.concat().chunks(size) {
                anna.send(piece);
            }
            assert_eq!(ben.text(), "* anna has joined");
            assert_eq!(ben.text(), "anna: hello, wörld");
            anna.half_close();
            let heard = anna.until_closed();
            let pong = [&[FINAL | 10, 12][..], b"still there?"].concat();
            assert!(heard.windows(pong.len()).any(|window| window == pong), "{strategy}: no pong");
            assert_eq!(ben.text(), "* anna has left");
        }
    }
}

#[test]
fn a_stop_says_1001_to_members_and_ends_every_other_connection() {
    for strategy in STRATEGIES {
        let mut chat = Chat::start(&["--strategy", strategy]);
        let (mut anna, mut ben, mut carl) = (chat.member("anna"), chat.guest(), chat.liner("carl"));
        let _mute = chat.member("mute"); // does not answer the 1001
        let (mut idle, mut half) = (chat.server.connect(), chat.server.connect());
        let mut watcher = chat.server.connect();
        watcher.send("GET /events HTTP/1.1\r\nHost: chat\r\n\r\n");
        assert_eq!(watcher.line(), "HTTP/1.1 200 OK");
        half.send("GET / HTTP/1.1\r\nHost: ch");
        ben.0.get_mut().write_all(&frame(TEXT, b"half a mess")).unwrap();
        anna.until_text("* mute has joined");
        assert_eq!(chat.http("GET /x HTTP/1.1\r\nConnection: close\r\n\r\n").matches("404").count(), 1);
        chat.server.signal("TERM");
        assert_eq!(anna.close_code(), 1001);
        // It answers, and only then does the connection end: a browser would take an earlier end for a loss.
        let end = anna.0.read();
        assert!(matches!(end, Err(tungstenite::Error::ConnectionClosed)), "{strategy}: {end:?}");
        assert!(carl.rest().ends_with("* the server stops\n"));
        idle.until_closed();
        watcher.until_closed();
        drop((half, ben)); // they would be cut at the drain's limit
        chat.server.ended().well_within(AT_ONCE);
    }
}

#[test]
fn a_member_who_does_not_read_is_cut_and_the_others_miss_nothing() {
    for strategy in STRATEGIES {
        let args = ["--strategy", strategy, "--write-timeout", "1000", "--most-said", "1000000"];
        let chat = Chat::start(&args);
        let _slow = chat.member("slow");
        let (mut anna, ben) = (chat.member("anna"), chat.member("ben"));
        let heard = Arc::new(AtomicU32::new(0));
        let theirs = heard.clone();
        let reader = std::thread::spawn(move || read_on(ben, &theirs));
        // 2,000 characters of 4 bytes: 8 KiB each, more than the kernel's buffers and the queue take.
        let text = "😀".repeat(1990);
        let mut said = 0;
        anna.0.get_ref().set_nonblocking(true).unwrap();
        while !hears(&mut anna, "* slow has left") {
            said += 1;
            until("ben is not far behind", || heard.load(SeqCst) + 20 > said);
            anna.0.get_ref().set_nonblocking(false).unwrap();
            anna.say(&format!("{said} {text}"));
            anna.0.get_ref().set_nonblocking(true).unwrap();
        }
        anna.0.get_ref().set_nonblocking(false).unwrap();
        anna.say("that is all");
        assert_eq!(reader.join().unwrap(), said, "{strategy}");
    }
}

/// A stop of the server in the middle would begin a new second: so much is said that no number of stops lets it all pass.
#[test]
fn a_member_who_says_too_much_is_told_so_and_cut() {
    const NOTICE: &str = "* too much at once: at most 5 messages a second";
    for strategy in STRATEGIES {
        let mut chat = Chat::start(&["--strategy", strategy, "--most-said", "5"]);
        let mut witness = chat.member("witness");
        let (mut anna, mut ben) = (chat.member("anna"), chat.liner("ben"));
        witness.until_text("* ben has joined");
        let _ = anna.0.get_mut().write_all(&frame(FINAL | TEXT, b"/who").repeat(1000));
        anna.until_text(NOTICE);
        assert_eq!(anna.close_code(), 1008, "{strategy}");
        witness.until_text("* anna has left");
        while ben.line() != "* anna has left" {}
        let _ = ben.try_send("/who\n".repeat(1000).as_bytes());
        let heard = String::from_utf8(ben.until_closed()).unwrap();
        assert!(heard.ends_with(&format!("{NOTICE}\n")), "{strategy}: {heard}");
        witness.until_text("* ben has left");
        drop(witness);
        chat.server.term().well_within(AT_ONCE);
        assert!(chat.server.stderr().iter().all(|line| !line.contains("WARN") && !line.contains("ERROR")));
    }
}

/// Whether the text has arrived.
fn hears(guest: &mut Guest, wanted: &str) -> bool {
    while let Ok(message) = guest.0.read() {
        if message.to_text().is_ok_and(|text| text == wanted) {
            return true;
        }
    }
    false
}

/// Counts the messages of anna, which come in order.
fn read_on(mut guest: Guest, heard: &AtomicU32) -> u32 {
    let mut count = 0;
    loop {
        let text = guest.text();
        let Some(said) = text.strip_prefix("anna: ") else { continue };
        if said == "that is all" {
            return count;
        }
        count += 1;
        heard.store(count, SeqCst);
        assert!(said.starts_with(&format!("{count} ")));
    }
}

#[test]
fn names_are_checked_and_messages_are_bounded() {
    for strategy in STRATEGIES {
        let chat = Chat::start(&["--strategy", strategy]);
        let mut anna = chat.member("anna");
        let mut ben = chat.guest();
        for name in ["", "a:b", "a,b", "* ben", "/who", &"x".repeat(33)] {
            ben.say(name);
            assert!(ben.text().starts_with("* a name has"), "{name}");
        }
        ben.say("anna");
        assert_eq!(ben.text(), "* anna is taken");
        ben.say("  be\u{1b}n\n ");
        assert_eq!(ben.text(), "* ben has joined");
        assert_eq!(anna.text(), "* ben has joined");
        ben.say(&"x".repeat(2001));
        assert_eq!(ben.text(), "* at most 2000 characters");
        ben.say("/nothing");
        assert_eq!(ben.text(), "* there is /who, and no other command");
        ben.say("/who");
        assert_eq!(ben.text(), "* here: anna, ben");
        ben.say("\u{7}");
        ben.say("hi\u{1b}[2J");
        assert_eq!(anna.text(), "ben: hi[2J");
    }
}
