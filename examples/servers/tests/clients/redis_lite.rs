//! `redis-cli`, `redis-benchmark`, and clients that say what no client of Redis would.

use crate::support::{procfs, Client, AT_ONCE};
use crate::{client, start};

const STRATEGIES: [&str; 2] = ["threading", "event-loop"];

#[test]
fn redis_cli_keeps_and_finds_values() {
    for strategy in STRATEGIES {
        let mut server = start!("redis_lite", "--strategy", strategy);
        let port = server.port().to_string();
        let cli = |words: &[&str]| client("redis-cli", &[&["-p", &port], words].concat());
        let Some(pong) = cli(&["PING"]) else { return };
        assert_eq!(pong, "PONG\n");
        let said = |words: &[&str]| cli(words).unwrap();
        assert_eq!(said(&["SET", "name", "a b\r\nc"]), "OK\n");
        assert_eq!(said(&["GET", "name"]), "a b\r\nc\n");
        assert_eq!(said(&["GET", "none"]), "\n");
        assert_eq!(said(&["INCR", "n"]), "1\n");
        assert_eq!(said(&["-r", "9", "INCR", "n"]).lines().last(), Some("10"));
        assert!(said(&["INCR", "name"]).starts_with("ERR value is not an integer"));
        assert_eq!(said(&["DEL", "n", "none"]), "1\n");
        assert_eq!(said(&["DBSIZE"]), "1\n");
        assert!(said(&["NONSENSE"]).starts_with("ERR unknown command"));
        server.term().well_within(AT_ONCE);
    }
}

#[test]
fn redis_benchmark_has_no_error() {
    for strategy in STRATEGIES {
        let server = start!("redis_lite", "--strategy", strategy);
        let port = server.port().to_string();
        let args = ["-p", &port, "-t", "set,get,incr", "-n", "5000", "-c", "20", "-P", "16", "-r", "1000", "--csv"];
        let Some(said) = client("redis-benchmark", &args) else { return };
        for test in ["\"SET\",", "\"GET\",", "\"INCR\","] {
            assert!(said.lines().any(|line| line.starts_with(test)), "{said}");
        }
        assert!(!said.contains("Error"), "{said}");
    }
}

/// A frame within frames would exhaust the stack of a parser that calls itself, and a count the memory.
#[test]
fn what_is_no_request_ends_its_connection_only() {
    let server = start!("redis_lite", "--strategy", "event-loop");
    let nested = "*1\r\n".repeat(200_000);
    let long = format!("*2\r\n$3\r\nGET\r\n${}", "0".repeat(1000));
    for broken in
        [&nested, "*999999999\r\n", "*2\r\n:1\r\n", "*1\r\n$-1\r\n", "*1\r\n$x\r\n", "GET a\r\n", "*1\n", &long]
    {
        let mut client = server.connect();
        let _ = client.try_send(broken.as_bytes()); // it closes before it has read all
        let reply = String::from_utf8(client.until_closed()).unwrap();
        assert!(reply.is_empty() || reply.starts_with("-ERR Protocol error: "), "{broken:.30}: {reply:?}");
    }
    let mut client = server.connect();
    client.send(format!("*2\r\n$4\r\nECHO\r\n${}\r\n", 2 << 20));
    let _ = client.try_send(&vec![b'x'; 2 << 20]);
    assert!(client.until_closed().is_empty());
    assert_eq!(server.ask("*1\r\n$4\r\nPING\r"), "+PONG");
}

/// The replies to 400 short requests are 200 MB. A client that takes its time gets them all, and the server has only
/// a little of them in its memory.
#[test]
fn replies_wait_for_a_client_that_is_behind() {
    let server = start!("redis_lite", "--strategy", "event-loop");
    let mut client = server.connect();
    let value = "v".repeat(500_000);
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n$500000\r\n{value}\r\n"));
    assert_eq!(client.line(), "+OK");
    let many = 400;
    client.send("*2\r\n$3\r\nGET\r\n$1\r\nv\r\n".repeat(many));
    client.half_close();
    for _ in 0..many {
        assert_eq!(client.line(), "$500000");
        assert_eq!(client.line(), value);
        assert!(procfs::rss_kib(server.pid()) < 64 << 10);
    }
    assert_eq!(client.rest(), "");
}

#[test]
fn values_beyond_the_memory_are_refused() {
    let server = start!("redis_lite", "--memory", "1");
    let mut client = server.connect();
    let set = |client: &mut Client, key: &str, len: usize| {
        client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\n{key}\r\n${len}\r\n{}\r\n", "v".repeat(len)));
        client.line()
    };
    assert_eq!(set(&mut client, "a", 600_000), "+OK");
    assert!(set(&mut client, "b", 600_000).starts_with("-OOM"));
    assert_eq!(set(&mut client, "a", 900_000), "+OK"); // in place of the old one
    assert_eq!(set(&mut client, "a", 1), "+OK");
    assert_eq!(set(&mut client, "b", 600_000), "+OK");
}
