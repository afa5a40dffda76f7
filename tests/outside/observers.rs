//! Observers of servers as processes: the examples, children that die, TLS, and what Prometheus makes of the metrics.

use std::io::Write;
use std::process::Stdio;

use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};
use crate::support::{output, tool, until, Client, Server, AT_ONCE};

/// The last line on stdout that contains the text.
fn last_with(server: &Server, text: &str) -> Option<String> {
    server.stdout().into_iter().rev().find(|line| line.contains(text))
}

/// Waits for a line on stdout that contains the text.
#[track_caller]
fn told(server: &Server, text: &str) -> String {
    until(&format!("{text:?} is told"), || last_with(server, text).is_some());
    last_with(server, text).unwrap()
}

// The examples.

#[test]
fn the_access_log_has_a_line_for_each_connection() {
    let server = Server::start("access_log", &[]);
    let peers: Vec<_> = (0..3).map(|_| server.connect()).map(|mut c| (c.rest(), c.local_addr()).1).collect();
    for peer in peers {
        let line = told(&server, &format!(" {peer} "));
        assert!(line.contains(" served in=0 out=25 ") && line.ends_with(" -"), "{line}");
    }
}

#[test]
fn per_client_gives_back_what_it_has_counted() {
    let server = Server::start("per_client", &[]);
    let mut clients: Vec<Client> = Vec::new();
    for n in 1..=5 {
        clients.push(server.connect());
        assert_eq!(clients[n - 1].line(), format!("{{127.0.0.1: {n}}}"));
    }
    drop(clients);
    until("all are given back", || server.connect().line() == "{127.0.0.1: 1}");
}

#[test]
fn the_slow_log_names_what_was_slow_and_nothing_else() {
    let server = Server::start("slow_log", &["--slower-than", "300"]);
    let (mut quick, mut slow) = (server.connect(), server.connect());
    assert_eq!((quick.ask("0"), slow.ask("0.4")), ("slept".to_owned(), "slept".to_owned()));
    server.until_logged(&format!("slow: 2 of {} took", slow.local_addr()));
    assert!(!server.stderr().iter().any(|line| line.contains(&quick.local_addr().to_string())));
}

// Forking: the parent tells it.

#[test]
fn a_child_that_dies_has_a_line_with_what_it_has_moved() {
    let server = Server::start("torture_server", &["--strategy", "forking", "--observe", "yes"]);
    for (said, how) in [("ABORT", "killed by SIGABRT"), ("EXIT 7", "exited with 7"), ("SEGV", "killed by SIGSEGV")] {
        let mut client = server.connect();
        assert_eq!(client.ask("ECHO before"), "before");
        client.send(format!("{said}\n"));
        client.until_closed();
        let line = told(&server, how);
        let moved = format!("outcome=crashed read={} written=7", "ECHO before\n".len() + said.len() + 1);
        assert!(line.contains(&moved), "{line}");
    }
    let limited = ["--strategy", "forking", "--observe", "yes", "--request-timeout", "100"];
    let server = Server::start("torture_server", &limited);
    server.connect().send("SPIN\n");
    let line = told(&server, "closed ");
    assert!(line.contains("outcome=timed_out read=5 written=0") && line.contains("at the request limit"), "{line}");
}

#[test]
fn a_worker_tells_of_its_connections_and_numbers_are_unique_over_workers() {
    let workers = ["--strategy", "preforking", "--workers", "3", "--observe", "yes", "--max-requests", "5"];
    let server = Server::start("torture_server", &workers);
    for n in 0..40 {
        assert_eq!(server.ask(&format!("ECHO {n}")), n.to_string());
    }
    let closed = || server.stdout().into_iter().filter(|line| line.starts_with("closed ")).collect::<Vec<_>>();
    until("all are told", || closed().len() == 40);
    let mut ids: Vec<_> = closed().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40, "{:?}", closed());
    server.until_stats("the times of all", |stats| {
        stats["times"] >= 40 && stats["p50_us"] > 0 && stats["longest_us"] >= stats["p99_us"]
    });
}

// TLS.

