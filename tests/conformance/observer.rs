//! What an observer is told: each connection's beginning and end, once each, with the facts.

use std::collections::{BTreeMap, HashSet};

use crate::support::{until, Server};
use crate::Traits;

/// The fields of a line `opened …` or `closed …`.
type Facts = BTreeMap<String, String>;

/// The lines of one kind that the observer has printed so far.
pub(crate) fn told(server: &Server, kind: &str) -> Vec<Facts> {
    let fields = |line: &str| -> Option<Facts> {
        let facts = line.strip_prefix(kind)?.strip_prefix(' ')?;
        let (facts, reason) = facts.split_once(" reason=").unwrap_or((facts, ""));
        let pairs = facts.split(' ').filter_map(|fact| fact.split_once('='));
        let pairs = pairs.chain([("reason", reason)]);
        Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    };
    server.stdout().iter().filter_map(|line| fields(line)).collect()
}

/// Waits until as many connections are closed, and returns what was told of them.
pub(crate) fn closed(server: &Server, count: usize) -> Vec<Facts> {
    until("all are closed", || told(server, "closed").len() >= count);
    let closed = told(server, "closed");
    assert_eq!(closed.len(), count, "{closed:?}");
    closed
}

/// Every connection is opened and then closed, under a number of its own, with the same addresses.
fn check_pairs(server: &Server, count: usize) {
    let (opened, closed) = (told(server, "opened"), closed(server, count));
    let ids: HashSet<&String> = closed.iter().map(|facts| &facts["id"]).collect();
    assert_eq!((ids.len(), opened.len()), (count, count), "{opened:?} {closed:?}");
    for facts in &closed {
        let same = opened.iter().filter(|o| ["id", "peer", "local"].iter().all(|name| o[*name] == facts[*name]));
        assert_eq!(same.count(), 1, "{facts:?} in {opened:?}");
    }
}

pub(crate) fn observers_are_told_how_each_connection_ended(of: &Traits) {
    let server = of.start(&["--observe", "yes"]);
    let cases = [
        ("ECHO hello\n", "served", 11, 6, ""),
        ("ERROR\n", "failed", 6, 0, "a client asked for it"),
        ("ECHO a\nPANIC\n", "panicked", 13, 2, "a client asked for it"),
        ("ECHO half a line", "disconnected", 16, 0, ""),
    ];
    for (n, (said, outcome, read, written, reason)) in cases.into_iter().enumerate() {
        let mut client = server.connect();
        client.send(said);
        client.half_close();
        client.rest();
        let closed = closed(&server, n + 1).pop().unwrap();
        assert_eq!(closed["outcome"], outcome, "{closed:?}");
        let moved = (closed["read"].parse(), closed["written"].parse());
        assert_eq!(moved, (Ok(read), Ok(written)), "{said:?}: {closed:?}");
        assert!(closed["reason"].contains(reason) && closed["local"] == server.addr(), "{closed:?}");
        let [duration, age] = ["micros", "age"].map(|name| closed[name].parse::<u64>().unwrap());
        assert!(duration > 0 && duration.abs_diff(age) < 8_000_000, "{closed:?}");
        // of two clocks
    }
    check_pairs(&server, cases.len());
    server
        .until_stats("all times are counted", |s| s["times"] == 4 && s["p50_us"] > 0 && s["p50_us"] <= s["longest_us"]);
}

/// Opened as well, so that a count by client comes out even.
pub(crate) fn observers_are_told_of_refusals(of: &Traits) {
    let slow = ["--observe", "yes", "--verify-delay", "1000000", "--verify-timeout", "50"];
    let server = of.start(&slow);
    assert!(server.connect().until_closed().is_empty());
    let closed = closed(&server, 1).remove(0);
    assert_eq!((closed["outcome"].as_str(), closed["read"].as_str()), ("refused", "0"));
    assert!(closed["reason"].contains("verify_request"), "{closed:?}");
    check_pairs(&server, 1);
}

/// Each is told the client's address, also at the beginning.
pub(crate) fn observers_know_the_client_behind_a_proxy(of: &Traits) {
    let server = of.start(&["--observe", "yes", "--proxy-from", "127.0.0.0/8"]);
    let mut client = server.connect();
    client.send(super::proxy::V1);
    assert_eq!(client.ask("ECHO hello"), "hello");
    until("it is opened before its end", || told(&server, "opened").len() == 1);
    assert!(told(&server, "closed").is_empty());
    drop(client);
    let of_client = closed(&server, 1).remove(0);
    assert_eq!((of_client["peer"].as_str(), of_client["outcome"].as_str()), ("[2001:db8::9]:9", "served"));
    assert_eq!(of_client["destination"], "Some([::1]:443)");
    assert!(of_client["proxy"].starts_with("Some(127.0.0.1:"), "{of_client:?}");
    let mut wrong = server.connect();
    wrong.send("no header\n");
    assert!(wrong.until_closed().is_empty());
    let of_wrong = closed(&server, 2).remove(1);
    assert!(of_wrong["outcome"] == "refused" && of_wrong["peer"].starts_with("127.0.0.1:"), "{of_wrong:?}");
    check_pairs(&server, 2);
}
