//! H: what a handler may do.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use socketserver::strategy::ServingStrategy;
use socketserver::testing::TestServer;
use socketserver::{handler, Connection, Forking, HandlerResult, Sequential, ServerBuilder};
use socketserver::{ThreadPool, Threading};

use crate::support::{example, procfs, until, Server, AT_ONCE};
use crate::{torture, Settled, ALL};

/// One in three panics; all are told, and nobody else notices.
#[test]
fn h1_a_panic_in_three_connections() {
    let count: u64 = if std::env::var_os("SOAK").is_some() { 100_000 } else { 600 };
    for strategy in ALL {
        let mut server = torture(strategy, &[]);
        let before = Settled::of(&server);
        let already = server.stats()["panicked"];
        let count = if strategy == "forking" { count / 4 } else { count };
        for n in 0..count {
            match n % 3 {
                0 => {
                    let mut client = server.connect();
                    client.send("PANIC\n");
                    client.until_closed();
                }
                _ => assert_eq!(server.ask("ECHO unharmed"), "unharmed", "{strategy}"),
            }
        }
        server.until_stats("each panic is counted", |s| s["panicked"] - already == count.div_ceil(3));
        before.still(&mut server, strategy);
    }
}

/// A panic in a destructor while another unwinds is an abort: with processes, of that connection only.
#[test]
fn h3_h5_h6_h9_deaths_end_the_process_of_their_connection_or_the_server() {
    for line in ["ABORT", "SEGV", "OVERFLOW", "EXIT 3"] {
        let mut server = torture("forking", &[]);
        let before = Settled::of(&server);
        let mut other = server.connect();
        assert_eq!(other.ask("ECHO before"), "before");
        let mut victim = server.connect();
        victim.send(format!("{line}\n"));
        victim.until_closed();
        assert_eq!(other.ask("ECHO after"), "after", "{line}");
        drop(other);
        server.until_stats("it is counted", |s| s["crashed"] == 1);
        before.still(&mut server, line);
    }
    for line in ["ABORT", "SEGV", "OVERFLOW", "EXIT 3"] {
        let mut server = torture("threading", &[]); // as documented: they share a process
        let mut victim = server.connect();
        victim.send(format!("{line}\n"));
        victim.until_closed();
        let ended = server.ended();
        assert!(ended.code() == Some(3) || ended.signal().is_some(), "{line}: {ended:?}");
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in the payload's drop");
    }
}

/// The payload of a panic is the handler's code as well.
#[test]
fn h2_a_payload_whose_drop_panics_ends_its_connection_only() {
    fn bomb(_conn: &mut Connection) -> HandlerResult {
        std::panic::panic_any(Bomb)
    }
    let strategies: [Box<dyn ServingStrategy>; 3] =
        [Box::new(Sequential), Box::new(Threading::new()), Box::new(ThreadPool::new(2))];
    for strategy in strategies {
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), handler(bomb));
        for _ in 0..10 {
            assert!(server.connect().rest().is_empty());
        }
        until("all are counted", || server.stats().panicked == 10);
        server.stop();
    }
}

/// A program that cannot contain a panic says so at its start. It wants a build of its own (`.ci/run` makes it).
#[test]
fn h4_panics_that_abort_are_a_warning_at_the_start() {
    let Ok(program) = std::env::var("TORTURE_SERVER_PANIC_ABORT") else {
        return println!("skipped: no torture_server built with panic=abort in TORTURE_SERVER_PANIC_ABORT");
    };
    for strategy in ["threading", "forking"] {
        let mut server = Server::start_command(Command::new(&program), "127.0.0.1:0", &["--strategy", strategy]);
        server.until_logged("built with panic=abort");
        let mut client = server.connect();
        client.send("PANIC\n");
        client.until_closed();
        match strategy {
            "forking" => assert_eq!(server.ask("ECHO unharmed"), "unharmed"),
            _ => assert!(server.ended().signal().is_some()),
        }
    }
}

/// A loop without end costs a thread its place, and no stop waits for it.
#[test]
fn h7_a_spinning_handler_holds_its_own_place_only() {
    for strategy in ["threading", "thread-pool"] {
        let mut server = torture(strategy, &["--drain", "100"]);
        let mut spinning = server.connect();
        spinning.send("SPIN\n");
        for _ in 0..20 {
            assert_eq!(server.ask("ECHO others go on"), "others go on", "{strategy}");
        }
        server.until_stats("its place is lost, and shown to be", |s| s["active"] == 2);
        server.term().well_within(AT_ONCE);
        server.until_logged("abandoned 1");
    }
}