#[test]
fn an_observer_is_told_what_tls_has_agreed_upon() {
    let Some(pki) = Pki::make() else { return };
    let tls = pki.options();
    for strategy in ["threading", "forking", "preforking", "event-loop"] {
        for inner in ["handler", "protocol"] {
            let own = ["--strategy", strategy, "--as", inner, "--observe", "yes"];
            let args: Vec<&str> = own.into_iter().chain(tls.iter().map(String::as_str)).collect();
            let server = Server::start("torture_server", &args);
            let mut client = TlsClient::connect(server.addr().parse().unwrap(), trust(&pki));
            client.say("ECHO hello\n");
            client.expect("hello\n");
            client.close_notify();
            let line = told(&server, "closed ");
            let facts = "tls=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384 alpn=None name=Some(\"localhost\") resumed=false";
            assert!(line.contains(facts) && line.contains("read=11 written=6"), "{strategy} {inner}: {line}");

            server.connect().send("no TLS\n");
            let line = told(&server, "outcome=refused");
            assert!(line.contains("handshake") && !line.contains("tls="), "{strategy} {inner}: {line}");
        }
    }
}

// Metrics.

/// Asks as Prometheus does, and returns the body.
fn scrape(addr: &str) -> String {
    let mut client = Client::connect(addr);
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n");
    let answer = client.rest();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.0 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}, and {}", body.len());
    body.to_owned()
}

#[test]
fn prometheus_reads_the_metrics_and_finds_no_fault() {
    let server = Server::start("metrics", &[]);
    let addr = told(&server, "metrics on ").replace("metrics on ", "");
    for _ in 0..7 {
        assert_eq!(server.connect().rest(), "Thank you for connecting\n");
    }
    let counted = ["server_connection_duration_seconds_count 7\n", "server_connections 0\n"];
    until("all are counted", || counted.iter().all(|line| scrape(&addr).contains(line)));
    let metrics = scrape(&addr);
    for line in ["server_accepted_total 7", "server_closed_total{outcome=\"served\"} 7", "server_connections 0"] {
        assert!(metrics.lines().any(|l| l == line), "{line} in {metrics}");
    }
    let Some(mut promtool) = tool("promtool") else { return };
    let mut check = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let checked = output(check, "promtool");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.is_empty(), "{said}");
}

/// As many as the second listener takes: some say nothing, and some begin a request.
#[test]
fn clients_that_stay_do_not_shut_prometheus_out() {
    let server = Server::start("metrics", &[]);
    let addr = told(&server, "metrics on ").replace("metrics on ", "");
    let mut staying: Vec<Client> = (0..10).map(|_| Client::connect(&addr)).collect();
    staying.iter_mut().skip(5).for_each(|client| client.send("GET / HTTP/1.1\r\nHost: localhost\r\n"));
    assert!(scrape(&addr).contains("server_accepted_total 0"));
}

/// The program has two servers, which go over together.
#[test]
fn metrics_are_told_at_the_same_address_after_a_restart() {
    let mut old = Server::start("metrics", &[]);
    let addr = told(&old, "metrics on ").replace("metrics on ", "");
    for _ in 0..3 {
        assert_eq!(old.connect().rest(), "Thank you for connecting\n");
    }
    until("all are counted", || scrape(&addr).contains("server_connection_duration_seconds_count 3\n"));
    old.signal("USR2");
    old.ended().well_within(AT_ONCE);
    old.until_logged("serves now, and this one drains");
    assert_eq!(old.connect().rest(), "Thank you for connecting\n");
    until("the new one counts", || scrape(&addr).contains("server_connection_duration_seconds_count 1\n"));
    let line = format!("metrics on {addr}");
    until("the new one says so, too", || old.stdout().iter().filter(|told| **told == line).count() == 2);
}

#[test]
fn metrics_are_told_beside_a_mute_client_and_end_with_the_server() {
    let mut server = Server::start("metrics", &["--max-connections", "1"]);
    let addr = told(&server, "metrics on ").replace("metrics on ", "");
    assert_eq!(server.connect().rest(), "Thank you for connecting\n");
    let waiting: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    let mute = Client::connect(&addr); // costs one of ten
    assert!(scrape(&addr).contains("server_connections_limit 1\n"));
    drop((waiting, mute));
    server.term().well_within(AT_ONCE);
}
