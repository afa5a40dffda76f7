//! What a client can make a server write into its log.

use std::time::Instant;

use crate::support::Server;
use crate::torture;

const STRATEGIES: [&str; 6] = ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop"];
const EVENTS: usize = 200;

/// The number of events of a line that says how many others it stands for.
fn events_of(line: &str) -> usize {
    let number = |text: &str| text.parse::<usize>().unwrap();
    if let Some((line, _)) = line.split_once(" more like it") {
        return 1 + number(line.rsplit('(').next().unwrap());
    }
    if line.contains(" were left out of the log") {
        return number(line.split("] ").nth(1).unwrap().split(' ').next().unwrap());
    }
    1
}

/// Makes many clients send this, ends the server, and returns the lines of its log.
fn log_of(server: &mut Server, message: &[u8]) -> Vec<String> {
    for _ in 0..EVENTS {
        let mut client = server.connect();
        client.send(message);
        client.half_close();
        client.until_closed();
    }
    server.term();
    server.until_all_is_read();
    server.stderr()
}

#[test]
fn failures_that_clients_cause_are_a_line_a_second_with_their_number() {
    for strategy in STRATEGIES {
        for (message, said, left_out) in [
            ("ERROR\n", "failed: a client", "errors of handlers"),
            ("PANIC\n", "panicked: a client", "panics of handlers"),
        ] {
            let began = Instant::now();
            let mut server = torture(strategy, &[]);
            let log = log_of(&mut server, message.as_bytes());
            let is_meant = |line: &&String| line.contains(said) || line.contains(left_out);
            let lines: Vec<_> = log.iter().filter(is_meant).collect();
            // Each of the four workers has its own count.
            let most = 4 * (began.elapsed().as_secs() as usize + 2);
            assert!(lines.len() <= most.min(EVENTS / 2), "{strategy}: {} lines", lines.len());
            let events: usize = lines.iter().map(|line| events_of(line)).sum();
            assert_eq!(events, EVENTS, "{strategy}: {lines:?}");
        }
    }
}

#[test]
fn what_a_client_does_wrong_is_no_line_above_debug() {
    let too_long = [&b"x".repeat(100_000)[..], b"\n"].concat();
    for strategy in STRATEGIES {
        for message in [&b"\xff\n"[..], &too_long] {
            let mut server = torture(strategy, &[]);
            let log = log_of(&mut server, message);
            assert!(!log.iter().any(|line| line.contains("socketserver::handler")), "{strategy}: {log:?}");
            let counts = format!("served 0, failed {EVENTS} (peer faults {EVENTS})");
            assert!(log.iter().any(|line| line.contains(&counts)), "{strategy}: {log:?}");
        }
    }
}

/// A storm of crashes.
#[test]
fn processes_that_crash_are_a_line_a_second() {
    for (strategy, said) in
        [("forking", "was killed by SIGABRT"), ("preforking", "SIGABRT; 1 connections went with it")]
    {
        let began = Instant::now();
        let mut server = torture(strategy, &[]);
        for _ in 0..100 {
            let mut client = server.connect();
            client.send("ABORT\n");
            client.until_closed();
        }
        server.until_stats("all are counted", |s| s["crashed"] == 100);
        server.term();
        server.until_all_is_read();
        let most = 4 * (began.elapsed().as_secs() as usize + 2);
        for what in [said, "is ready"] {
            let lines = server.stderr().iter().filter(|line| line.contains(what)).count();
            assert!(lines <= most.min(60), "{strategy}: {lines} lines: {what}");
        }
    }
}
