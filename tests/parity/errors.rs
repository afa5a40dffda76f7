//! S17 to S22: what becomes of a handler's error, and of its exit. CPython's `SystemExit` is an exception, which ends
//! the process (a plain server), the thread, or the child. In Rust `std::process::exit` ends the process, whichever thread calls
//! it, and a panic is what ends a thread's work: both are shown for each strategy. S26 is that of
//! `verify_request`, which says no.

use std::io::Write;
use std::sync::{mpsc, Arc};
use std::time::Duration;

use socketserver::strategy::ServingStrategy;
use socketserver::testing::TestServer;
use socketserver::{handler, Failure, Sequential, ServerBuilder, StreamRequestHandler, TcpServer, Threading};

use crate::kit::{connect, read, LONG};
use crate::support::Server;

/// One connection to a handler that fails: what the hook is told, by its kind.
fn fails_once<S>(strategy: S, failing: impl StreamRequestHandler) -> Vec<&'static str>
where
    S: ServingStrategy + 'static,
{
    let (tell, told) = mpsc::channel();
    let kind = |failure: &Failure<'_>| match failure {
        Failure::Error { .. } => "error",
        Failure::Panic { .. } => "panic",
        _ => "another",
    };
    let hook = move |failure: &Failure<'_>| _ = tell.send(kind(failure));
    let builder = ServerBuilder::new().strategy(strategy).handle_error(hook);
    let mut server: TcpServer<_, S> = builder.bind("127.0.0.1:0", Arc::new(failing)).unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    assert!(server.handle_request(Some(LONG)).unwrap(), "the call returns");
    assert_eq!(read(&mut client, &mut [0]).unwrap(), 0, "and the connection is closed");
    let first = told.recv_timeout(LONG).expect("the hook is told");
    drop(server);
    std::iter::once(first).chain(told.recv_timeout(Duration::from_millis(50))).collect()
}

/// One line to a torture server, which then has ended, with its status.
fn ends_with(strategy: &str, line: &str) -> (Option<i32>, Vec<String>) {
    let mut server = Server::start("torture_server", &["--strategy", strategy]);
    let _ = server.connect().try_send(format!("{line}\n").as_bytes());
    let code = server.ended().code();
    (code, server.stderr())
}

/// A line that ends its connection; the server goes on, and has logged the failure once, with these words.
fn goes_on_after(strategy: &str, line: &str, words: &str) {
    let server = Server::start("torture_server", &["--strategy", strategy]);
    let mut client = server.connect();
    client.send(format!("{line}\n"));
    client.until_closed();
    assert_eq!(server.ask("ECHO on"), "on", "{strategy}");
    server.until_logged(words);
    server.until_stats("one has failed", |stats| stats["failed"] == 1 && stats.add_up());
    assert_eq!(server.stderr().iter().filter(|log| log.contains(words)).count(), 1, "{strategy}");
}

/// `test_sync_handled`
#[test]
fn s17_an_error_is_told_once_and_the_call_returns() {
    assert_eq!(fails_once(Sequential, handler(|_| Err("on purpose".into()))), ["error"]);
}

/// `test_sync_not_handled`: an exit is no error.
#[test]
fn s18_an_exit_ends_the_process_and_a_panic_the_connection() {
    let (code, log) = ends_with("sequential", "EXIT 72");
    assert_eq!(code, Some(72));
    assert!(log.iter().all(|line| !line.contains("failed")), "{log:?}");
    assert_eq!(fails_once(Sequential, handler(|_| panic!("on purpose"))), ["panic"]);
}

/// `test_threading_handled`
#[test]
fn s19_an_error_in_a_thread_is_told_once() {
    assert_eq!(fails_once(Threading::new(), handler(|_| Err("on purpose".into()))), ["error"]);
}

/// `test_threading_not_handled`: what ends one thread's work leaves the others.
#[test]
fn s20_a_panic_ends_the_connection_of_its_thread_only() {
    assert_eq!(fails_once(Threading::new(), handler(|_| panic!("on purpose"))), ["panic"]);
    goes_on_after("threading", "PANIC", "panicked: a client asked for it");
    assert_eq!(ends_with("threading", "EXIT 72").0, Some(72), "an exit is the process's");
}

/// `test_forking_handled`
#[test]
fn s21_an_error_in_a_child_is_told_once() {
    goes_on_after("forking", "ERROR", "failed: a client asked for it");
}

/// `test_forking_not_handled`
#[test]
fn s22_an_exit_or_a_panic_ends_its_child_only() {
    goes_on_after("forking", "EXIT 72", "exited with 72");
    goes_on_after("forking", "PANIC", "panicked: a client asked for it");
}

/// `test_shutdown_request_called_if_verify_request_false`
#[test]
fn s26_a_connection_that_is_not_verified_is_closed_once() {
    fn refuses(strategy: impl ServingStrategy + 'static) {
        let builder = ServerBuilder::new().strategy(strategy).verify_request(|_| false);
        let server = TestServer::with(builder, handler(|_| panic!("no handler is called")));
        assert_eq!(server.connect().rest(), b"");
        let report = server.stop();
        assert_eq!((report.accepted, report.refused, report.failed), (1, 1, 0));
    }
    refuses(Sequential);
    refuses(Threading::new());
}

/// What had been written before an error arrives, with each of the three.
#[test]
fn s17_s19_s21_what_was_written_before_an_error_arrives() {
    let half = || {
        handler(|conn| {
            conn.write_all(b"half")?;
            Err("on purpose".into())
        })
    };
    fn reads(server: TestServer) {
        assert_eq!(server.connect().rest(), b"half");
    }
    reads(TestServer::start(half()));
    reads(TestServer::with(ServerBuilder::new().strategy(Sequential), half()));
    let server = Server::start("torture_server", &["--strategy", "forking"]);
    let mut client = server.connect();
    client.send("ECHO half\nERROR\n");
    assert_eq!(client.until_closed(), b"half\n");
}
