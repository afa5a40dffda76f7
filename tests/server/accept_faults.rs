//! What the accepting side survives: rows A and R of the fault list, on every strategy that serves in this process.
//! The rows that need another process stand elsewhere. The listener fails as told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::until;
use nix::libc::{EBADF, ECONNABORTED, EFAULT, EHOSTDOWN, EHOSTUNREACH, EINVAL, EMFILE, ENETDOWN, ENETUNREACH};
use nix::libc::{EINTR, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOTSOCK, EOPNOTSUPP, EPERM, EPROTO, ETIMEDOUT};
use socketserver::server::Engine;
use socketserver::strategy::ServingStrategy;
use socketserver::testing::{FailingListener, Failures, TestServer};
use socketserver::{
    factory, handler, AtLimit, Connection, Error, EventLoop, Failure, HandlerResult, Protocol, Sequential,
    ServerBuilder, ThreadPool, Threading, Transport,
};

/// Answers a line at a time.
fn echo(conn: &mut Connection) -> HandlerResult {
    while conn.next_request()? {
        let Some(line) = conn.next_line()? else { break };
        writeln!(conn, "{line}")?;
    }
    Ok(())
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

/// A server, and all its addresses.
struct Served(TestServer, Vec<SocketAddr>);

impl std::ops::Deref for Served {
    type Target = TestServer;

    fn deref(&self) -> &TestServer {
        &self.0
    }
}

type Serve = Box<dyn FnOnce(ServerBuilder, FailingListener) -> Served>;

fn serve<H: Send + Sync + 'static, S: Engine<H> + Send + 'static>(
    builder: ServerBuilder<S>,
    listener: FailingListener,
    handler: H,
) -> Served {
    let server = builder.from_listener(listener, handler).unwrap();
    let addrs = server.local_addrs().filter_map(|addr| addr.socket_addr()).collect();
    Served(TestServer::of(server), addrs)
}

/// Does this for a server of each strategy, on a listener that fails as told.
fn on_each(mut act: impl FnMut(&str, Serve)) {
    fn blocking(strategy: impl ServingStrategy + 'static) -> Serve {
        Box::new(|builder, listener| serve(builder.strategy(strategy), listener, handler(echo)))
    }
    act("sequential", blocking(Sequential));
    act("threading", blocking(Threading::new()));
    act("thread-pool", blocking(ThreadPool::new(4)));
    let event_loop =
        |builder: ServerBuilder, listener| serve(builder.strategy(EventLoop::new()), listener, factory(|_| Echo));
    act("event-loop", Box::new(event_loop));
}

fn failing() -> (FailingListener, Failures) {
    FailingListener::bind("127.0.0.1:0").unwrap()
}

/// All that has come is accounted for, and a newcomer is served.
#[track_caller]
fn serves_on(name: &str, server: &TestServer) {
    assert_eq!(server.connect().ask("probe"), "probe", "{name}");
    until("all connections have ended", || server.stats().active == 0);
    let s = server.stats();
    assert_eq!(s.accepted, s.served + s.failed + s.disconnected + s.refused, "{name}: {s:?}");
}

/// A rest for each error would be 5 + 10 + 20 + 40 + 80 ms and more. A loaded machine is as slow now and then, but not
/// always.
fn is_served_without_a_rest(name: &str, server: &TestServer, failures: &Failures, errors: &[i32]) {
    let mut rounds = 0;
    until("a client is served without a rest", || {
        rounds += 1;
        failures.add(errors.iter().copied());
        let asked = Instant::now();
        assert_eq!(server.connect().ask("hello"), "hello", "{name}");
        let is_quick = asked.elapsed() < Duration::from_millis(100);
        assert_eq!(failures.left(), 0, "{name}");
        // Another thread than the client's may have met an error.
        until("all are counted", || server.stats().accept_errors == rounds * errors.len() as u64);
        is_quick
    });
}

#[test]
fn a1_an_aborted_connection_is_retried_at_once_and_counted() {
    on_each(|name, serve| {
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        is_served_without_a_rest(name, &server, &failures, &[ECONNABORTED; 5]);
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a3_without_descriptors_it_waits_100_ms_or_until_one_of_ours_ends() {
    on_each(|name, serve| {
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        let concurrent = name != "sequential";
        let mut first = server.connect();
        assert_eq!(first.ask("first"), "first");
        if concurrent {
            failures.add([EMFILE; 600]); // a minute's
            let second = server.connect();
            until("it has failed", || server.stats().accept_errors >= 2);
            let then = server.stats().accept_errors;
            std::thread::sleep(Duration::from_millis(500)); // a stretch of time, in which little is to happen
            assert!(server.stats().accept_errors - then < 20, "{name}: it does not rest");
            drop(second);
        }
        failures.clear();
        failures.add([EMFILE; 1]);
        drop(first);
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a3_the_end_of_a_connection_ends_the_rest() {
    on_each(|name, serve| {
        if name == "sequential" {
            return; // nobody else is connected while it accepts
        }
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        // On a loaded machine, some rounds take longer for other reasons.
        let (mut quick, mut rounds) = (0, 0);
        while quick < 4 {
            rounds += 1;
            assert!(rounds < 40, "{name}: {quick} of {rounds} rests have ended early");
            let mut first = server.connect();
            assert_eq!(first.ask("first"), "first");
            let before = server.stats().accept_errors;
            failures.add([ENFILE; 8]); // together more than a second's rest
            let mut second = server.connect();
            until("it rests", || server.stats().accept_errors >= before + 7); // this rest is 320 ms long
            let freed = Instant::now();
            failures.clear();
            first.end();
            assert_eq!(second.ask("second"), "second");
            quick += usize::from(freed.elapsed() < Duration::from_millis(200));
        }
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a4_what_the_system_lacks_is_waited_out() {
    for errno in [ENFILE, ENOBUFS, ENOMEM] {
        on_each(|name, serve| {
            let (listener, failures) = failing();
            let told = Arc::new(Mutex::new(Vec::new()));
            let hook = told.clone();
            let server = serve(
                ServerBuilder::new().handle_error(move |failure| {
                    if let Failure::Accept { error, .. } = failure {
                        hook.lock().unwrap().push((error.raw_os_error(), Instant::now()));
                    }
                }),
                listener,
            );
            failures.add([errno; 6]);
            assert_eq!(server.connect().ask("hello"), "hello", "{name}: {errno}");
            until("the hook has heard of every one", || told.lock().unwrap().len() == 6); // from any thread
            let told = told.lock().unwrap();
            assert!(told.iter().all(|(e, _)| *e == Some(errno)));
            let rested = told[5].1 - told[0].1;
            // 5 + 10 + 20 + 40 + 80 ms, of which threads that were woken together rest most at the same time
            assert!(rested >= Duration::from_millis(5), "{name}: {errno}: {rested:?}");
            serves_on(name, &server);
            server.0.stop();
        });
    }
}

#[test]
fn a5_network_errors_of_a_connection_are_retried() {
    let all =
        [ENETDOWN, EPROTO, ENOPROTOOPT, EHOSTDOWN, ENONET, EHOSTUNREACH, EOPNOTSUPP, ENETUNREACH, EPERM, ETIMEDOUT];
    on_each(|name, serve| {
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        is_served_without_a_rest(name, &server, &failures, &all);
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a5_an_error_that_does_not_end_is_no_reason_to_spin() {
    on_each(|name, serve| {
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        failures.add(vec![EPERM; 10_000]); // a firewall that refuses everybody
        let client = TcpStream::connect(server.addr()).unwrap();
        until("it rests", || server.stats().accept_errors > 15);
        let then = server.stats().accept_errors;
        std::thread::sleep(Duration::from_millis(500)); // a stretch of time, in which little is to happen
        assert!(server.stats().accept_errors - then < 50, "{name}: it does not rest");
        failures.clear();
        drop(client);
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a6_a_listener_that_is_of_no_use_ends_the_server_with_a_typed_error() {
    for errno in [EBADF, EINVAL, ENOTSOCK, EFAULT] {
        let check = |name: &str, error: Error, addr: String| match error {
            Error::Accept { address, source } => {
                assert_eq!((address, source.raw_os_error()), (addr, Some(errno)), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        };
        fn end<H, S: Engine<H>>(builder: ServerBuilder<S>, errno: i32, handler: H) -> (Error, String) {
            let (listener, failures) = failing();
            failures.add([errno]);
            // Another thread than the one that meets the error may take the client, who says nothing: a drain spares it.
            let mut server = builder.drain_timeout(Duration::from_millis(10)).from_listener(listener, handler).unwrap();
            let addr = server.local_addr().to_string();
            let _client = TcpStream::connect(&addr).unwrap();
            (server.serve_forever().unwrap_err(), addr)
        }
        let blocking: [(&str, Box<dyn ServingStrategy>); 3] = [
            ("sequential", Box::new(Sequential)),
            ("threading", Box::new(Threading::new())),
            ("thread-pool", Box::new(ThreadPool::new(4))),
        ];
        for (name, strategy) in blocking {
            let (error, addr) = end(ServerBuilder::new().strategy(strategy), errno, handler(echo));
            check(name, error, addr);
        }
        let (error, addr) = end(ServerBuilder::new().strategy(EventLoop::new()), errno, factory(|_| Echo));
        check("event-loop", error, addr);
    }
}

#[test]
fn a13_the_other_listeners_go_on() {
    on_each(|name, serve| {
        let (broken, failures) = failing();
        let lost_addr = broken.local_addr().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook = told.clone();
        let builder = ServerBuilder::new().listen("127.0.0.1:0").handle_error(move |failure| {
            if let Failure::ListenerLost { local, .. } = failure {
                hook.lock().unwrap().push(local.to_string());
            }
        });
        let server = serve(builder, broken);
        let other = *server.1.iter().find(|addr| **addr != lost_addr).unwrap();
        failures.add([EINVAL; 1000]);
        let _lost = TcpStream::connect(lost_addr).unwrap();
        until("it is told", || *told.lock().unwrap() == [lost_addr.to_string()]);
        for _ in 0..5 {
            let mut client = TcpStream::connect(other).unwrap();
            client.write_all(b"hello\n").unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello\n", "{name}");
        }
        std::thread::sleep(Duration::from_millis(300)); // a stretch of time, in which nothing is to happen
        assert!(failures.left() > 900, "{name}: it is tried again and again");
        assert_eq!(told.lock().unwrap().len(), 1, "once");
        server.0.stop();
    });
}

#[test]
fn a_server_that_refuses_says_so_without_a_descriptor_too() {
    on_each(|name, serve| {
        if name == "sequential" {
            return; // nobody is there to refuse
        }
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new().at_limit(AtLimit::Refuse(b"busy\n".to_vec())), listener);
        let mut first = server.connect();
        assert_eq!(first.ask("hello"), "hello");
        // A blocking strategy first gives up the descriptor of its wait.
        let lacks = if name == "event-loop" { 1 } else { 2 };
        for _ in 0..20 {
            failures.add(vec![EMFILE; lacks]);
            assert_eq!(server.connect().line(), "busy", "{name}");
        }
        until("all are counted", || server.stats().refused == 20);
        assert_eq!(first.ask("still there"), "still there", "{name}");
        drop(first);
        serves_on(name, &server);
        server.0.stop();
    });
}

#[test]
fn a7_signals_show_nowhere() {
    on_each(|name, serve| {
        let (listener, failures) = failing();
        let server = serve(ServerBuilder::new(), listener);
        failures.add([EINTR; 100]);
        assert_eq!(server.connect().ask("hello"), "hello", "{name}");
        assert_eq!(server.stats().accept_errors, 0, "{name}");
        server.0.stop();
    });
}

#[test]
fn a6_a_listener_closed_by_another_thread_ends_the_server_without_a_spin() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let raw = listener.as_raw_fd();
    let mut server = ServerBuilder::new().from_listener(listener, handler(echo)).unwrap();
    let serving = std::thread::spawn(move || server.serve_forever());
    nix::sys::socket::shutdown(raw, nix::sys::socket::Shutdown::Read).unwrap(); // as some other code may do
    assert!(matches!(serving.join().unwrap(), Err(Error::Accept { .. })));
}
