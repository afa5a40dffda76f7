//! Behind a proxy: what hooks and handlers see, which connections are served, and how the others are counted.

use std::cell::Cell;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kit::{connect, read_all, serve, until, Folder, Running};
use socketserver::proxy::{ProxyError, ProxyProtocol};
use socketserver::server::Engine;
use socketserver::{factory, handler, lines, Blocking, Connection, Error, EventLoop, EventLoops, Failure};
use socketserver::{GreetingFailure, HandlerResult, LineReceiver, Sequential, ServerBuilder, ThreadPool, Threading};

/// A header for the client 198.51.100.3:4242 with the unique id `id`.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xc6\x33\x64\x03\xc0\0\x02\x01\x10\x92\x01\xbb\x05\0\x02id";

/// What a connection knows of its peer.
fn known(peer: impl ToString, id: Option<&[u8]>) -> String {
    format!("{} {}", peer.to_string(), String::from_utf8_lossy(id.unwrap_or(b"none")))
}

fn answer(conn: &mut Connection) -> HandlerResult {
    while let Some(line) = conn.next_line()? {
        let line = line.to_owned();
        let text = known(conn.peer_addr(), conn.proxy_header().and_then(|header| header.unique_id()));
        conn.send_line(format!("{line}: {text}"))?;
    }
    Ok(())
}

/// The same as a protocol. It knows the peer from the beginning.
struct Answers(Option<String>);

impl LineReceiver for Answers {
    fn connection_made(&mut self, transport: &mut socketserver::event_loop::FramedTransport<'_>) -> HandlerResult {
        let id = transport.proxy_header().and_then(|header| header.unique_id());
        self.0 = Some(known(transport.peer_addr(), id));
        Ok(())
    }

    fn line_received(
        &mut self,
        transport: &mut socketserver::event_loop::FramedTransport<'_>,
        line: &[u8],
    ) -> HandlerResult {
        let known = self.0.as_deref().unwrap_or_default();
        transport.send_line(format!("{}: {known}", String::from_utf8_lossy(line)))
    }
}

/// Calls this with a server of each kind that runs in this process.
fn on_each(builder: impl Fn() -> ServerBuilder, mut check: impl FnMut(&str, Running)) {
    fn bound<H, S>(builder: ServerBuilder<S>, handler: H) -> Running
    where
        H: Send + Sync + 'static,
        S: Engine<H> + Send + 'static,
    {
        serve(builder.bind_tcp("127.0.0.1:0", handler).unwrap())
    }
    let protocols = || factory(|_peer| lines(Answers(None)));
    check("Sequential", bound(builder().strategy(Sequential), handler(answer)));
    check("Threading", bound(builder().strategy(Threading::new()), handler(answer)));
    check("ThreadPool", bound(builder().strategy(ThreadPool::new(4)), handler(answer)));
    check("Blocking", bound(builder().strategy(Threading::new()), Blocking(protocols())));
    check("EventLoop", bound(builder().strategy(EventLoop::new()), protocols()));
    check("EventLoops", bound(builder().strategy(EventLoops::new(2)), protocols()));
}

fn behind(networks: impl Into<ProxyProtocol>) -> ServerBuilder {
    ServerBuilder::new().proxy_protocol(networks)
}

/// All that is answered, until the server has closed or the client's end of the stream has done its part.
fn ask(mut client: TcpStream, said: &[u8]) -> String {
    client.write_all(said).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    read_all(&mut client)
}

#[test]
fn the_hook_and_the_handler_see_the_client() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sees = seen.clone();
    let builder = move || {
        let seen = sees.clone();
        behind(["127.0.0.1"]).verify_request(move |incoming| {
            let id = incoming.proxy_header().and_then(|header| header.unique_id());
            seen.lock().unwrap().push(known(incoming.peer_addr(), id));
            incoming.peer_addr().port() != Some(1)
        })
    };
    on_each(builder, |name, server| {
        assert_eq!(ask(server.connect(), &[HEADER, b"a\n"].concat()), "a: 198.51.100.3:4242 id\n", "{name}");
        let refused = ask(server.connect(), b"PROXY TCP4 192.0.2.7 127.0.0.1 1 443\r\n");
        assert_eq!(refused, "", "{name}: the hook has refused it");
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), ["198.51.100.3:4242 id", "192.0.2.7:1 none"], "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.refused, report.greetings.all()), (1, 1, 0), "{name}");
    });
}

/// Input that has come with the header, byte by byte or at once, is the client's.
#[test]
fn a_header_may_come_in_any_two_pieces() {
    on_each(
        || behind(["127.0.0.1"]),
        |name, server| {
            let whole = [HEADER, b"a\nb\n"].concat();
            let answer = "a: 198.51.100.3:4242 id\nb: 198.51.100.3:4242 id\n";
            for cut in 1..whole.len() {
                let mut client = server.connect();
                client.set_nodelay(true).unwrap();
                client.write_all(&whole[..cut]).unwrap();
                // The server may have seen the first piece alone: that is a matter of chance, over many cuts.
                std::thread::yield_now();
                assert_eq!(ask(client, &whole[cut..]), answer, "{name}, cut at {cut}");
            }
            assert_eq!(server.stop().greetings.all(), 0, "{name}");
        },
    );
}

