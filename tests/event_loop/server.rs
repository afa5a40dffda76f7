//! An event loop as a server's strategy: limits, pauses, refusals, lingering and counters.

use crate::kit;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{connect, expect, ms, read_all, serve, until, Running, LONG};
use socketserver::connection::LingeringClose;
use socketserver::{factory, AtLimit, EventLoop, HandlerResult, Protocol, Report, ServerBuilder, Transport};

const ANY: &str = "127.0.0.1:0";

fn builder() -> ServerBuilder<EventLoop> {
    ServerBuilder::new().strategy(EventLoop::new())
}

/// Does what the line says: `fail`, `panic`, `quit`; repeats all else.
struct Doer;

impl Protocol for Doer {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        match data {
            b"fail" => return Err("asked to fail".into()),
            b"panic" => panic!("asked to panic"),
            b"quit" => t.close(),
            _ => {}
        }
        match t.is_closing() {
            true => Ok(()),
            false => Ok(t.write(data)?),
        }
    }
}

fn doers(builder: ServerBuilder<EventLoop>) -> Running {
    serve(builder.bind(ANY, factory(|_| Doer)).unwrap())
}

fn ask(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
    expect(client, text);
}

#[test]
fn never_one_more_than_the_limit() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    struct Counted(Arc<AtomicUsize>);
    impl Protocol for Counted {
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            Ok(t.write(data)?)
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let theirs = most.clone();
    let build = factory(move |_| {
        theirs.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        Counted(now.clone())
    });
    let server = serve(builder().max_connections(3).bind(ANY, build).unwrap());
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    until("the limit is reached", || server.handle.stats().active == 3);
    clients.iter().for_each(|client| (&mut &*client).write_all(b"x").unwrap());
    clients.iter().for_each(|client| client.shutdown(Shutdown::Write).unwrap());
    clients.iter_mut().for_each(|client| assert_eq!(read_all(client), "x"));
    assert_eq!((server.stop().served, most.load(SeqCst)), (40, 3));
}

#[test]
fn the_limit_is_changed_while_serving() {
    let server = doers(builder().max_connections(1));
    let (mut first, mut second) = (server.connect(), server.connect());
    ask(&mut first, "1");
    second.write_all(b"2").unwrap();
    assert_eq!(server.handle.stats().accepted, 1);
    server.handle.set_max_connections(2).unwrap();
    expect(&mut second, "2");
    server.handle.set_max_connections(1).unwrap();
    ask(&mut first, "3");
    let mut third = server.connect();
    third.write_all(b"4").unwrap();
    drop(second);
    until("the second is gone", || server.handle.stats().active == 1);
    ask(&mut first, "5");
    assert_eq!(server.handle.stats().accepted, 2);
    drop(first);
    expect(&mut third, "4");
}

#[test]
fn a_client_beyond_the_limit_gets_the_refusal() {
    let server = doers(builder().max_connections(1).at_limit(AtLimit::Refuse(b"busy\n".to_vec())));
    let mut first = server.connect();
    ask(&mut first, "1");
    for _ in 0..3 {
        server.handle.pause();
        let mut eager = server.connect();
        eager.write_all(b"unread").unwrap(); // a close with unread input would be a reset
        server.handle.resume();
        assert_eq!(read_all(&mut eager), "busy\n");
    }
    ask(&mut first, "2");
    drop(first);
    until("there is a place", || server.handle.stats().active == 0);
    assert_eq!(server.ask("3"), "3");
    let report = server.stop();
    assert_eq!((report.accepted, report.served, report.refused), (5, 2, 3), "{report}");
}

#[test]
fn while_paused_clients_wait() {
    let server = doers(builder());
    let mut old = server.connect();
    ask(&mut old, "1");
    server.handle.pause();
    let mut new = server.connect();
    new.write_all(b"new").unwrap();
    (0..20).for_each(|_| ask(&mut old, "2"));
    assert_eq!(server.handle.stats().accepted, 1);
    server.handle.resume();
    expect(&mut new, "new");
}

#[test]
fn the_account_adds_up_and_is_that_of_one_run() {
    let mut server = builder().bind(ANY, factory(|_| Doer)).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    for run in 1..=2 {
        let stops = handle.clone();
        let clients = thread::spawn(move || {
            for text in ["fine", "fail", "panic", "quit"] {
                let mut client = connect(addr);
                client.write_all(text.as_bytes()).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&mut client), if text == "fine" { text } else { "" });
            }
            until("all are counted", || stops.stats().accepted == run * 4 && stops.stats().active == 0);
            stops.shutdown();
        });
        let report = server.serve_forever().unwrap();
        clients.join().unwrap();
        assert_eq!((report.accepted, report.served, report.failed), (4, 2, 2), "{report}");
        assert_eq!(handle.stats().panicked, run);
    }
}

