//! One process takes over from another: no client of the two notices.

mod failures;
mod load;
mod program;
mod takeover;
mod users;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::support::{example, procfs, until, Client, Server, AT_ONCE};

const STRATEGIES: [&str; 7] =
    ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop", "event-loops"];

/// The process that serves now, as a new client sees it.
fn master(addr: &str) -> u32 {
    Client::connect(addr).ask("MASTER").parse().unwrap()
}

/// Waits for another process to serve, and returns its number.
fn successor_of(former: u32, addr: &str) -> u32 {
    let mut new = former;
    until("another process serves", || {
        new = master(addr);
        new != former
    });
    new
}

/// Sends a signal to a process that this one has not started.
fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success(), "{name} to {pid}");
}

/// True if the process has ended. Whether its new parent waits for it is not its matter.
fn is_gone(pid: u32) -> bool {
    matches!(procfs::state(pid), None | Some('Z'))
}

#[test]
fn a_stop_spares_clients_of_a_passed_socket_that_have_not_spoken_yet() {
    for strategy in STRATEGIES {
        for served_as in ["handler", "protocol"] {
            let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
            let args = ["--strategy", strategy, "--workers", "2", "--as", served_as, "--drain", "60000"];
            let mut server = Server::start_with(listener, Command::new(example("torture_server")), "fd:0", &args);
            let mut client = server.connect();
            until("the server accepts", || server.queued() == 0);
            server.signal_and_see_it_taken("TERM");
            assert_eq!(client.ask("ECHO hello"), "hello", "{strategy} {served_as}");
            assert_eq!(client.rest(), "", "{strategy} {served_as}: then the connection ends");
            server.ended().well_within(AT_ONCE);
            server.until_reported("accepted 1, served 1, drained 1");
        }
    }
}
