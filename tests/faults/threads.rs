//! T: threads, pools, and what is kept.

use std::io::ErrorKind;

use crate::support::{procfs, until, Client};
use crate::{torture, Settled};

/// As many slow clients as there are threads: their limit frees the pool, and a waiting client is served then.
#[test]
fn t3_slow_clients_do_not_hold_a_pool_for_ever() {
    for (strategy, args) in [("thread-pool", ["--workers", "4"]), ("threading", ["--max-connections", "4"])] {
        let mut server = torture(strategy, &[&args[..], &["--request-timeout", "500"]].concat());
        let before = Settled::of(&server);
        let mut slow: Vec<_> = (0..4).map(|_| server.connect()).collect();
        slow.iter_mut().for_each(|client| client.send("ECHO half a li"));
        assert_eq!(server.ask("ECHO at last"), "at last", "{strategy}");
        server.until_stats("they were cut", |s| s["timed_out"] == 4);
        drop(slow);
        before.still(&mut server, strategy);
    }
}

/// Connections that are over leave nothing: no thread, no memory.
#[test]
fn t5_finished_connections_are_forgotten() {
    let count = if std::env::var_os("SOAK").is_some() { 1_000_000 } else { 3_000 };
    for strategy in ["sequential", "threading", "thread-pool", "event-loop"] {
        let mut server = torture(strategy, &[]);
        (0..300).for_each(|_| assert_eq!(server.ask("ECHO warm"), "warm"));
        let before = Settled::of(&server);
        let memory = procfs::rss_kib(server.pid());
        (0..count).for_each(|_| assert_eq!(server.ask("ECHO x"), "x"));
        before.still(&mut server, strategy);
        let more = procfs::rss_kib(server.pid()).saturating_sub(memory);
        assert!(more < 1024, "{strategy}: {more} KiB more after {count} connections");
    }
}

/// Descriptors' numbers are used again at once, while connections end in every way: no byte ever goes astray.
#[test]
fn t6_no_connection_gets_what_is_another_s() {
    for strategy in ["threading", "thread-pool", "event-loop"] {
        let mut server = torture(strategy, &["--idle-timeout", "20"]);
        let before = Settled::of(&server);
        let addr = server.addr().to_owned();
        let clients: Vec<_> = (0..4)
            .map(|who| {
                let addr = addr.clone();
                std::thread::spawn(move || {
                    for n in 0..150 {
                        let word = format!("{who}-{n}");
                        let mut client = until_answered(&addr, &word);
                        if n % 3 == 0 {
                            assert!(client.until_closed().is_empty(), "the idle limit ends it, and nothing else comes");
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        before.still(&mut server, strategy);
    }
}

/// A client that has got its answer. On a loaded machine, the idle limit may end others before they ask.
fn until_answered(addr: &str, word: &str) -> Client {
    loop {
        let mut client = Client::connect(addr);
        match client.try_ask(&format!("ECHO {word}")) {
            Ok(answer) if answer.is_empty() => {}
            Ok(answer) => {
                assert_eq!(answer, word);
                return client;
            }
            Err(e) => assert!(matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{e}"),
        }
    }
}

/// A pool is as large after panics as before.
#[test]
fn t4_panics_cost_a_pool_no_thread() {
    let mut server = torture("thread-pool", &[]);
    // They start one after another: counted before, the pool would grow beyond what it has.
    until("four threads and the supervisor", || procfs::threads(server.pid()) > 4);
    let before = Settled::of(&server);
    for _ in 0..50 {
        let mut client = server.connect();
        client.send("PANIC\n");
        client.until_closed();
    }
    until("as many threads as before", || procfs::threads(server.pid()) == before.threads);
    let asleep: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.connect();
            client.send_and_see_it_taken("SLEEP 200\n");
            client
        })
        .collect();
    asleep.into_iter().for_each(|mut client| assert_eq!(client.line(), "slept", "four at once"));
    before.still(&mut server, "panics");
}
