//! A stop loses no request, keeps nobody waiting, and ends within its limit.

use std::time::{Duration, Instant};

use crate::support::{comes_true, procfs, queues, until, with_time_enough, Client, Server, AT_ONCE};
use crate::Traits;

/// The default drain limit, 10 s, is never reached where a test asks for less than this.
const MS: Duration = Duration::from_millis(1);

pub(crate) fn lets_a_request_in_flight_finish(of: &Traits) {
    let (mut server, mut client) = with_time_enough(300 * MS, |time| {
        let (server, client, began) = asleep(of, &["--drain", "60000"], time);
        server.signal("TERM");
        (began.elapsed() < time).then_some((server, client))
    });
    assert_eq!(client.line(), "slept");
    assert_eq!(client.rest(), "", "then the connection ends, without waiting for another request");
    server.ended().well_within(AT_ONCE);
    server.until_reported("served 1, drained 1");
}

pub(crate) fn ends_idle_clients_at_once(of: &Traits) {
    let mut server = of.start(&[]);
    let mut clients: Vec<_> = (0..if of.concurrent { 3 } else { 1 }).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("ECHO then silence"), "then silence");
    }
    let ended = server.term();
    for client in &mut clients {
        assert_eq!(client.rest(), "");
    }
    ended.well_within(AT_ONCE);
    server.until_reported_without("accepted ", &["failed", "disconnected"]);
}

pub(crate) fn cuts_half_a_request_at_the_drain_limit(of: &Traits) {
    let mut server = of.start(&["--drain", "300"]);
    let mut half = server.connect();
    assert_eq!(half.ask("ECHO served"), "served");
    half.send("ECHO half a li");
    let ours = half.local_addr().port();
    until("the server reads the half line", || queues::unread(server.port(), ours) == Some(0));
    let began = Instant::now();
    let ended = server.term();
    let took = began.elapsed();
    assert!(took > 250 * MS, "the client was cut after {took:?}, its limit is 300 ms");
    ended.well_within(AT_ONCE);
    assert!(half.until_closed().is_empty());
    // The connection may notice the limit just before the server does, and then counts as drained.
    until("the report says that a limit cut it", || {
        let cut =
            |line: &String| line.contains("timed out 1") && (line.ends_with("forced 1") || line.ends_with("drained 1"));
        server.stderr().iter().any(cut)
    });
}

/// A server with a client whose request is being handled for that long, and when this began or earlier.
fn asleep(of: &Traits, args: &[&str], time: Duration) -> (Server, Client, Instant) {
    let server = of.start(args);
    let (mut client, began) = (server.connect(), Instant::now());
    client.send_and_see_it_taken(&format!("SLEEP {}", time.as_millis()));
    (server, client, began)
}

/// A client that had connected before the stop is served after it.
pub(crate) fn serves_clients_in_the_queue(of: &Traits) {
    let (mut server, mut first, mut queued) = with_time_enough(300 * MS, |time| {
        let (mut server, first, began) =
            asleep(of, &["--max-connections", "1", "--workers", "1", "--drain", "60000"], time);
        let mut queued = server.connect();
        queued.send("ECHO from the queue\n");
        let waits = comes_true(time, || server.queued() == 1);
        server.signal_and_see_it_taken("TERM");
        (waits && began.elapsed() < time).then_some((server, first, queued))
    });
    assert_eq!(first.line(), "slept");
    assert_eq!(queued.line(), "from the queue");
    assert_eq!(queued.rest(), "");
    server.ended().well_within(AT_ONCE);
    server.until_logged("accepted 2, served 2");
}

pub(crate) fn stops_from_within_a_handler(of: &Traits) {
    let mut server = of.start(&[]);
    let mut client = server.connect();
    client.send("SHUTDOWN\nECHO sent along\n");
    assert_eq!(client.rest(), "sent along\n", "what has arrived is answered");
    server.ended().well_within(AT_ONCE);
}

pub(crate) fn stops_at_once_when_nothing_runs(of: &Traits) {
    for (signal, warm) in [("TERM", false), ("TERM", true), ("INT", true)] {
        let mut server = of.start(&[]);
        if warm {
            assert_eq!(server.ask("ECHO warm"), "warm");
        }
        server.signal(signal);
        server.ended().well_within(AT_ONCE);
    }
}

pub(crate) fn a_second_sigterm_ends_a_spinning_handler(of: &Traits) {
    let mut server = spinning(of);
    server.signal_and_see_it_taken("TERM");
    assert!(server.is_running(), "the first one waits for the request");
    assert_eq!(end_by(&mut server, "TERM"), 143);
}

pub(crate) fn a_second_sigint_ends_a_spinning_handler(of: &Traits) {
    let mut server = spinning(of);
    server.signal_and_see_it_taken("INT");
    assert!(server.is_running(), "the first one waits for the request");
    assert_eq!(end_by(&mut server, "INT"), 130);
}

/// As when a user presses Ctrl-C while a supervisor's SIGTERM is being obeyed.
pub(crate) fn the_first_signal_may_be_another_one(of: &Traits) {
    let mut server = spinning(of);
    server.signal_and_see_it_taken("TERM");
    // Taken is not yet handled: the two handlers may run side by side on two threads, and either may be the second.
    let code = end_by(&mut server, "INT");
    assert!([130, 143].contains(&code), "exit status {code}");
}

/// A server with a handler that computes for ever and never looks at its connection, and a drain that would wait.
fn spinning(of: &Traits) -> Server {
    let server = of.start(&["--drain", "60000"]);
    let mut client = server.connect();
    client.send_and_see_it_taken("SPIN");
    let before = procfs::ticks(server.pid());
    until("the handler spins", || procfs::ticks(server.pid()) > before + 2);
    std::mem::forget(client); // stays connected until the test's process ends
    server
}

#[track_caller]
fn end_by(server: &mut Server, signal: &str) -> i32 {
    let ended = server.end_by_another(signal);
    assert!(ended.after < AT_ONCE, "the second signal took {:?}", ended.after);
    ended.code().expect("an exit status")
}
