//! A server that is stopped (SIGSTOP, a frozen container) for longer than a limit: what came in time is not cut when it
//! goes on.

use std::thread;
use std::time::Duration;

use crate::support::{freeze, queues, thaw, until, Client, Server};

/// Each limit here.
const LIMIT: Duration = Duration::from_secs(3);

/// Each way to serve.
const ALL: &[&[&str]] = &[
    &["--strategy", "sequential"],
    &["--strategy", "threading"],
    &["--strategy", "thread-pool"],
    &["--strategy", "forking"],
    &["--strategy", "preforking", "--workers", "2"],
    &["--strategy", "preforking", "--workers", "2", "--inner", "event-loop"],
    &["--strategy", "threading", "--as", "protocol"],
    &["--strategy", "sequential", "--as", "protocol"],
    &["--strategy", "event-loop"],
    &["--strategy", "event-loops", "--workers", "2"],
];

/// A server, its limit, and its clients.
struct Case {
    limit: &'static str,
    server: Server,
    clients: Vec<Client>,
}

/// Starts a server of each way with each of these limits. Then their clients are served once: within the limit.
fn start(limits: &[&'static str], ways: &[&[&str]]) -> Vec<Case> {
    let millis = LIMIT.as_millis().to_string();
    let all = limits.iter().flat_map(|limit| ways.iter().map(move |way| (*limit, *way)));
    let start = |(limit, way): (&'static str, &[&str])| {
        let server = Server::start("torture_server", &[way, &[limit, &millis]].concat());
        (Case { limit, server, clients: Vec::new() }, if way.contains(&"sequential") { 1 } else { 3 })
    };
    let started: Vec<_> = all.map(start).collect();
    let connect = |(mut case, count): (Case, usize)| {
        case.clients = (0..count).map(|_| case.server.connect()).collect();
        case.clients.iter_mut().for_each(|client| assert_eq!(client.ask("ECHO here"), "here"));
        case
    };
    started.into_iter().map(connect).collect()
}

/// All clients send `before`, the servers are frozen for longer than the limit, and the clients do `meanwhile`.
fn frozen<T>(
    cases: &mut [Case],
    before: impl Fn(&Case) -> String,
    meanwhile: impl Fn(&mut Client) -> T,
) -> Vec<Vec<T>> {
    for case in &mut *cases {
        let before = before(case);
        case.clients.iter_mut().for_each(|client| client.send(&before));
    }
    let ports: Vec<u16> = cases.iter().map(|case| case.server.port()).collect();
    until("the servers have read it", || queues::unread_on(&ports) == 0);
    cases.iter().filter(|case| case.limit == "--drain").for_each(|case| case.server.signal("TERM"));
    freeze(cases.iter().map(|case| &case.server));
    let did = cases.iter_mut().map(|case| case.clients.iter_mut().map(&meanwhile).collect()).collect();
    thread::sleep(LIMIT * 5 / 3); // the time of the limit is what this is about
    thaw(cases.iter().map(|case| &case.server));
    did
}

#[test]
fn a_request_that_came_in_time_counts_before_a_limit() {
    let limits = ["--read-timeout", "--request-timeout", "--drain", "--idle-timeout"];
    let mut cases = start(&limits, ALL);
    // For the idle limit, the client has sent nothing yet.
    let half = |case: &Case| if case.limit == "--idle-timeout" { "" } else { "ECHO he" }.to_owned();
    frozen(&mut cases, half, |client| client.send("llo\n"));
    for Case { limit, mut server, mut clients } in cases {
        let answer = if limit == "--idle-timeout" { "ERR unknown command; HELP lists them" } else { "hello" };
        clients.iter_mut().for_each(|client| assert_eq!(client.line(), answer, "{limit}"));
        if limit == "--drain" {
            assert_eq!(server.ended().code(), Some(0));
        }
    }
}

/// With this limit, an answer arrives whole. It is a little more than what the kernel keeps for a client that does not
/// read. While the server stands still, the client takes what the kernel has; the rest then fits.
fn an_answer_arrives_whole(limit: &'static str, ways: &[&[&str]]) {
    let bytes = 5_000_000;
    let mut cases = start(&[limit], ways);
    let taken = frozen(&mut cases, |_| format!("BIG {bytes}\n"), Client::take_what_comes);
    for (Case { mut clients, .. }, taken) in cases.into_iter().zip(taken) {
        for (client, taken) in clients.iter_mut().zip(taken) {
            assert_eq!(taken + client.line().len(), bytes, "{taken} of it came while the server stood still");
        }
    }
}

#[test]
fn what_a_peer_has_taken_counts_before_the_write_limit() {
    an_answer_arrives_whole("--write-timeout", ALL);
}

#[test]
fn what_a_peer_has_taken_counts_before_the_request_limit() {
    an_answer_arrives_whole("--request-timeout", &ALL[..5]); // handlers
}
