//! Crowds of slow clients (slowloris), and an honest one that is served beside them.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{getrlimit, setrlimit, Resource};

use crate::support::{Client, Server};

const GREEDY: &str = "127.0.0.2";
const HONEST: &str = "127.0.0.3";

fn from(server: &Server, source: &str) -> Client {
    Client::connect_from(source, server.addr())
}

/// Returns how many connections a crowd has: 2,000, if this process may open them. The server inherits the limit.
fn crowd() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(500).clamp(100, 2000)
}

/// A crowd sends a byte now and then, and connects again where it is refused. An honest client is served meanwhile.
fn is_served_beside_a_slow_crowd(server: &Server, crowd: usize, sources: &[&str]) {
    let over = AtomicBool::new(false);
    let mut crowd: Vec<_> = (0..crowd).map(|n| from(server, sources[n % sources.len()])).collect();
    let mut times: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                let mut refused = 0;
                for (n, client) in crowd.iter_mut().enumerate() {
                    if client.try_send(b"E").is_err() && refused < 200 {
                        *client = from(server, sources[n % sources.len()]);
                        refused += 1;
                    }
                }
                thread::sleep(Duration::from_millis(100)); // slow, as the attack is
            }
        });
        let visit = |_| {
            let began = Instant::now();
            assert_eq!(from(server, HONEST).ask("ECHO in"), "in");
            began.elapsed()
        };
        // Within the rate of one source.
        let times = catch_unwind(|| (0..9).map(visit).collect());
        over.store(true, SeqCst);
        times.unwrap_or_default()
    });
    times.sort();
    assert_eq!(times.len(), 9, "each visit is served");
    assert!(times[4] < Duration::from_secs(1), "{times:?}"); // the promise: 100 ms
}

/// X1, X3: the limits are those that the guide recommends for a pool of threads.
#[test]
fn x1_a_pool_serves_beside_a_slow_crowd_of_one_source() {
    alone!();
    let crowd = crowd();
    let limits = ["--idle-timeout", "60000", "--request-timeout", "30000", "--write-timeout", "10000"];
    let args = ["--strategy", "thread-pool", "--workers", "64", "--per-source", "20", "--rate", "10"];
    let server = Server::start("torture_server", &[&args[..], &limits].concat());
    is_served_beside_a_slow_crowd(&server, crowd, &[GREEDY]);
    let stats = server.stats();
    assert!(stats["source_at_once"] + stats["source_rate"] > 0 && stats["active"] <= 20 + 2, "{stats:?}");
}

#[test]
fn x1_a_loop_serves_beside_a_slow_crowd_of_many_sources() {
    alone!();
    let crowd = crowd();
    let server = Server::start("torture_server", &["--strategy", "event-loop", "--request-timeout", "30000"]);
    let many: Vec<String> = (10..110).map(|n| format!("127.0.0.{n}")).collect();
    is_served_beside_a_slow_crowd(&server, crowd, &many.iter().map(String::as_str).collect::<Vec<_>>());
}
