//! A program without a logger: the first error of a run is said on stderr.

use std::env;
use std::process::{Command, Stdio};

use crate::kit::{serve, until, Running};
use socketserver::{datagram_handler, handler, Connection, ServerBuilder};

const ROLE: &str = "SOCKETSERVER_UNHEARD_ROLE";
const ANY: &str = "127.0.0.1:0";

/// A logger without data, which is off.
struct Off;

impl log::Log for Off {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

/// The same with data, as real ones have.
struct Real(#[allow(dead_code)] u8);

impl log::Log for Real {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        false
    }

    fn log(&self, _: &log::Record<'_>) {}

    fn flush(&self) {}
}

/// Not a test of its own: what the child processes run.
#[test]
fn role() {
    let Ok(role) = env::var(ROLE) else { return };
    let mut builder = ServerBuilder::new();
    match role.as_str() {
        "bare" | "limit" | "datagrams" | "closed" => {}
        "hook" => builder = builder.handle_error(|_| {}),
        "off" => log::set_logger(&Real(0)).unwrap(),
        "on" => {
            log::set_logger(&Off).unwrap();
            log::set_max_level(log::LevelFilter::Error);
        }
        other => panic!("{other}"),
    }
    match role.as_str() {
        "datagrams" => datagrams(builder),
        "limit" => a_limit(builder),
        _ => errors(builder),
    }
}

/// Two runs, each with three errors.
fn errors(builder: ServerBuilder) {
    let failing = handler(|_: &mut Connection| Err("no such\nuser".into()));
    let mut server = builder.bind(ANY, failing).unwrap();
    for _ in 0..2 {
        let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
        let before = handle.stats().failed;
        let clients = std::thread::spawn(move || {
            for failed in 1..=3 {
                let _client = crate::kit::connect(addr);
                until("it has failed", || handle.stats().failed == before + failed);
            }
            handle.shutdown();
        });
        server.serve_forever().unwrap();
        clients.join().unwrap();
    }
}

fn datagrams(builder: ServerBuilder) {
    let mut server = builder.bind_udp(ANY, datagram_handler(|_| Err("no such user".into()))).unwrap();
    let client = std::net::UdpSocket::bind(ANY).unwrap();
    client.send_to(b"x", server.local_addr().socket_addr().unwrap()).unwrap();
    server.handle_request(None).unwrap();
    until("it has failed", || server.handle().stats().failed == 1);
}

/// A client that a limit has cut is no error.
fn a_limit(builder: ServerBuilder) {
    let waits = handler(|conn: &mut Connection| conn.next_line().map(drop).map_err(Into::into));
    let builder = builder.idle_timeout(std::time::Duration::from_millis(1));
    let server: Running = serve(builder.bind(ANY, waits).unwrap());
    let _client = server.connect();
    until("it is cut", || server.handle.stats().timed_out == 1);
    server.stop();
}

/// Returns what the program has said on stderr.
fn said(role: &str) -> String {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "unheard::role", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{role}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_first_error_of_a_run_is_said_if_no_logger_can_hear_it() {
    let text = said("bare");
    assert_eq!(text.lines().count(), 2, "one line for each of two runs: {text}");
    let line = text.lines().next().unwrap();
    assert!(line.starts_with("socketserver: the handler of 127.0.0.1:"), "{text}");
    assert!(line.contains("failed: no such\\nuser (") && line.contains("handle_error"), "{text}");
    let text = said("datagrams");
    assert!(text.lines().count() == 1 && text.contains("failed: no such user"), "{text}");
}

#[test]
fn nothing_is_said_if_the_program_hears_it_or_has_chosen_not_to() {
    for role in ["hook", "off", "on", "limit"] {
        assert_eq!(said(role), "", "{role}");
    }
}

/// A reader of stderr that is gone does no harm.
#[test]
fn a_closed_stderr_is_no_failure() {
    let exe = env::current_exe().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" --exact unheard::role --nocapture 2>&-"]).arg(exe).env(ROLE, "closed");
    assert!(command.output().unwrap().status.success());
}
