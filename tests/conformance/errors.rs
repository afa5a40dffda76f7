//! Handlers and clients that fail: each ends one connection, is counted once, and never silently.

use crate::support::Server;
use crate::Traits;

/// Clients that make their handler fail.
const MANY: u64 = 20;

pub(crate) fn a_panic_ends_its_connection_only(of: &Traits) {
    let server = of.start(&[]);
    fail_many_times(of, &server, "PANIC");
    server.until_stats("failed and panicked", |s| s["failed"] == MANY && s["panicked"] == MANY);
    server.until_logged("panicked: a client asked for it");
}

pub(crate) fn an_error_ends_its_connection_only(of: &Traits) {
    let server = of.start(&[]);
    fail_many_times(of, &server, "ERROR");
    server.until_stats("failed, not panicked", |s| s["failed"] == MANY && s["panicked"] == 0);
    server.until_logged("failed: a client asked for it");
}

fn fail_many_times(of: &Traits, server: &Server, line: &str) {
    let mut bystander = of.concurrent.then(|| server.connect());
    for _ in 0..MANY {
        assert_eq!(server.ask(line), "", "nothing but the end of the stream");
    }
    assert_eq!(server.ask("ECHO still here"), "still here");
    if let Some(bystander) = &mut bystander {
        assert_eq!(bystander.ask("ECHO unharmed"), "unharmed");
    }
}

pub(crate) fn what_was_written_before_a_panic_arrives(of: &Traits) {
    let server = of.start(&[]);
    for fatal in ["PANIC", "ERROR"] {
        let mut client = server.connect();
        client.send(format!("ECHO kept\n{fatal}\n")); // in one segment
        assert_eq!(client.rest(), "kept\n", "before {fatal}");
    }
}

pub(crate) fn a_line_too_long_ends_its_connection_only(of: &Traits) {
    let server = of.start(&[]);
    let mut bystander = of.concurrent.then(|| server.connect());
    let mut client = server.connect();
    client.send("ECHO before\n");
    assert_eq!(client.line(), "before");
    client.send(vec![b'x'; 70_000]);
    assert_eq!(client.rest(), "");
    drop(client);
    if let Some(bystander) = &mut bystander {
        assert_eq!(bystander.ask("ECHO unharmed"), "unharmed");
    }
    // The log has it at `debug`: it is the peer's own fault.
    server.until_stats("failed", |s| s["failed"] == 1 && s["peer_faults"] == 1);
}

/// It is the client's right to go away, with a reset as well.
pub(crate) fn a_client_that_resets_is_no_failure(of: &Traits) {
    let server = of.start(&[]);
    let mut client = server.connect();
    client.send("BIG 4000000\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 1);
    drop(client); // with unread data: the kernel sends a reset
    server.until_stats("disconnected", |s| s["disconnected"] == 1 && s["failed"] == 0 && s.add_up());
    assert_eq!(server.ask("ECHO goes on"), "goes on");
}