#[test]
fn other_networks_are_served_directly_if_asked_for() {
    on_each(
        || behind(ProxyProtocol::from(["10.0.0.0/8"]).or_direct()),
        |name, server| {
            let client = server.connect();
            let ours = client.local_addr().unwrap();
            assert_eq!(ask(client, b"a\n"), format!("a: {ours} none\n"), "{name}");
            let heard = ask(server.connect(), b"PROXY UNKNOWN\r\n");
            assert!(heard.starts_with("PROXY UNKNOWN: "), "{name}: there, a header is the client's line: {heard}");
        },
    );
}

#[test]
fn a_failed_greeting_is_reported_and_counted_by_its_reason() {
    type Seen = Arc<Mutex<Vec<(GreetingFailure, Option<ProxyError>)>>>;
    let (seen, limit) = (Seen::default(), Cell::new(Duration::from_secs(60)));
    let builder = || {
        let seen = seen.clone();
        behind(["127.0.0.1"]).handshake_timeout(limit.get()).handle_error(move |failure| {
            if let Failure::Greeting { reason, error, .. } = failure {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref()).copied();
                seen.lock().unwrap().push((*reason, inner));
            }
        })
    };
    let reported = |name: &str, reason, error| {
        until(&format!("{name}: {reason:?}"), || !seen.lock().unwrap().is_empty());
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), [(reason, error)], "{name}");
    };
    on_each(builder, |name, server| {
        drop(server.connect());
        reported(name, GreetingFailure::Left, None);
        let mut client = server.connect();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        reported(name, GreetingFailure::Header, Some(ProxyError::Signature));
        let report = server.stop();
        let counts = report.greetings;
        assert_eq!((counts.left, counts.header, counts.all()), (1, 1, 2), "{name}");
        assert_eq!((report.accepted, report.refused, report.disconnected), (2, 1, 1), "{name}");
    });
    limit.set(Duration::from_millis(100));
    on_each(builder, |name, server| {
        let _slow = server.connect();
        reported(name, GreetingFailure::TimedOut, None);
        assert_eq!(server.stop().greetings.timed_out, 1, "{name}");
    });
}

/// A local proxy is known by the socket's file, and named as `unix:`.
#[test]
fn a_proxy_may_come_over_a_unix_socket() {
    let folder = Folder::new();
    for (networks, said, answered) in [
        (ProxyProtocol::from(["unix:"]), [HEADER, b"a\n"].concat(), "a: 198.51.100.3:4242 id\n"),
        (ProxyProtocol::from(["0.0.0.0/0", "::/0"]), [HEADER, b"a\n"].concat(), ""),
        (ProxyProtocol::from(["0.0.0.0/0"]).or_direct(), b"a\n".to_vec(), "a: unix: none\n"),
    ] {
        let path = folder.path("s");
        let server = serve(ServerBuilder::new().proxy_protocol(networks).bind_unix(&path, handler(answer)).unwrap());
        let mut client = UnixStream::connect(&path).unwrap();
        let _ = client.write_all(&said);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut heard = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client, &mut heard); // refused: perhaps a reset
        assert_eq!(String::from_utf8(heard).unwrap(), answered);
        server.stop();
    }
}

#[test]
fn a_setting_that_makes_no_sense_is_an_error_at_the_bind() {
    let bind = |builder: ServerBuilder| builder.bind_tcp("127.0.0.1:0", handler(answer)).unwrap_err();
    let error = bind(behind(["10.0.0.0/8", "10.0.0.1/8"]));
    assert!(matches!(error, Error::Setting { name: "proxy_protocol", .. }), "{error}");
    let text =
        "proxy_protocol: \"10.0.0.1/8\" has bits after its prefix; write 10.0.0.0/8, or 10.0.0.1 for one address";
    assert_eq!(error.to_string(), text);
    let error = bind(behind(Vec::<String>::new()));
    assert!(error.to_string().contains("no network is named"), "{error}");
    let error = bind(ServerBuilder::new().handshake_timeout(Duration::ZERO));
    assert!(matches!(error, Error::Setting { name: "handshake_timeout", .. }), "{error}");
}

/// What follows the header at once stays where it is: a stop still serves a connection that has sent both.
#[test]
fn a_client_that_was_queued_at_the_stop_is_served_behind_a_proxy_too() {
    on_each(
        || behind(["127.0.0.1"]),
        |name, server| {
            server.handle.pause();
            let mut queued = connect(server.addr());
            queued.write_all(&[HEADER, b"a\n"].concat()).unwrap();
            queued.shutdown(std::net::Shutdown::Write).unwrap();
            server.handle.resume();
            server.handle.shutdown();
            let heard = read_all(&mut queued);
            assert_eq!(heard, "a: 198.51.100.3:4242 id\n", "{name}");
            assert_eq!(server.join().served, 1, "{name}");
        },
    );
}
