//! One process takes over from another: no client of the two notices.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;

use crate::support::{example, until, Server, AT_ONCE};

const STRATEGIES: [&str; 7] =
    ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop", "event-loops"];

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
