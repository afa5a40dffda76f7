//! TLS in a loop: the same callbacks as without, servers and clients, from the first byte or by STARTTLS.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::ClientConnection;
use socketserver::event_loop::{FramedTransport, LostReason, RateLimit};
use socketserver::testing::TestLoop;
use socketserver::tls::TlsClientConfig;
use socketserver::{
    factory, lines, EventLoop, EventLoops, HandlerResult, LineReceiver, Lost, Protocol, ServerBuilder, TlsConfig,
    Transport,
};

use crate::kit::{connect, expect, ms, read_all, serve, uninterrupted, until, Running, LONG};
use crate::script::Echo;
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};

pub(crate) const ANY: &str = "127.0.0.1:0";

pub(crate) fn config(pki: &Pki) -> TlsConfig {
    TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap()
}

pub(crate) fn roots(pki: &Pki) -> TlsClientConfig {
    TlsClientConfig::roots_from_pem(pki.file("ca.pem")).unwrap()
}

/// A server of one loop, each of whose connections this makes.
pub(crate) fn serve_by<P: Protocol + 'static>(pki: &Pki, make: impl Fn() -> P + Send + Sync + 'static) -> Running {
    let builder = ServerBuilder::new().strategy(EventLoop::new()).tls(config(pki));
    serve(builder.bind(ANY, factory(move |_| make())).unwrap())
}

/// Answers each line with its length.
pub(crate) struct Lengths;

impl LineReceiver for Lengths {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        t.send_line(line.len().to_string())
    }
}

#[test]
fn a_dialogue_is_as_without() {
    let Some(pki) = Pki::make() else { return };
    let builder = || ServerBuilder::new().tls(config(&pki));
    let servers = [
        serve(builder().strategy(EventLoop::new()).bind(ANY, factory(|_| lines(Lengths))).unwrap()),
        serve(builder().strategy(EventLoops::new(2)).bind(ANY, factory(|_| lines(Lengths))).unwrap()),
    ];
    for server in servers {
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        for n in [1, 100, 60_000] {
            client.say("x".repeat(n) + "\n");
            client.expect(&format!("{n}\n"));
        }
        client.say("1\n22\n".repeat(500)); // pipelined
        client.expect(&"1\n2\n".repeat(500));
        for record in "in pieces\n".bytes() {
            client.say([record]);
        }
        client.expect("9\n");
        let record = client.sealed("byte by byte\n");
        record.iter().for_each(|byte| client.tcp.write_all(&[*byte]).unwrap());
        client.expect("12\n");
        client.close_notify();
        assert_eq!(client.read_all(), "");
        let report = server.stop();
        assert_eq!((report.served, report.failed), (1, 0), "{report}");
    }
}

/// Writes 8 MB as fast as they are taken, and closes.
struct Big(usize);

impl Big {
    fn go_on(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        while self.0 > 0 && !t.is_writing_paused() {
            t.write(&[b'x'; 10_000])?;
            self.0 -= 10_000;
        }
        if self.0 == 0 {
            t.close();
        }
        Ok(())
    }
}

impl Protocol for Big {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.go_on(t)
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.go_on(t)
    }
}

#[test]
fn a_slow_reader_gets_everything_and_close_notify_behind_it() {
    let Some(pki) = Pki::make() else { return };
    let server = serve_by(&pki, || Big(8_000_000));
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    let mut first = [0; 1000];
    client.read_exact(&mut first).unwrap();
    std::thread::sleep(ms(50)); // for the kernel's buffers to fill; a shorter time makes the test weaker, not wrong
    assert_eq!(client.read_all().len(), 8_000_000 - 1000);
}

#[test]
fn readers_and_large_pieces_and_many_small_ones_keep_their_order() {
    let Some(pki) = Pki::make() else { return };
    struct Mixed;
    impl Protocol for Mixed {
        fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            t.write(&[b'a'; 200_000])?;
            for _ in 0..1000 {
                t.write(b"bcd")?;
            }
            t.send_reader(std::io::repeat(b'e').take(300_000))?;
            t.write(b"f")?;
            Ok(())
        }
    }
    let server = serve_by(&pki, || Mixed);
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    for _ in 0..3 {
        client.say("go");
        client.expect(&format!("{}{}{}f", "a".repeat(200_000), "bcd".repeat(1000), "e".repeat(300_000)));
    }
}

#[test]
fn a_protocol_begins_after_the_handshake_and_a_mute_client_has_none() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel();
    struct Teller(mpsc::Sender<String>);
    impl Protocol for Teller {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            let tls = t.tls().ok_or("no TLS")?;
            Ok(self.0.send(format!("{} {:?}", tls.version, tls.server_name))?)
        }
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
    }
    let server = serve_by(&pki, move || Teller(tell.clone()));
    let mut mute: Vec<_> = (0..50).map(|_| connect(server.addr())).collect();
    mute[0].write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap(); // the beginning of a hello
    let _client = TlsClient::connect(server.addr(), trust(&pki));
    assert_eq!(told.recv_timeout(LONG).unwrap(), "TLSv1.3 Some(\"localhost\")");
    until("all are accepted", || server.handle.stats().accepted == 51);
    mute[1].write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    mute[1].read_to_end(&mut alert).unwrap();
    assert_eq!(alert[..5], [0x15, 3, 3, 0, 2], "an alert, and not a reset");
    until("it is counted", || server.handle.stats().greetings.tls == 1);
    let began = Instant::now();
    let report = server.stop();
    assert!(began.elapsed() < ms(5000), "a handshake is idle to a stop");
    assert_eq!((report.greetings.stopped, report.forced), (49, 0), "{report}");
    assert!(told.try_recv().is_err(), "no other protocol has begun");
}

