//! The fault list, row by row, on every strategy where the row makes sense. Rows H are faults of handlers, T of
//! threads, P and R of clients and sockets; rows S are what a stop meets. A test is named by its row; rows that other
//! suites show stand in the table of `tests/README.md`.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod floods;
mod handlers;
mod stops;
mod threads;

use support::{procfs, until, Server};

/// All strategies of the torture server.
const ALL: [&str; 5] = ["sequential", "threading", "thread-pool", "forking", "event-loop"];
/// Those that serve several clients at once.
const CONCURRENT: [&str; 4] = ["threading", "thread-pool", "forking", "event-loop"];

fn torture(strategy: &str, args: &[&str]) -> Server {
    Server::start("torture_server", &[&["--strategy", strategy, "--workers", "4"], args].concat())
}

/// What a server has, to be compared after a fault. Epoll sets are left out: there is one for each thread that has ever
/// waited beside others, and they are kept.
struct Settled {
    fds: usize,
    threads: usize,
}

impl Settled {
    fn of(server: &Server) -> Self {
        assert_eq!(server.ask("ECHO warm"), "warm");
        server.until_stats("quiet", |s| s.add_up() && s["active"] == 1);
        Self { fds: fds_but_epoll(server.pid()), threads: procfs::threads(server.pid()) }
    }

    /// It lives, serves, has counted everything, and has no more than before (threads may be kept for a while: 16).
    #[track_caller]
    fn still(&self, server: &mut Server, what: &str) {
        assert!(server.is_running(), "{what}: it has ended");
        assert_eq!(server.ask("ECHO probe"), "probe", "{what}");
        server.until_stats(what, |s| s.add_up() && s["active"] == 1);
        let pid = server.pid();
        until("no zombies", || procfs::zombies(pid) == 0);
        until("no child is left", || procfs::descendants(pid).is_empty());
        until("no descriptor is left", || fds_but_epoll(pid) <= self.fds);
        until("no thread is left", || procfs::threads(pid) <= self.threads.max(1 + 16));
    }
}

fn fds_but_epoll(pid: u32) -> usize {
    procfs::fd_kinds(pid).into_iter().filter(|(_, kind)| !kind.contains("eventpoll")).count()
}
