//! The threads of `verify_request`. No other test of this process starts one.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{handler, ServerBuilder};

fn verifying() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.map(name).filter(|name| name.trim() == "verify").count()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5); // less than idle helpers are kept
    while !holds() {
        assert!(Instant::now() < end, "{what}: {} threads", verifying());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Connects, and waits for the end.
fn visit(addr: SocketAddr) {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn helpers_are_started_on_demand_bounded_and_end_with_their_server() {
    let door = Arc::new(Mutex::new(()));
    let theirs = door.clone();
    let mut server = ServerBuilder::new()
        .verify_timeout(Duration::from_millis(300))
        .verify_request(move |_| {
            drop(theirs.lock());
            true
        })
        .bind_tcp("127.0.0.1:0", handler(|_| Ok(())))
        .unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = std::thread::spawn(move || server.serve_forever());
    assert_eq!(verifying(), 0, "none before there is something to ask");
    (0..20).for_each(|_| visit(addr));
    assert!((1..=10).contains(&verifying()), "they are used again; another one is started while they come back");

    let closed = door.lock();
    let visitors: Vec<_> = (0..80).map(|_| std::thread::spawn(move || visit(addr))).collect();
    visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    until("all have started, and no more", || verifying() == crate::lifecycle::VERIFIERS);
    until("all are counted", || handle.stats().refused >= 80);
    drop(closed);
    visit(addr);
    handle.shutdown();
    let report = serving.join().unwrap().unwrap();
    // A loaded machine may be too slow for the limit of a verification.
    assert_eq!((report.accepted, report.served + report.refused), (101, 101), "{report}");
    drop(handle);
    until("they end with their server", || verifying() == 0);
}