static KEPT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// A handler that keeps a copy of the socket: its place is free when it returns, whatever becomes of the copy.
#[test]
fn h11_a_copy_of_the_socket_holds_no_place() {
    fn keep(conn: &mut Connection) -> HandlerResult {
        KEPT.lock().unwrap().push(conn.as_fd().try_clone_to_owned()?);
        Ok(conn.write_all(b"kept\n")?)
    }
    let server = TestServer::with(ServerBuilder::new().max_connections(2), handler(keep));
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.line(), "kept", "a place was free");
    }
    until("all places are free", || server.stats().active == 0);
    assert_eq!(server.stats().served, 10);
    KEPT.lock().unwrap().clear();
    for client in &mut clients {
        assert!(client.rest().is_empty(), "the end comes with the last copy");
    }
    server.stop();
}

/// What a handler starts and waits for is its own, in the server's process too.
#[test]
fn h12_the_ends_of_a_handler_s_children_are_its_own() {
    fn seven(conn: &mut Connection) -> HandlerResult {
        let status = Command::new("sh").args(["-c", "exit 7"]).status()?;
        Ok(writeln!(conn, "{:?}", status.code())?)
    }
    let strategies: [Box<dyn ServingStrategy>; 3] =
        [Box::new(Sequential), Box::new(Threading::new()), Box::new(ThreadPool::new(4))];
    for strategy in strategies {
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), handler(seven));
        for _ in 0..20 {
            assert_eq!(server.connect().line(), "Some(7)");
        }
        server.stop();
    }
}

/// A text from a client, in a handler's error: one line, escaped, and no longer than is useful.
#[test]
fn h14_a_huge_error_is_one_short_line() {
    fn quote(conn: &mut Connection) -> HandlerResult {
        let _ = conn.next_request()?;
        Err(format!("forged\r\n\u{1b}[2J{}", "x".repeat(1 << 20)).into())
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = told.clone();
    let builder = ServerBuilder::new().handle_error(move |failure| hook.lock().unwrap().push(failure.to_string()));
    let server = TestServer::with(builder, handler(quote));
    let mut client = server.connect();
    client.send("anything\n");
    client.rest();
    until("it is told", || !told.lock().unwrap().is_empty());
    let line = told.lock().unwrap()[0].clone();
    assert!(line.contains("forged\\r\\n\\u{1b}[2Jxxx") && line.ends_with('…'), "{line}");
    assert!(line.len() < 300 && line.lines().count() == 1, "{} bytes", line.len());
    server.stop();
}

/// The user's lock is poisoned, as the standard library's are; the server's own are not.
#[test]
fn h15_a_poisoned_lock_is_the_handler_s_affair() {
    let state = Arc::new(Mutex::new(0));
    let shared = state.clone();
    let count = handler(move |conn| {
        let mut n = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *n += 1;
        assert!(*n % 2 == 0, "every other one");
        Ok(writeln!(conn, "{n}")?)
    });
    let server = TestServer::with(ServerBuilder::new().strategy(ThreadPool::new(2)), count);
    for n in 1..=20 {
        let mut client = server.connect();
        if n % 2 == 0 {
            assert_eq!(client.line(), n.to_string());
        } else {
            assert!(client.rest().is_empty());
        }
    }
    assert!(state.is_poisoned());
    let report = server.stop();
    assert_eq!((report.served, report.panicked), (10, 10));
}

/// Nobody reads the log any more, or the disk is full.
#[test]
fn h16_a_log_that_takes_nothing_ends_nothing() {
    for strategy in ALL {
        for sink in ["2>/dev/full", "2>&-"] {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("exec \"$@\" {sink}"), "sh"]).arg(example("torture_server"));
            let mut server = Server::start_command(shell, "127.0.0.1:0", &["--strategy", strategy, "--workers", "4"]);
            for line in ["PANIC\n", "ERROR\n", "CLOSE\n"].repeat(5) {
                let mut client = server.connect();
                client.send(line);
                client.until_closed();
                assert_eq!(server.ask("ECHO on"), "on", "{strategy} {sink}");
            }
            assert!(server.is_running());
        }
        let mut command = Command::new(example("torture_server"));
        command.args(["127.0.0.1:0", "--strategy", strategy]).env("RUST_LOG", "info");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take()); // the reader is gone: EPIPE
        let mut first = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut first).unwrap();
        let addr = first.trim().strip_prefix("listening on ").unwrap().to_owned();
        for line in ["PANIC\n", "ERROR\n"].repeat(5) {
            let mut client = crate::support::Client::connect(&addr);
            client.send(line);
            client.until_closed();
            assert_eq!(crate::support::Client::connect(&addr).ask("ECHO on"), "on", "{strategy}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Memory of a child is bounded for it alone.
#[test]
fn h8_a_hog_s_bound_is_the_child_s() {
    let strategy = Forking::new().limit_memory(1 << 20);
    let server = ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", handler(|_conn| Ok(())));
    assert!(server.is_ok(), "the bound is the child's, not the server's");
    assert!(procfs::rss_kib(std::process::id()) > 1024);
}
