//! Sources as an attacker uses them: crowds, floods, and workers that are killed meanwhile.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use crate::support::{example, procfs, until, Client, Server, AT_ONCE};

const GREEDY: &str = "127.0.0.2";

fn from(server: &Server, source: &str) -> Client {
    Client::connect_from(source, server.addr())
}

/// The clients of a crowd that are served. All of them have connected before the first one speaks.
fn served_of(server: &Server, crowd: usize) -> Vec<Client> {
    let crowd: Vec<_> = (0..crowd).map(|_| from(server, GREEDY)).collect();
    let is_served = |client: &mut Client| client.try_ask("ECHO in").is_ok_and(|said| said == "in");
    crowd.into_iter().filter_map(|mut client| is_served(&mut client).then_some(client)).collect()
}

fn kill_workers(server: &Server) {
    for worker in procfs::descendants(server.pid()) {
        let mut command = Command::new("sh");
        let _ = command.args(["-c", "kill -s KILL -- \"$0\" 2>/dev/null", &worker.to_string()]).status();
    }
}

/// Whatever a killed worker was doing for its clients, their places are free again, and no more than theirs.
#[test]
fn workers_that_are_killed_give_back_what_they_had_and_no_more() {
    for inner in ["threading", "event-loop"] {
        let args = ["--strategy", "preforking", "--workers", "2", "--inner", inner, "--per-source", "4"];
        let server = Server::start("torture_server", &args);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(SeqCst) {
                        // It may be refused, or its worker be killed.
                        let _ = from(&server, GREEDY).try_ask("ECHO in");
                    }
                });
            }
            for _ in 0..10 {
                let held = served_of(&server, 6);
                assert!(held.len() <= 4, "{inner}: {} at once", held.len());
                kill_workers(&server);
            }
            over.store(true, SeqCst);
        });
        for _ in 0..2 {
            until("all places are free again, and no more", || {
                let served = served_of(&server, 8).len();
                assert!(served <= 4, "{inner}: {served} at once");
                served == 4
            });
        }
    }
}

/// X5: a flood of connections that are refused fills no log.
#[test]
fn refusals_are_told_once_a_second_even_at_debug() {
    let mut command = Command::new(example("torture_server"));
    command.env("RUST_LOG", "socketserver=debug");
    let began = Instant::now();
    let mut server = Server::start_command(command, "127.0.0.1:0", &["--per-source", "1"]);
    let mut held = from(&server, GREEDY);
    assert_eq!(held.ask("ECHO in"), "in");
    for _ in 0..300 {
        assert!(from(&server, GREEDY).until_closed().is_empty());
    }
    drop(held);
    server.term().well_within(AT_ONCE);
    server.until_reported("refused by source 300");
    server.until_all_is_read();
    let log = server.stderr();
    let told = log.iter().filter(|line| line.contains("its source has as many connections as it may have")).count();
    assert!((1..=1 + began.elapsed().as_secs() as usize).contains(&told), "{told} lines in {:?}", began.elapsed());
    let left_out = "more connections beyond what their source may have at once were left out of the log";
    assert!(log.iter().any(|line| line.contains(left_out)), "{log:#?}");
}