#[test]
fn the_limits_of_a_server_hold() {
    let server = doers(builder().idle_timeout(ms(50)).write_timeout(ms(50)));
    let since = Instant::now();
    assert_eq!(read_all(&mut server.connect()), "");
    assert!(since.elapsed() >= ms(50), "{:?}", since.elapsed());
    let report = server.stop();
    assert_eq!((report.failed, report.served), (1, 0), "{report}");
}

#[test]
fn one_request_is_one_connection() {
    let mut server = builder().bind(ANY, factory(|_| Doer)).unwrap();
    let addr = server.local_addr().socket_addr().unwrap();
    assert!(!server.handle_request(Some(ms(10))).unwrap(), "nobody has come");
    let mut clients: Vec<_> = (0..3).map(|_| connect(addr)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(server.handle_request(Some(LONG)).unwrap());
        assert_eq!((read_all(client).as_str(), server.handle().stats().accepted), ("x", n as u64 + 1));
    }
    server.handle().shutdown();
    assert!(!server.handle_request(None).unwrap(), "told to stop");
    server.serve_forever().unwrap();
    let client = thread::spawn(move || kit::ask(addr, "again"));
    assert!(server.handle_request(Some(LONG)).unwrap());
    assert_eq!(client.join().unwrap(), "again");
}

#[test]
fn one_request_is_one_connection_on_several_listeners() {
    let mut server = builder().listen(ANY).bind(ANY, factory(|_| Doer)).unwrap();
    let addrs: Vec<_> = server.local_addrs().map(|addr| addr.socket_addr().unwrap()).collect();
    assert_eq!(addrs.len(), 2);
    let mut clients: Vec<_> = addrs.iter().map(|addr| connect(*addr)).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    assert!(server.handle_request(Some(LONG)).unwrap());
    assert_eq!(server.handle().stats().accepted, 1);
    assert!(server.handle_request(Some(LONG)).unwrap());
    clients.iter_mut().for_each(|client| assert_eq!(read_all(client), "x"));
}

/// Answers and closes at the first byte.
struct Short;

impl Protocol for Short {
    fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        t.write(&[b'x'; 1000])?;
        t.close();
        Ok(())
    }
}

/// Whether the connection is held, half-closed, after the client has read the end of the stream.
fn lingers(policy: LingeringClose, unread: bool) -> bool {
    let server = serve(builder().lingering_close(policy).bind(ANY, factory(|_| Short)).unwrap());
    let mut client = server.connect();
    client.write_all(if unread { &[b'u'; 100_000] } else { b"u" }).unwrap();
    let mut got = Vec::new();
    let whole = client.read_to_end(&mut got).is_ok() && got.len() == 1000;
    assert!(whole || policy == LingeringClose::Never);
    // It lingers for 2 s after its end, or is taken off the books at once.
    let since = Instant::now();
    until("it has ended, or lingers", || server.handle.stats().active == 0 || since.elapsed() > ms(500));
    let held = server.handle.stats().active == 1;
    drop(client);
    until("it ends with its client", || server.handle.stats().active == 0);
    assert_eq!(server.stop().served, 1);
    held
}

#[test]
fn a_close_lingers_as_the_server_says() {
    let never = [(LingeringClose::IfUnread, false), (LingeringClose::Never, false), (LingeringClose::Never, true)];
    for (policy, unread) in never {
        assert!(!lingers(policy, unread), "{policy:?}, {unread}");
    }
    let lingering = [(LingeringClose::Always, false), (LingeringClose::Always, true), (LingeringClose::IfUnread, true)];
    for (policy, unread) in lingering {
        assert!(lingers(policy, unread), "{policy:?}, {unread}");
    }
}

#[test]
fn a_stop_ends_the_idle_and_serves_the_queue() {
    let server = builder().max_connections(2).drain_timeout(Duration::from_secs(3600));
    let server = doers(server);
    let (mut one, mut two) = (server.connect(), server.connect());
    ask(&mut one, "1");
    ask(&mut two, "2");
    let mut queued = server.connect();
    queued.write_all(b"queued").unwrap();
    queued.shutdown(Shutdown::Write).unwrap();
    server.handle.shutdown();
    assert_eq!((read_all(&mut one).as_str(), read_all(&mut two).as_str()), ("", ""));
    assert_eq!(read_all(&mut queued), "queued");
    let report: Report = server.join();
    assert_eq!((report.accepted, report.served, report.forced), (3, 3, 0), "{report}");
}
