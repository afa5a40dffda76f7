//! Clients of a loop that speak TLS.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::ClientConnection;
use socketserver::event_loop::Connect;
use socketserver::tls::TlsClientConfig;
use socketserver::{factory, lines, EventLoop, HandlerResult, Protocol, Reactor, ServerBuilder, Transport};

use crate::kit::{expect, ms, serve, until, LONG};
use crate::script::clients::Client;
use crate::script::{Echo, Journal, Script};
use crate::support::pki::Pki;
use crate::support::tls::trust;
use crate::tls::{config, roots, serve_by, Lengths, Starter, ANY};

fn turn_until(reactor: &mut Reactor, what: &str, mut done: impl FnMut() -> bool) {
    let by = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
        reactor.turn(Some(ms(10))).unwrap();
    }
}

/// Makes one attempt, and returns what it comes to.
fn attempt(to: Connect) -> String {
    let (mut reactor, journal, text) = (Reactor::new().unwrap(), Journal::default(), Rc::new(RefCell::default()));
    let texts = text.clone();
    let client = Client::new(&journal)
        .with(|journal| {
            let made = Script::new(journal).on("made", |t, _| {
                let version = t.tls().map_or("no TLS", |tls| tls.version);
                t.send_line(version)
            });
            Some(made.on("data", |t, _| {
                t.close();
                Ok(())
            }))
        })
        .on_failure(move |_, error| *texts.borrow_mut() = error.to_string());
    reactor.context().connect(to, client);
    turn_until(&mut reactor, "the attempt ends", || journal.count("stop") == 1);
    let failure = text.take();
    if failure.is_empty() {
        journal.take()
    } else {
        failure
    }
}

#[test]
fn a_client_of_the_loop_shakes_hands_before_it_begins() {
    let Some(pki) = Pki::make() else { return };
    let server = serve_by(&pki, || Echo);
    let address = format!("localhost:{}", server.addr().port());
    let done = attempt(Connect::to(address.clone()).tls(&roots(&pki)));
    assert_eq!(done, "start build made data:TLSv1.3\n lost:closed stop");
    let done = attempt(Connect::to(server.addr()).tls(&roots(&pki)));
    assert_eq!(done, "start build made data:TLSv1.3\n lost:closed stop", "the certificate has the address too");
    let wrong = attempt(Connect::to(address.clone()).server_name("example.org").tls(&roots(&pki)));
    assert!(wrong.contains("cannot begin TLS with localhost:") && wrong.contains("certificate"), "{wrong}");
    pki.openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=Other",
        "-keyout",
        "o.key",
        "-out",
        "o.pem",
    ]);
    let other = TlsClientConfig::roots_from_pem(pki.file("o.pem")).unwrap();
    let untrusted = attempt(Connect::to(address).tls(&other));
    assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
    until("all are counted", || server.handle.stats().greetings.tls == 2);
}

#[test]
fn a_client_of_the_loop_gives_up_on_a_server_that_is_none_of_tls() {
    let Some(pki) = Pki::make() else { return };
    let plain = serve(ServerBuilder::new().strategy(EventLoop::new()).bind(ANY, factory(|_| Echo)).unwrap());
    let failed = attempt(Connect::to(plain.addr()).tls(&roots(&pki)));
    assert!(failed.contains("cannot begin TLS"), "it repeats our hello: {failed}");
    struct Mute;
    impl Protocol for Mute {
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
    }
    let mute = serve(ServerBuilder::new().strategy(EventLoop::new()).bind(ANY, factory(|_| Mute)).unwrap());
    let failed = attempt(Connect::to(mute.addr()).timeout(ms(200)).tls(&roots(&pki)));
    assert!(failed.contains("no answer within"), "{failed}");
}

#[test]
fn a_client_of_the_loop_begins_tls_when_the_server_agrees() {
    let Some(pki) = Pki::make() else { return };
    let tls = config(&pki);
    let make = factory(move |_| lines(Starter(tls.clone())));
    let server = serve(ServerBuilder::new().strategy(EventLoop::new()).bind(ANY, make).unwrap());
    let (mut reactor, journal, roots) = (Reactor::new().unwrap(), Journal::default(), roots(&pki));
    let client = Client::new(&journal).with(move |journal| {
        let roots = roots.clone();
        let made = Script::new(journal).on("made", |t, _| Ok(t.write(b"STARTTLS\n")?));
        Some(made.on("data", move |t, data| {
            if data == b"220 go ahead\n" {
                t.start_tls_client(&roots, "localhost", b"")?;
                t.write(b"how?\n")?; // after the handshake
            } else {
                t.close();
            }
            Ok(())
        }))
    });
    reactor.context().connect_tcp(server.addr(), client);
    turn_until(&mut reactor, "it is over", || journal.count("stop") == 1);
    assert_eq!(journal.take(), "start build made data:220 go ahead\n data:secret\n lost:closed stop");
}

/// A Unix socket refuses close_notify at once when its peer is gone.
#[test]
fn a_client_that_has_ended_and_gone_is_served() {
    let Some(pki) = Pki::make() else { return };
    let path = pki.file("server.sock");
    let builder = ServerBuilder::new().strategy(EventLoop::new()).tls(config(&pki));
    let server = serve(builder.bind(format!("unix:{path}"), factory(|_| lines(Lengths))).unwrap());
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(trust(&pki)), name).unwrap();
    let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut client = rustls::Stream::new(&mut session, &mut socket);
    client.write_all(b"hello\n").unwrap();
    expect(&mut client, "5\n");
    drop(socket);
    until("it has ended", || server.handle.stats().active == 0);
    let report = server.stop();
    assert_eq!((report.served, report.disconnected), (1, 0));
}
