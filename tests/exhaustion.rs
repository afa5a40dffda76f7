//! Servers that run out of something, as processes: descriptors, threads, places in the kernel's queue (rows A, T and R
//! of the fault list).

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use support::{example, procfs, tool, until, Client, Server, AT_ONCE};

const STRATEGIES: [&str; 5] = ["sequential", "threading", "thread-pool", "forking", "event-loop"];

/// What must hold after every fault: a newcomer is served, everything is accounted for, no child is left unburied.
#[track_caller]
fn serves_on(server: &mut Server, what: &str) {
    assert!(server.is_running(), "{what}: it has ended");
    assert_eq!(server.ask("ECHO probe"), "probe", "{what}");
    server.until_stats(what, |s| s.add_up() && s["active"] == 1);
    until("no zombies", || procfs::zombies(server.pid()) == 0);
}

/// Leaves nothing but a reset.
fn reset(stream: TcpStream) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream.as_fd(), sockopt::Linger, &at_once).unwrap();
}

#[test]
fn a2_clients_that_reset_before_they_are_accepted() {
    for strategy in STRATEGIES {
        let mut server = Server::start("torture_server", &["--strategy", strategy]);
        assert_eq!(server.ask("ECHO warm"), "warm");
        let before = server.stats()["accepted"];
        server.signal("STOP");
        until("it has stopped", || procfs::state(server.pid()) == Some('T'));
        for _ in 0..20 {
            let mut stream = TcpStream::connect(server.addr()).unwrap();
            stream.write_all(b"PEER\n").unwrap();
            reset(stream);
        }
        server.signal("CONT");
        server.until_stats("all were accepted", |s| s["accepted"] >= before + 20 && s["active"] == 1);
        let s = server.stats();
        assert_eq!(s["failed"], 0, "{strategy}: {s:?}");
        assert!(s["disconnected"] >= 20, "{strategy}: {s:?}");
        serves_on(&mut server, strategy);
    }
}

#[test]
fn a3_out_of_descriptors_it_rests_and_comes_back() {
    let Some(_) = tool("prlimit") else { return };
    for strategy in ["threading", "thread-pool", "event-loop"] {
        let args = ["--strategy", strategy, "--workers", "64", "--max-connections", "500"];
        let mut server = Server::start("torture_server", &args);
        assert_eq!(server.ask("ECHO warm"), "warm");
        // Threads that wait have more than 30 descriptors. They give them up.
        let pid = server.pid().to_string();
        assert!(Command::new("prlimit").args(["--pid", &pid, "--nofile=30:30"]).status().unwrap().success());
        let mut idle: Vec<Client> = (0..80).map(|_| server.connect()).collect();
        server.until_logged("Too many open files (os error 24); raise RLIMIT_NOFILE");
        let before = procfs::ticks(server.pid());
        thread::sleep(Duration::from_secs(1)); // a stretch of time, in which little is to happen
        let burnt = procfs::ticks(server.pid()) - before;
        assert!(burnt < 30, "{strategy}: {burnt} ticks of 100 in a second"); // half of it is said to be 5
        let lines = server.stderr().iter().filter(|line| line.contains("os error 24")).count();
        assert!(lines < 10, "{strategy}: {lines} lines");
        let mut waiting = server.connect();
        waiting.send("ECHO at last\n");
        idle.clear();
        assert_eq!(waiting.line(), "at last", "{strategy}");
        drop(waiting);
        assert!(server.stats()["accept_errors"] > 0);
        serves_on(&mut server, strategy);
    }
}

/// A burst while nobody accepts: clients that fit into the queue are served, the others try again, and all have their answer.
#[test]
fn a8_a_burst_is_served_from_the_queue() {
    let burst = if std::env::var_os("SOAK").is_some() { 2000 } else { 500 };
    for strategy in ["threading", "thread-pool", "event-loop"] {
        let mut server = Server::start("torture_server", &["--strategy", strategy]);
        assert_eq!(server.ask("ECHO warm"), "warm");
        server.signal("STOP");
        let clients: Vec<Client> = (0..burst)
            .map(|n| {
                let mut client = server.connect();
                client.send(format!("ECHO {n}\n"));
                client
            })
            .collect();
        server.signal("CONT");
        for (n, mut client) in clients.into_iter().enumerate() {
            assert_eq!(client.line(), n.to_string(), "{strategy}");
        }
        serves_on(&mut server, strategy);
    }
}

