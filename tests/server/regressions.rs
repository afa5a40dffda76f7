//! What reviewers have found, each with the case that shows it mended.

use crate::kit;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::kit::{ms, read_all, serve, threads_named, until, AT_ONCE, LONG};
use socketserver::connection::LingeringClose;
use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{handler, AtLimit, Sequential, ServerBuilder};
use socketserver::{StreamRequestHandler, ThreadPool, Threading};

fn waits_for_a_line() -> impl StreamRequestHandler {
    handler(|conn| Ok(conn.next_line().map(drop)?))
}

/// The cut gave a permit back, and a client that waited for it in the queue was served all the same, and not cut.
#[test]
fn after_the_cut_no_client_is_served_and_the_port_is_free() {
    let builder = ServerBuilder::new().strategy(ThreadPool::new(4)).max_connections(1);
    let server = serve(builder.bind_tcp("127.0.0.1:0", waits_for_a_line()).unwrap());
    let (addr, handle) = (server.addr(), server.handle.clone());
    let mut first = server.connect();
    first.write_all(b"half").unwrap();
    until("the first is served", || handle.stats().active == 1);
    let mut second = server.connect();
    second.write_all(b"half").unwrap();
    handle.shutdown();
    until("the stop", || handle.is_shutting_down());
    handle.shutdown_now();
    let report = server.join();
    assert_eq!((report.accepted, report.abandoned), (1, 0), "{report}");
    until("the port is closed", || std::net::TcpStream::connect(addr).is_err());
}

/// Progress was taken for an excuse: a client that read on held its place as long as the reply lasted.
#[test]
fn the_request_limit_bounds_a_reply_to_a_slow_reader() {
    let big = handler(|conn| Ok(conn.write_all(&vec![7; 64 << 20])?));
    let server = serve(ServerBuilder::new().request_timeout(ms(300)).bind_tcp("127.0.0.1:0", big).unwrap());
    let mut client = server.connect();
    let (mut buf, mut got, began) = (vec![0; 50_000], 0, Instant::now());
    while let Ok(n @ 1..) = kit::read(&mut client, &mut buf) {
        got += n;
        std::thread::sleep(ms(5)); // a slow reader
        assert!(began.elapsed() < LONG, "still reading");
    }
    assert!(got < 64 << 20, "the whole reply arrived");
    until("the limit is counted", || server.handle.stats().timed_out == 1);
    server.stop();
}

struct Bomb;

impl std::fmt::Debug for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bomb")
    }
}

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bomb")
    }
}

impl std::error::Error for Bomb {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("in source")
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

/// An error is the user's code as well: its `source` and its drop may panic.
#[test]
fn an_error_that_panics_ends_nothing() {
    for _ in 0..2 {
        let bombs = handler(|_| Err(Box::new(Bomb)));
        let server = serve(ServerBuilder::new().strategy(Sequential).bind_tcp("127.0.0.1:0", bombs).unwrap());
        for _ in 0..3 {
            assert_eq!(read_all(&mut server.connect()), "");
        }
        until("all are counted", || server.handle.stats().failed == 3);
        server.stop();
    }
}

struct Rejects;

impl ServingStrategy for Rejects {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        Err(Rejected::new(request, std::io::Error::other("not this one")))
    }
}

/// Every rejection made accepting rest for 100 ms, as if the system lacked something.
#[test]
fn a_rejection_of_choice_does_not_slow_accepting_down() {
    let server = serve(ServerBuilder::new().strategy(Rejects).bind_tcp("127.0.0.1:0", waits_for_a_line()).unwrap());
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(read_all(&mut server.connect()), "");
    }
    assert!(began.elapsed() < AT_ONCE, "100 rejections took {:?}", began.elapsed());
    assert_eq!(server.stop().refused, 100);
}

/// A pool's limit was taken at the user's word, and refusing went through a timeout.
#[test]
fn a_pool_never_promises_more_than_its_threads() {
    let builder = ServerBuilder::new().strategy(ThreadPool::new(2)).max_connections(100);
    let builder = builder.at_limit(AtLimit::Refuse(b"busy\n".to_vec())).lingering_close(LingeringClose::Never);
    let server = serve(builder.bind_tcp("127.0.0.1:0", waits_for_a_line()).unwrap());
    assert_eq!(server.handle.stats().max_connections, 2);
    server.handle.set_max_connections(50).unwrap();
    assert_eq!(server.handle.stats().max_connections, 2);
    let held = [server.connect(), server.connect()];
    until("both are served", || server.handle.stats().active == 2);
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(read_all(&mut server.connect()), "busy\n");
    }
    assert!(began.elapsed() < AT_ONCE, "100 refusals took {:?}", began.elapsed());
    drop(held);
    server.stop();
}

/// A timeout armed for a short limit stayed for the next, long wait, which it broke off again and again.
#[test]
fn an_idle_wait_is_not_broken_off_by_a_shorter_limit() {
    let lines = handler(|conn| {
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            writeln!(conn, "{line}")?;
        }
        Ok(())
    });
    let builder = ServerBuilder::new().read_timeout(ms(20)).idle_timeout(Duration::from_secs(600));
    let server =
        serve(builder.strategy(ThreadPool::new(1).thread_name("regress-idle")).bind_tcp("127.0.0.1:0", lines).unwrap());
    let mut client = server.connect();
    client.write_all(b"a").unwrap();
    client.write_all(b"b\n").unwrap();
    kit::expect(&mut client, "ab\n");
    until("it waits", || kit::switches("regress-idle").is_some());
    std::thread::sleep(ms(300)); // time is what is tested: 15 of the shorter limit
    let before = kit::switches("regress-idle").unwrap();
    std::thread::sleep(ms(600));
    let woken = kit::switches("regress-idle").unwrap() - before;
    assert!(woken <= 3, "woken {woken} times while idle");
    drop(client);
    server.stop();
}

/// The kernel wakes one thread for a connection. If it waited for the resume and ended after its
/// `keep_alive`, no other waiting thread knew of the connection.
#[test]
fn a_connection_outlives_the_patience_of_the_thread_that_was_woken_for_it() {
    let strategy = Threading::new().thread_name("patience").keep_alive(ms(300));
    let echo = handler(|conn| {
        let line = conn.next_line()?;
        Ok(writeln!(conn, "{}", line.unwrap_or_default())?)
    });
    let server = serve(ServerBuilder::new().strategy(strategy).bind_tcp("127.0.0.1:0", echo).unwrap());
    for round in 1..=5 {
        let mut first: Vec<_> = (0..6).map(|_| server.connect()).collect();
        until("six are served", || server.handle.stats().active == 6);
        first.iter_mut().for_each(|client| client.write_all(b"go\n").unwrap());
        until("they are done", || server.handle.stats().served == 7 * round - 1);
        server.handle.pause();
        let mut client = server.connect();
        client.write_all(b"hello\n").unwrap();
        until("others have ended", || threads_named("patience") <= 2);
        server.handle.resume();
        assert_eq!(read_all(&mut client), "hello\n");
    }
    server.stop();
}
