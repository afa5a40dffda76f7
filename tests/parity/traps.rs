//! Traps of CPython's `socketserver`, by their number: what hurts there, and what happens here instead.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc;
use std::time::Instant;

use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::{getsockopt, setsockopt, shutdown, sockopt, Shutdown};
use socketserver::event_loop::Factory;
use socketserver::testing::TestServer;
use socketserver::{
    factory, handler, Error, EventLoop, Failure, HandlerResult, Protocol, Sequential, ServerBuilder, Threading,
    Transport,
};

use crate::kit::{strategies, Lines, LONG};
use crate::support::{procfs, until, Server, AT_ONCE};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn echo() -> impl Factory + Send + Sync + 'static {
    factory(|_peer| Echo)
}

/// 3: after a `server_close()` while serving, the loop spun on the dead descriptor for ever. Here the listener belongs
/// to the loop while it serves; what is done to it from outside ends the run with an error.
#[test]
fn trap_03_closing_while_serving_does_not_spin() {
    fn is_ended_by_its_listener(server: TestServer, listener: &TcpListener, name: &str) {
        assert_eq!(server.connect().ask("hello"), "hello", "{name}");
        shutdown(listener.as_raw_fd(), Shutdown::Both).unwrap();
        let since = Instant::now();
        let failed = server.join();
        assert!(matches!(failed, Err(Error::Accept { .. })), "{name}: {failed:?}");
        assert!(since.elapsed() < AT_ONCE, "{name}: {:?}", since.elapsed());
    }
    let listener = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.try_clone().unwrap(), listener)
    };
    for (name, strategy) in strategies() {
        let (outside, listener) = listener();
        let server = ServerBuilder::new().strategy(strategy).from_listener(listener, Lines).unwrap();
        is_ended_by_its_listener(TestServer::of(server), &outside, name);
    }
    let (outside, listener) = listener();
    let server = ServerBuilder::new().strategy(EventLoop::new()).from_listener(listener, echo()).unwrap();
    is_ended_by_its_listener(TestServer::of(server), &outside, "EventLoop");
}

/// 6: two processes shared a listener. The one that lost the race for a connection was stuck in `accept`, and
/// could not be stopped.
#[test]
fn trap_06_a_shared_listener_blocks_nobody() {
    fn is_blocking(fd: impl AsFd) -> bool {
        let flags = fcntl(fd, FcntlArg::F_GETFL).unwrap();
        !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
    }
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let second = first.try_clone().unwrap();
    let outside = first.try_clone().unwrap();
    let tells = || {
        handler(|conn| {
            let blocking = is_blocking(&conn);
            Ok(writeln!(conn, "{blocking}")?)
        })
    };
    let servers = [first, second].map(|listener| {
        let builder = ServerBuilder::new().strategy(Sequential);
        TestServer::of(builder.from_listener(listener, tells()).unwrap())
    });
    assert!(!is_blocking(&outside), "the listener");
    for _ in 0..200 {
        assert_eq!(servers[0].connect().line(), "true", "the connection");
    }
    let since = Instant::now();
    let served: u64 = servers.map(|server| server.stop().served).iter().sum();
    assert_eq!(served, 200);
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
}

/// 9: at `max_children`, the parent waited for a child: nothing else was done, and a stop waited as long.
#[test]
fn trap_09_at_its_limit_a_forking_server_still_hears_its_stop() {
    let args = ["--strategy", "forking", "--max-connections", "1", "--drain", "200"];
    let mut server = Server::start("torture_server", &args);
    let mut busy = server.connect();
    assert_eq!(busy.ask("ECHO here"), "here");
    busy.send_and_see_it_taken("SLEEP 60000");
    let _waits = server.connect();
    until("it is queued", || server.queued() == 1);
    let ticks = procfs::ticks(server.pid());
    std::thread::sleep(std::time::Duration::from_millis(300)); // in which it shall do nothing
    assert!(procfs::ticks(server.pid()) - ticks < 10, "it spins");
    let ended = server.term();
    assert!(ended.after < AT_ONCE, "{:?}, not the child's minute", ended.after);
}

/// 9, continued: and while it is full, a child that ends makes room at once.
#[test]
fn trap_09_a_child_that_ends_makes_room() {
    let server = Server::start("torture_server", &["--strategy", "forking", "--max-connections", "1"]);
    let mut busy = server.connect();
    assert_eq!(busy.ask("ECHO here"), "here");
    let mut waits = server.connect();
    waits.send("ECHO at last\n");
    until("it is queued", || server.queued() == 1);
    busy.send("CLOSE\n");
    assert_eq!(waits.line(), "at last");
}

/// 17: `wfile` was unbuffered, and Nagle's algorithm stalled its small writes. `TCP_NODELAY` failed on a Unix socket,
/// and the flush at the end failed twice for a client that had left.
#[test]
fn trap_17_small_writes_are_one_and_nodelay_is_for_tcp_only() {
    let in_words = || {
        handler(|conn| {
            for word in ["in ", "many ", "small ", "writes"] {
                conn.write_all(word.as_bytes())?;
            }
            conn.write_all(if getsockopt(&conn, sockopt::TcpNoDelay).unwrap_or(false) { b"!" } else { b"." })?;
            Ok(())
        })
    };
    assert_eq!(TestServer::start(in_words()).connect().rest(), b"in many small writes!");
    assert_eq!(TestServer::unix(ServerBuilder::new(), in_words()).connect().rest(), b"in many small writes.");
}

/// 17, continued: a client that has left is one failure, told once.
#[test]
fn trap_17_a_flush_at_the_end_fails_once() {
    let (tell, told) = mpsc::channel();
    let hook = move |failure: &Failure<'_>| drop(tell.send(failure.to_string()));
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let late = handler(move |conn| {
        gone.lock().unwrap().recv()?;
        Ok(conn.write_all(b"too late")?)
    });
    let server = TestServer::with(ServerBuilder::new().handle_error(hook), late);
    let client = server.connect();
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &linger).unwrap();
    drop(client); // a reset
    go.send(()).unwrap();
    let failure = told.recv_timeout(LONG).unwrap();
    assert!(failure.contains("went away"), "{failure}");
    let report = server.stop();
    assert_eq!((report.disconnected, report.failed, report.served), (1, 0, 0));
    assert!(told.try_recv().is_err(), "once");
}

/// 21: a restart found its address in use, and a backlog of 5 dropped the clients of a busy server, which then waited for
/// their timeout.
#[test]
fn trap_21_a_restart_has_its_address_and_a_burst_its_backlog() {
    let greets = handler(|conn| Ok(conn.write_all(b"closed by the server first\n")?));
    let server = TestServer::with(ServerBuilder::new().listen("127.0.1.21:0"), greets); // not another test's port
    let addr = server.addr();
    for _ in 0..5 {
        assert_eq!(server.connect().line(), "closed by the server first"); // so TIME_WAIT is the server's
    }
    server.stop();
    // Serves nobody yet, so all of them wait in the kernel's queue.
    let server = ServerBuilder::new().strategy(Threading::new()).bind(addr, Lines).expect("its address again");
    let connect = |_| TcpStream::connect_timeout(&addr, AT_ONCE).expect("no SYN is dropped");
    drop((0..200).map(connect).collect::<Vec<_>>());
    let server = TestServer::of(server);
    assert_eq!(server.connect().ask("hello"), "hello");
}