#[test]
fn data_that_comes_with_the_end_of_the_handshake_is_not_forgotten() {
    let Some(pki) = Pki::make() else { return };
    let server = serve_by(&pki, || Echo);
    for _ in 0..20 {
        let mut tcp = connect(server.addr());
        let name = ServerName::try_from("localhost").unwrap();
        let mut tls = ClientConnection::new(Arc::new(trust(&pki)), name).unwrap();
        tls.write_tls(&mut tcp).unwrap();
        while tls.is_handshaking() {
            uninterrupted(|| tls.read_tls(&mut tcp)).unwrap();
            tls.process_new_packets().unwrap();
        }
        let mut client = TlsClient { tls, tcp };
        let last_flight_and_more = client.sealed("hello");
        client.tcp.write_all(&last_flight_and_more).unwrap();
        client.expect("hello");
    }
}

#[test]
fn an_end_that_comes_with_the_last_data_is_not_forgotten() {
    let Some(pki) = Pki::make() else { return };
    let server = serve_by(&pki, || Echo);
    for text in ["hello".to_owned(), "x".repeat(200_000)] {
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        let mut all = Vec::new();
        for piece in text.as_bytes().chunks(16_000) {
            all.extend(client.sealed(piece));
        }
        client.tls.send_close_notify();
        all.extend(client.sealed(""));
        let mut tcp = client.tcp.try_clone().unwrap();
        let saying = std::thread::spawn(move || tcp.write_all(&all)); // and the stream of TCP goes on
        assert_eq!(client.read_all(), text);
        saying.join().unwrap().unwrap();
    }
}

#[test]
fn a_pause_keeps_what_the_session_has_read() {
    let Some(pki) = Pki::make() else { return };
    /// Pauses after each piece of input, for a moment.
    struct Paused;
    impl Protocol for Paused {
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            t.pause_reading();
            t.set_timer(ms(1));
            Ok(t.write(data)?)
        }
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::event_loop::TimerId) -> HandlerResult {
            t.resume_reading();
            Ok(())
        }
    }
    let server = serve_by(&pki, || Paused);
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    let text = "0123456789".repeat(20_000);
    let records = client.sealed(&text[..60_000]);
    client.tcp.write_all(&records).unwrap();
    client.expect(&text[..60_000]);
    for part in text.as_bytes().chunks(50_000) {
        client.say(part);
        client.expect(std::str::from_utf8(part).unwrap());
    }
}

#[test]
fn a_rate_limit_reads_on_what_the_session_has() {
    let Some(pki) = Pki::make() else { return };
    /// Repeats what it reads, 1000 bytes in each 10 ms.
    struct Limited;
    impl Protocol for Limited {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.limit_reading(&RateLimit::new(100_000).burst(1000));
            Ok(())
        }
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            assert!(data.len() <= 1000, "{} bytes at once", data.len());
            Ok(t.write(data)?)
        }
    }
    let server = serve_by(&pki, || Limited);
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    client.say("x".repeat(10_000));
    client.expect(&"x".repeat(10_000));
}

#[test]
fn an_end_without_close_notify_counts_between_requests_and_fails_within() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel();
    struct Watched(mpsc::Sender<String>);
    impl LineReceiver for Watched {
        fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
            t.send_line(line)
        }
        fn connection_lost(&mut self, _: &mut socketserver::Context<'_>, why: &Lost) {
            let is_orderly = matches!(why.reason, LostReason::PeerClosed);
            let _ = self.0.send(if is_orderly { "in order".to_owned() } else { why.to_string() });
        }
    }
    let server = serve_by(&pki, move || lines(Watched(tell.clone())));
    let end = |said: &str, in_order: bool| {
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        client.say(said);
        if let Some(answered) = said.rfind('\n') {
            client.expect(&said[..=answered]);
        }
        if in_order {
            client.close_notify();
        } else {
            client.cut();
        }
        told.recv_timeout(LONG).unwrap()
    };
    assert_eq!(end("hello\n", true), "in order");
    assert_eq!(end("hello\n", false), "in order");
    let cut_off = end("hello\nDELETE /tmp/x", false);
    assert!(cut_off.contains("close_notify"), "{cut_off}");
    let report = server.stop();
    assert_eq!((report.served, report.disconnected, report.failed), (2, 1, 0), "{report}");
}

