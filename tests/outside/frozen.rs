//! A server that is stopped (SIGSTOP, a frozen container) for longer than a limit: what came in time is not cut when it
//! goes on.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{freeze, queues, thaw, until, with_time_enough, Client, Server};

/// Each limit here, unless the machine is too busy to prepare all clients within it.
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
    many: usize,
}

/// Starts a server of each way with each of these limits.
fn start(limits: &[&'static str], ways: &[&[&str]], limit: Duration) -> Vec<Case> {
    let millis = limit.as_millis().to_string();
    let all = limits.iter().flat_map(|limit| ways.iter().map(move |way| (*limit, *way)));
    let start = |(limit, way): (&'static str, &[&str])| {
        let server = Server::start("torture_server", &[way, &[limit, &millis]].concat());
        Case { limit, server, clients: Vec::new(), many: if way.contains(&"sequential") { 1 } else { 3 } }
    };
    all.map(start).collect()
}

/// All clients are served once, and send `before`. The servers are frozen for longer than the limit, and the clients do
/// `meanwhile`.
fn frozen<T>(
    limits: &[&'static str],
    ways: &[&[&str]],
    before: impl Fn(&Case) -> String,
    meanwhile: impl Fn(&mut Client) -> T,
) -> Vec<(Case, Vec<T>)> {
    let (limit, mut cases) = with_time_enough(LIMIT, |limit| {
        let mut cases = start(limits, ways, limit);
        let began = Instant::now();
        for case in &mut cases {
            case.clients = (0..case.many).map(|_| case.server.connect()).collect();
            let ready = case.clients.iter_mut().all(|client| client.try_ask("ECHO here").is_ok_and(|it| it == "here"));
            let before = before(case);
            if !ready || case.clients.iter_mut().any(|client| client.try_send(before.as_bytes()).is_err()) {
                return None;
            }
        }
        let ports: Vec<u16> = cases.iter().map(|case| case.server.port()).collect();
        until("the servers have read it", || queues::unread_on(&ports) == 0);
        cases.iter().filter(|case| case.limit == "--drain").for_each(|case| case.server.signal("TERM"));
        freeze(cases.iter().map(|case| &case.server));
        (began.elapsed() < limit).then_some((limit, cases))
    });
    let did: Vec<Vec<T>> = cases.iter_mut().map(|case| case.clients.iter_mut().map(&meanwhile).collect()).collect();
    thread::sleep(limit * 5 / 3); // the time of the limit is what this is about
    thaw(cases.iter().map(|case| &case.server));
    cases.into_iter().zip(did).collect()
}

#[test]
fn a_request_that_came_in_time_counts_before_a_limit() {
    let limits = ["--read-timeout", "--request-timeout", "--drain", "--idle-timeout"];
    // For the idle limit, the client has sent nothing yet.
    let half = |case: &Case| if case.limit == "--idle-timeout" { "" } else { "ECHO he" }.to_owned();
    for (Case { limit, mut server, mut clients, .. }, _) in frozen(&limits, ALL, half, |client| client.send("llo\n")) {
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
    let cases = frozen(&[limit], ways, |_| format!("BIG {bytes}\n"), Client::take_what_comes);
    for (Case { mut clients, .. }, taken) in cases {
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
