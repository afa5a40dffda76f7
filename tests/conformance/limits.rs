//! What a client can take of a server is bounded. A client within the bounds does not notice them.

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{with_time_enough, Client, AT_ONCE, LIMIT};
use crate::Traits;

const MS: Duration = Duration::from_millis(1);

/// Exact both ways: as many as the limit run side by side, and never one more.
pub(crate) fn never_serves_more_than_the_limit(of: &Traits) {
    let limit = if of.concurrent { 3 } else { 1 };
    let text = limit.to_string();
    let server = of.start(&["--max-connections", &text, "--workers", &text]);
    let mut held: Vec<Client> = (0..limit).map(|_| server.connect()).collect();
    // All of them are served side by side: the first still is when the last has been answered.
    for round in 0..2 {
        held.iter_mut().for_each(|client| assert_eq!(client.ask(&format!("ECHO {round}")), round.to_string()));
    }
    let mut waits = server.connect();
    waits.send("ECHO waited\n");
    assert!(waits.hears_nothing_for(200 * MS), "one more than the limit was served");
    assert_eq!(server.queued(), 1, "a client beyond the limit waits in the kernel's queue");
    held.pop();
    assert_eq!(waits.line(), "waited", "a place is free again");
}

pub(crate) fn cuts_idle_clients_and_no_others(of: &Traits) {
    let server = with_time_enough(300 * MS, |limit| {
        let server = of.start(&["--idle-timeout", &limit.as_millis().to_string()]);
        asks_for_longer_than(limit, server.connect()).then_some((limit, server))
    });
    let (limit, server) = server;
    let mut idle = server.connect();
    let began = Instant::now();
    assert_eq!(idle.ask("ECHO begins"), "begins");
    assert_eq!(idle.rest(), "");
    assert_took(began, limit);
    drop(idle);
    // The client that asked may have come to its end too late as well: it was not waited for.
    server.until_stats("one was too slow", |s| s["timed_out"] >= 1 && s["failed"] == s["timed_out"]);
    server.until_logged(&format!("idle limit of {limit:?} exceeded"));
}

/// Asks again and again, for half as long again as the limit of an idle connection. False if this process did not get
/// the processor for so long that the limit may have ended it.
fn asks_for_longer_than(limit: Duration, mut client: Client) -> bool {
    let (began, mut last) = (Instant::now(), Instant::now());
    while began.elapsed() < limit * 3 / 2 {
        sleep(limit / 10);
        let answer = client.try_ask("ECHO on");
        if last.elapsed() > limit / 2 {
            return false;
        }
        assert_eq!(answer.unwrap(), "on");
        last = Instant::now();
    }
    true
}

/// As Python's `timeout` does: a read limit alone is enough.
pub(crate) fn cuts_a_silent_client_at_the_read_limit(of: &Traits) {
    let server = of.start(&["--read-timeout", "200"]);
    let began = Instant::now();
    assert_eq!(server.connect().rest(), "", "it says nothing");
    assert_took(began, 200 * MS);
    let mut client = server.connect();
    let began = Instant::now();
    assert_eq!(client.ask("ECHO begins"), "begins");
    assert_eq!(client.rest(), "", "it is silent after an answer");
    assert_took(began, 200 * MS);
    server.until_logged("read limit of 200ms exceeded");
}

pub(crate) fn cuts_a_client_that_trickles(of: &Traits) {
    let server = of.start(&["--request-timeout", "300"]);
    let mut client = server.connect();
    client.send("ECHO ");
    let began = Instant::now();
    while began.elapsed() < LIMIT && client.hears_nothing_for(20 * MS) {
        if client.try_send(b"a").is_err() {
            break;
        }
    }
    assert_took(began, 300 * MS);
    drop(client);
    assert_eq!(server.ask("ECHO next"), "next");
    server.until_stats("one was too slow", |s| s["timed_out"] == 1 && s["failed"] == 1);
    server.until_logged("request limit of 300ms exceeded");
}

/// It is cut by a reset. 16 MB are more than the kernel's buffers take, so the handler waits for a client that does not read.
pub(crate) fn cuts_a_client_that_takes_no_answer(of: &Traits) {
    let server = of.start(&["--write-timeout", "200"]);
    let mut client = server.connect();
    client.send("BIG 16000000\n");
    server.until_logged("write limit of 200ms exceeded");
    let end = client.end().expect_err("a reset: the kernel must not keep what nobody takes");
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    drop(client);
    server.until_stats("one was too slow", |s| s["timed_out"] == 1 && s["failed"] == 1);
}

/// A limit is kept: not early (but for the time that the two clocks were read apart), and not by another, longer limit.
#[track_caller]
fn assert_took(since: Instant, limit: Duration) {
    let took = since.elapsed();
    assert!(took > limit - 50 * MS && took < limit * 10 + AT_ONCE, "{took:?} for a limit of {limit:?}");
}

pub(crate) fn refuses_clients_that_a_slow_hook_does_not_admit_in_time(of: &Traits) {
    let server = of.start(&["--verify-delay", "50"]);
    assert_eq!(server.ask("ECHO in"), "in");
    server.until_stats("all were let in", |s| s["refused"] == 0 && s.add_up());

    let mut server = of.start(&["--verify-delay", "1000", "--verify-timeout", "50"]);
    assert_eq!(server.connect().until_closed(), b"", "the end of the stream, and no word");
    server.until_logged("verify_request took longer than 50ms");
    server.term().well_within(AT_ONCE);
    server.until_reported("accepted 1, served 0, refused 1");
}
