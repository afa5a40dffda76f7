//! After any number of connections a server is as it was before, and can say what became of each.

use std::thread;

use crate::support::{procfs, until, Server};
use crate::Traits;

pub(crate) fn a_thousand_connections_leave_nothing_behind(of: &Traits) {
    let server = of.start(&[]);
    let pid = server.pid();
    warm_up(&server);
    let before = procfs::fds(pid);
    for _ in 0..1000 {
        assert_eq!(server.ask("ECHO x"), "x");
    }
    // A thread that waits holds one descriptor more; that is all that may differ from one moment to the next.
    let most = before + of.idle_threads;
    until("the descriptors are closed", || procfs::fds(pid) <= most);
    until("the threads are gone", || procfs::threads(pid) <= of.idle_threads);
    until("the children are reaped", || procfs::zombies(pid) == 0);
    server.until_stats("1000 served", |s| s["served"] >= 1000 && s["active"] == 1 && s.add_up());
}

/// Side by side, so that as many threads and descriptors as are ever kept have been made.
fn warm_up(server: &Server) {
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert_eq!(server.ask("ECHO warm"), "warm"));
        }
    });
    server.until_stats("the warm-up has ended", |s| s["active"] == 1 && s["served"] >= 32);
}

pub(crate) fn the_counters_add_up(of: &Traits) {
    let server = of.start(&[]);
    for line in ["ECHO one", "ECHO two", "PANIC", "ERROR", "ERROR", "CLOSE"] {
        server.ask(line);
    }
    let mut half = server.connect();
    half.send("ECHO half a li");
    half.half_close();
    assert_eq!(half.rest(), "", "a line that was cut off is not taken for a whole one");
    drop(half);
    server
        .until_stats("3 failed, 1 disconnected", |s| s["failed"] == 3 && s["panicked"] == 1 && s["disconnected"] == 1);
    server.until_stats("the rest was served", |s| s["active"] == 1 && s["refused"] == 0 && s.add_up());
}