/// A dialogue goes on while others come and go as fast as they can.
#[test]
fn a14_newcomers_do_not_starve_a_dialogue() {
    for strategy in ["threading", "event-loop"] {
        let mut server = Server::start("torture_server", &["--strategy", strategy]);
        let mut dialogue = server.connect();
        assert_eq!(dialogue.ask("ECHO warm"), "warm");
        let addr = server.addr().to_owned();
        let crowd = thread::spawn(move || (0..2000).filter(|_| TcpStream::connect(&addr).is_ok()).count());
        let mut slowest = Duration::ZERO;
        let mut rounds = 0;
        while !crowd.is_finished() || rounds < 50 {
            let asked = Instant::now();
            assert_eq!(dialogue.ask("ECHO still"), "still");
            slowest = slowest.max(asked.elapsed());
            rounds += 1;
        }
        assert_eq!(crowd.join().unwrap(), 2000);
        assert!(slowest < AT_ONCE, "{strategy}: {slowest:?}");
        drop(dialogue);
        serves_on(&mut server, strategy);
    }
}

#[test]
fn a16_descriptors_beyond_those_of_select() {
    for strategy in ["threading", "event-loop"] {
        let mut server = Server::start("torture_server", &["--strategy", strategy, "--max-connections", "1300"]);
        let mut idle: Vec<Client> = (0..1100).map(|_| server.connect()).collect();
        until("all are connected", || procfs::fds(server.pid()) > 1100);
        for client in idle.iter_mut().rev().take(20) {
            assert_eq!(client.ask("ECHO far out"), "far out", "{strategy}");
        }
        assert_eq!(server.ask("ECHO farther"), "farther");
        idle.clear();
        serves_on(&mut server, strategy);
    }
}

#[test]
fn t1_a_thread_that_cannot_be_started_costs_one_connection() {
    let Some(mut strace) = tool("strace") else { return };
    let mut server = Server::start("torture_server", &["--strategy", "threading", "--max-connections", "50"]);
    let first = server.connect(); // its thread has hired another one, which waits
    until("two threads and the supervisor", || procfs::threads(server.pid()) >= 3);
    let pid = server.pid().to_string();
    let mut tracer = strace.args(["-f", "-qq", "-p", &pid, "-e", "trace=clone,clone3", "-e"]);
    tracer = tracer.arg("inject=clone,clone3:error=EAGAIN");
    let mut tracer = tracer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the tracer", || procfs::traced(server.pid()));
    assert_eq!(server.connect().until_closed(), b"", "refused: the end of the stream, and nothing else");
    server.until_logged("no thread or process can be started: see ulimit -u");
    let flood: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    thread::sleep(Duration::from_millis(300)); // a stretch of time, in which it is to rest
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(tracer.id() as i32), nix::sys::signal::Signal::SIGINT).unwrap();
    tracer.wait().unwrap();
    drop((first, flood));
    let lines = server.stderr().iter().filter(|line| line.contains("os error 11")).count();
    assert!(lines < 10, "{lines} lines");
    serves_on(&mut server, "threads that cannot be started");
    let s = server.stats();
    assert!((1..15).contains(&s["refused"]), "it did not rest: {s:?}");
}

#[test]
fn t2_never_more_threads_than_connections() {
    let crowd = if std::env::var_os("SOAK").is_some() { 10_000 } else { 300 };
    let mut server = Server::start("torture_server", &["--strategy", "threading", "--max-connections", "40"]);
    let idle: Vec<Client> = (0..crowd).map(|_| server.connect()).collect();
    until("as many as may be are served", || procfs::threads(server.pid()) >= 40);
    thread::sleep(Duration::from_millis(200)); // a stretch of time, in which no other thread is to come
    assert!(procfs::threads(server.pid()) <= 1 + 40, "{} threads", procfs::threads(server.pid()));
    drop(idle);
    serves_on(&mut server, "a crowd");
}

#[test]
fn r1_a_limit_that_cannot_be_reached_is_one_warning() {
    let mut low = Command::new("sh");
    low.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh"]).arg(example("torture_server"));
    let mut server = Server::start_command(low, "127.0.0.1:0", &["--max-connections", "1000"]);
    server.until_logged("max_connections is 1000, but RLIMIT_NOFILE is 64");
    serves_on(&mut server, "few descriptors");
    assert_eq!(server.stderr().iter().filter(|line| line.contains("RLIMIT_NOFILE is 64")).count(), 1);
}

/// A command for the example, with this limit on descriptors.
fn within(descriptors: u32, name: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$@\""), "sh"]).arg(example(name));
    command
}

const IN_A_LACK: [(&str, u32, &[&str]); 6] = [
    ("threading", 23, &["--max-connections", "200"]),
    ("thread-pool", 25, &["--workers", "8"]),
    // With an observer, it has a descriptor for each child; without, it cannot come into a lack.
    ("forking", 23, &["--max-connections", "200", "--observe", "yes"]),
    ("event-loop", 23, &["--max-connections", "200"]),
    ("event-loops", 23, &["--workers", "2", "--max-connections", "200"]),
    ("preforking", 51, &["--workers", "1", "--max-connections", "200"]),
];