#[test]
fn a_half_close_ends_our_stream_and_not_the_peer_s() {
    let Some(pki) = Pki::make() else { return };
    let (tell, told) = mpsc::channel();
    struct Greeter(mpsc::Sender<Vec<u8>>);
    impl Protocol for Greeter {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.write(b"hello")?;
            t.shutdown_write();
            Ok(())
        }
        fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            Ok(self.0.send(data.to_vec())?)
        }
    }
    let server = serve_by(&pki, move || Greeter(tell.clone()));
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    assert_eq!(client.read_all(), "hello", "and close_notify");
    client.say("still here");
    assert_eq!(told.recv_timeout(LONG).unwrap(), b"still here");
    client.close_notify();
    client.tcp.shutdown(Shutdown::Write).unwrap();
    until("it is over", || server.handle.stats().served == 1);
}

#[test]
fn keys_are_updated_at_the_client_s_wish() {
    let Some(pki) = Pki::make() else { return };
    let server = serve_by(&pki, || Echo);
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    for n in 0..5 {
        client.say(format!("before {n}"));
        client.expect(&format!("before {n}"));
        client.tls.refresh_traffic_keys().unwrap();
        client.say(format!("after {n}"));
        client.expect(&format!("after {n}"));
    }
}

// STARTTLS.

/// Says how it is, and begins TLS at the word.
pub(crate) struct Starter(pub(crate) TlsConfig);

impl LineReceiver for Starter {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        if line != b"STARTTLS" {
            return t.send_line(if t.tls().is_some() { "secret" } else { "open" });
        }
        t.send_line("220 go ahead")?;
        if let Err(e) = t.start_tls(&self.0) {
            t.send_line(format!("554 {e}"))?;
            t.close();
        }
        Ok(())
    }
}

#[test]
fn start_tls_encrypts_from_there_on() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let make = factory(move |_| lines(Starter(tls.clone())));
    let server = serve(ServerBuilder::new().strategy(EventLoop::new()).bind(ANY, make).unwrap());
    let mut plain = connect(server.addr());
    plain.write_all(b"how?\nSTARTTLS\n").unwrap();
    expect(&mut plain, "open\n220 go ahead\n");
    let mut client = TlsClient::over(plain, &Arc::new(trust(&pki))).unwrap();
    client.say("how?\nhow?\n");
    client.expect("secret\nsecret\n");
    client.say("STARTTLS\n");
    client.expect("220 go ahead\n554 TLS has begun already\n");

    let mut attacker = connect(server.addr());
    attacker.write_all(b"STARTTLS\nRCPT TO:<mallory>\n").unwrap();
    let answer = read_all(&mut attacker);
    assert!(answer.starts_with("220 go ahead\n554 input came before the handshake"), "{answer}");
}

#[test]
fn a_handshake_that_stands_still_is_cut_by_its_limit() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let make = factory(move |_| lines(Starter(tls.clone())));
    let builder = ServerBuilder::new().strategy(EventLoop::new()).handshake_timeout(ms(100));
    let server = serve(builder.bind(ANY, make).unwrap());
    let mut mute = connect(server.addr());
    mute.write_all(b"STARTTLS\n").unwrap();
    assert!(read_all(&mut mute).starts_with("220 go ahead\n"), "then close_notify");
    until("it is counted", || server.handle.stats().timed_out == 1);
}

/// Moves bytes between a client's session and a connection in memory, until neither has more.
fn exchange(tls: &mut ClientConnection, test: &mut TestLoop, id: socketserver::event_loop::ConnId) -> Vec<u8> {
    let mut plain = Vec::new();
    loop {
        let mut records = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut records).unwrap();
        }
        if !records.is_empty() {
            test.feed_bytewise(id, &records);
        }
        let output = test.output(id);
        if output.is_empty() && records.is_empty() {
            return plain;
        }
        let mut rest = &output[..];
        while !rest.is_empty() {
            tls.read_tls(&mut rest).unwrap();
            tls.process_new_packets().unwrap();
            let _ = tls.reader().read_to_end(&mut plain);
        }
    }
}

#[test]
fn a_test_loop_speaks_tls_in_memory() {
    let Some(pki) = Pki::make() else { return };
    let mut test = TestLoop::new().unwrap();
    let id = test.connect(lines(Starter(config(&pki))));
    test.feed(id, b"STARTTLS\n");
    assert_eq!(test.output(id), b"220 go ahead\n");
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(trust(&pki)), name).unwrap();
    assert_eq!(exchange(&mut tls, &mut test, id), b"");
    assert!(!tls.is_handshaking());
    tls.writer().write_all(b"how?\nhow?\n").unwrap();
    assert_eq!(exchange(&mut tls, &mut test, id), b"secret\nsecret\n");
    test.take_at_most(id, 10); // a peer that takes little: the rest waits, and comes whole
    tls.writer().write_all(b"how?\n").unwrap();
    let mut record = Vec::new();
    tls.write_tls(&mut record).unwrap();
    test.feed(id, &record);
    assert_eq!(test.output(id).len(), 10);
    test.take_at_most(id, usize::MAX);
    test.settle();
}