fn start_in_a_lack((strategy, descriptors, args): (&str, u32, &[&str])) -> Server {
    let args = [&["--strategy", strategy], args].concat();
    Server::start_command(within(descriptors, "torture_server"), "127.0.0.1:0", &args)
}

/// A thread that waits, and has served before, may not keep the descriptor that the next connection needs.
#[test]
fn clients_that_come_and_go_in_a_lack_leave_a_server_that_serves() {
    for of in IN_A_LACK {
        let mut server = start_in_a_lack(of);
        for round in 0..3 {
            let mut crowd: Vec<Client> = (0..60).map(|_| server.connect()).collect();
            crowd.iter_mut().for_each(|client| client.send("ECHO in a crowd\n"));
            assert_eq!(crowd[0].line(), "in a crowd", "{of:?}");
            until("some wait", || server.queued() > 0);
            drop(crowd);
            let mut next: Vec<Client> = (0..25).map(|_| server.connect()).collect();
            next.iter_mut().for_each(|client| client.send("ECHO next\n"));
            for mut client in next {
                assert_eq!(client.line(), "next", "{of:?} in round {round}");
            }
        }
        serves_on(&mut server, of.0);
        server.term().well_within(AT_ONCE * 5);
    }
}

/// Descriptors come free as the connections in progress end, within the drain limit.
#[test]
fn a_queue_is_served_at_a_stop_in_a_lack() {
    for of in IN_A_LACK {
        let mut server = start_in_a_lack(of);
        let mut busy: Vec<Client> = (0..40).map(|_| server.connect()).collect();
        busy.iter_mut().for_each(|client| client.send("SLEEP 200\n"));
        let mut queued: Vec<Client> = (0..10).map(|_| server.connect()).collect();
        queued.iter_mut().for_each(|client| client.send("ECHO queued\n"));
        assert_eq!(busy[0].line(), "slept", "{of:?}");
        assert!(server.queued() > 10, "{of:?}: no lack");
        server.signal("TERM");
        for mut client in busy.drain(1..).chain(queued) {
            assert!(["slept", "queued"].contains(&client.line().as_str()), "{of:?}");
        }
        drop(busy);
        server.ended().well_within(AT_ONCE * 5);
        server.until_reported_without("accepted 50, served 50", &["failed", "refused"]);
    }
}

/// Each limit, from one that leaves nothing to one that suffices.
#[test]
fn too_few_descriptors_are_an_error_before_it_listens() {
    let folder = std::env::temp_dir().join(format!("socketserver-few-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let path = format!("unix:{}/socket", folder.display());
    for (strategy, args) in [
        ("sequential", &[][..]),
        ("threading", &["--max-connections", "50"]),
        ("threading", &["--as", "protocol"]),
        ("thread-pool", &["--workers", "6"]),
        ("forking", &[]),
        ("event-loop", &[]),
        ("event-loops", &["--workers", "3"]),
    ] {
        for addr in ["127.0.0.1:0", &path] {
            let mut answers = Vec::new();
            for descriptors in 6..=25 {
                let mut command = within(descriptors, "torture_server");
                command.args([addr, "--strategy", strategy]).args(args).stdin(Stdio::null());
                let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                let mut first = String::new();
                BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
                let is_served = first.strip_prefix("listening on ").map(|addr| {
                    let answer = Client::connect(addr.trim_end()).try_ask("ECHO served");
                    child.kill().unwrap();
                    answer.is_ok_and(|answer| answer == "served")
                });
                let said = support::output(child, "a server with few descriptors").stderr;
                let said = String::from_utf8_lossy(&said).into_owned();
                let is_clear = said.contains(&format!("RLIMIT_NOFILE is {descriptors}; raise it"));
                assert!(is_served.unwrap_or(is_clear), "{strategy} {addr} {descriptors}: {first}{said}");
                answers.push(is_served.is_some());
            }
            assert!(answers.is_sorted() && !answers[0] && answers[19], "{strategy} {addr}: {answers:?}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_pool_of_more_threads_than_descriptors_is_an_error_before_it_listens() {
    for strategy in [&["--strategy", "thread-pool"][..], &["--strategy", "preforking", "--inner", "thread-pool"]] {
        let mut command = within(64, "torture_server");
        command.args(["127.0.0.1:0", "--workers", "60"]).args(strategy).stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = support::output(child, "a pool of 60 threads");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("RLIMIT_NOFILE is 64") && output.stdout.is_empty(), "{strategy:?}: {said}");
        assert_eq!(output.status.code(), Some(1));
    }
}
