//! A process for each connection: what it survives, what a child has and has not, how its end is told. The server is
//! a process of its own; each test names the fault it shows.

use crate::support;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{procfs, tool, until, Client, Server, AT_ONCE};

fn start(args: &[&str]) -> Server {
    Server::start("torture_server", &[&["--strategy", "forking"], args].concat())
}

/// The process that serves this client.
fn child_of(client: &mut Client) -> u32 {
    client.ask("PID").split(' ').next().and_then(|pid| pid.parse().ok()).unwrap()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

// ---- F1-F5: fork and its end ----

#[test]
fn f1_a_failed_fork_refuses_one_connection_and_the_server_goes_on() {
    let Some(mut strace) = tool("strace") else { return };
    let server = start(&[]);
    let pid = server.pid().to_string();
    let inject = ["-qq", "-p", &pid, "-e", "trace=clone,fork,vfork,clone3", "-e"];
    let mut tracer = strace.args(inject).arg("inject=clone,clone3:error=EAGAIN:when=1..2");
    tracer = tracer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracer = tracer.spawn().unwrap();
    until("the tracer", || procfs::traced(server.pid()));
    for _ in 0..2 {
        assert_eq!(server.connect().until_closed(), b"", "refused: the end of the stream, and nothing else");
    }
    assert_eq!(server.ask("ECHO on"), "on");
    signal("INT", tracer.id());
    tracer.wait().unwrap();
    server.until_logged("Resource temporarily unavailable");
    server.until_stats("two refusals", |s| s["refused"] == 2 && s.add_up());
}

#[test]
fn f3_a_child_never_comes_back_into_the_server() {
    let path = std::env::temp_dir().join(format!("socketserver-f3-{}", std::process::id()));
    let addr = format!("unix:{}", path.display());
    let mut server = Server::start_at(&addr, "torture_server", &["--strategy", "forking"]);
    for line in ["PANIC\n", "ERROR\n", "EXIT 0\n", "CLOSE\n"] {
        let mut client = server.connect();
        client.send(line);
        client.until_closed();
    }
    assert!(path.exists(), "a child ran the destructor of the parent's listener");
    assert_eq!(server.stdout().len(), 1, "a child went on after the loop");
    assert!(server.stderr().iter().all(|line| !line.contains("accepted")), "a child reported");
    server.term().well_within(AT_ONCE);
    assert!(!path.exists());
}

#[test]
fn f4_buffered_output_is_written_once() {
    let server = Server::start("forking_server", &[]);
    for _ in 0..20 {
        assert_eq!(server.connect().until_closed(), b"Thank you for connecting\n");
    }
    until("all lines", || server.stdout().len() >= 21);
    let lines: HashSet<String> = server.stdout().into_iter().collect();
    assert_eq!(lines.len(), 21, "a line was printed twice, or none was whole: {lines:?}");
    assert!(lines.iter().filter(|l| l.starts_with("Got connection from 127.0.0.1:")).count() == 20);
}

#[test]
fn f5_two_thousand_children_leave_no_zombie_and_no_descriptor() {
    let connections = if std::env::var("SOAK").as_deref() == Ok("1") { 20_000 } else { 2_000 };
    let server = start(&[]);
    server.ask("ECHO warm");
    until("rest", || procfs::descendants(server.pid()).is_empty());
    let before = procfs::fds(server.pid());
    for _ in 0..connections / 20 {
        let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("CLOSE\n"));
        clients.iter_mut().for_each(|client| assert_eq!(client.until_closed(), b""));
    }
    until("no child, no zombie", || procfs::descendants(server.pid()).is_empty());
    until("no descriptor more", || procfs::fds(server.pid()) <= before);
    server.until_stats("an account of all", |s| s["accepted"] > connections && s["active"] == 1 && s.add_up());
}

#[test]
fn f6_an_ignored_sigchld_jams_nothing() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' CHLD; exec \"$0\" \"$@\""]).arg(support::example("torture_server"));
    let server = Server::start_command(shell, "127.0.0.1:0", &["--strategy", "forking", "--max-connections", "2"]);
    for _ in 0..20 {
        assert_eq!(server.ask("ECHO on"), "on");
    }
    let mut client = server.connect();
    client.send("ABORT\n");
    client.until_closed();
    server.until_stats("all ends", |s| s["failed"] == 1 && s["active"] == 1 && s.add_up());
}

// ---- F9-F13: what a child has ----

#[test]
fn f9_a_child_has_its_connection_and_two_control_descriptors() {
    let server = start(&[]);
    let mut others: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| assert_eq!(client.ask("ECHO on"), "on"));
    let mut client = server.connect();
    let child = child_of(&mut client);
    let files = |pid: &str| -> Vec<(u32, String)> {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let file = |path: PathBuf| {
            let target = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
            Some((path.file_name()?.to_str()?.parse().ok()?, target))
        };
        entries.filter_map(|entry| file(entry.path())).collect()
    };
    // What this process has was inherited: it is the program's own.
    let inherited: Vec<String> = files("self").into_iter().map(|(_, target)| target).collect();
    let servers = files(&child.to_string()).into_iter().filter(|(fd, target)| *fd > 2 && !inherited.contains(target));
    let mut kinds: Vec<String> = servers.map(|(_, target)| target.split(':').next().unwrap().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["pipe", "pipe", "socket"]);
}

#[test]
fn f10_the_client_sees_the_end_when_its_child_ends() {
    let server = start(&[]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    signal("KILL", child);
    let killed = Instant::now();
    client.until_closed();
    assert!(killed.elapsed() < AT_ONCE, "the parent held the connection");
}

/// The descriptor of the stop stays readable then, and each wait ended at once, for ever.
#[test]
fn a_child_whose_parent_is_killed_rests_while_it_waits_for_its_client() {
    let server = start(&[]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    signal("KILL", server.pid());
    until("the parent is gone", || matches!(procfs::state(server.pid()), None | Some('Z')));
    let before = procfs::ticks(child);
    std::thread::sleep(Duration::from_millis(500)); // a stretch of time, in which nothing is to happen
    let ticks = procfs::ticks(child) - before;
    assert!(ticks < 5, "{ticks} hundredths of a second");
    assert_eq!(client.ask("ECHO still here"), "still here");
}

#[test]
fn f11_a_signal_to_a_child_is_not_the_parents() {
    let mut server = start(&[]);
    for name in ["TERM", "USR1", "KILL"] {
        let mut client = server.connect();
        let child = child_of(&mut client);
        signal(name, child);
        client.until_closed();
        server.until_logged(&format!("was killed by SIG{name}"));
    }
    assert!(server.is_running());
    assert_eq!(server.ask("ECHO on"), "on");
    server.until_stats("three crashes", |s| s["crashed"] == 3 && s["failed"] == 3);
}

#[test]
fn f12_a_child_is_not_woken_by_the_parents_events() {
    let server = start(&[]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    let before = procfs::ticks(child);
    for _ in 0..200 {
        server.ask("ECHO on");
    }
    assert!(procfs::ticks(child) - before <= 1, "an idle child worked while others connected");
}

#[test]
fn f13_a_killed_master_leaves_its_children_their_connection_and_frees_the_port() {
    let mut server = start(&[]);
    let mut client = server.connect();
    assert_eq!(client.ask("ECHO in"), "in");
    client.send("SLEEP 200\n");
    signal("KILL", server.pid());
    server.ended();
    let again = Server::start_at(server.addr(), "torture_server", &["--strategy", "forking"]);
    assert_eq!(again.ask("ECHO on"), "on", "the port binds at once");
    assert_eq!(client.line(), "slept", "the child finishes its connection");
    assert_eq!(client.ask("ECHO still"), "still");
}

// ---- F17-F20 ----

#[test]
fn f17_a_stopped_child_is_not_a_dead_one() {
    let server = start(&[]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    signal("STOP", child);
    until("the stop", || procfs::state(child) == Some('T'));
    assert_eq!(server.stats()["active"], 2, "the stopped one, and the one that asks");
    signal("CONT", child);
    assert_eq!(client.ask("ECHO back"), "back");
}

#[test]
fn f18_children_differ_in_what_they_ask_of_the_system() {
    let server = start(&[]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    let pids: HashSet<u32> = clients.iter_mut().map(child_of).collect();
    assert_eq!(pids.len(), 3);
}

#[test]
fn f20_a_big_parent_serves_all_the_same() {
    let server = Server::start("echo_server", &["--strategy", "forking", "--heap", "64", "--mode", "greet"]);
    for _ in 0..10 {
        assert!(server.connect().rest().starts_with("Hello from the server"));
    }
}

// ---- H5-H12: what a handler does ----

/// The line that makes trouble, and what the log says of it.
const DEATHS: [(&str, &str); 5] = [
    ("ABORT", "was killed by SIGABRT"),
    ("SEGV", "was killed by SIGSEGV"),
    ("OVERFLOW", "was killed by SIG"), // ABRT where the standard library reports the overflow, SEGV where it cannot
    ("EXIT 3", "exited with 3"),
    ("PANIC", "panicked: a client asked for it"),
];

#[test]
fn h5_h6_h9_a_death_is_told_by_name_and_hurts_nobody_else() {
    let server = start(&[]);
    let mut witness = server.connect();
    for (line, told) in DEATHS {
        let mut client = server.connect();
        client.send(format!("{line}\n"));
        client.until_closed();
        server.until_logged(told);
        assert_eq!(witness.ask("ECHO well"), "well", "after {line}");
    }
    server.until_stats("five failures", |s| s["failed"] == 5 && s["crashed"] == 4 && s["panicked"] == 1);
    until("no zombie", || procfs::zombies(server.pid()) == 0);
}

#[test]
fn h7_a_spinning_handler_is_ended_at_the_request_limit() {
    let server = start(&["--request-timeout", "300"]);
    let mut witness = server.connect();
    let mut client = server.connect();
    client.send("SPIN\n");
    let began = Instant::now();
    client.until_closed();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(300) && took < Duration::from_secs(8), "ended after {took:?}");
    server.until_logged("was ended by SIGTERM at the request limit");
    assert_eq!(witness.ask("ECHO idle ones are not"), "idle ones are not");
    server.until_stats("a time-out", |s| s["timed_out"] == 1 && s["failed"] == 1);
}

#[test]
fn a_spinning_handler_is_ended_at_the_drain_limit() {
    let mut server = start(&["--drain", "300"]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    client.send("SPIN\n");
    until("work", || procfs::ticks(child) > 2);
    server.term().well_within(Duration::from_secs(4));
    assert_eq!(procfs::state(child), None);
    server.until_reported("forced 1");
}

#[test]
fn a_second_signal_takes_the_children_along() {
    let mut server = start(&["--drain", "60000"]);
    let mut client = server.connect();
    let child = child_of(&mut client);
    client.send("SPIN\n");
    server.signal_and_see_it_taken("TERM");
    assert_eq!(server.end_by_another("TERM").code(), Some(128 + 15));
    until("the child's end", || matches!(procfs::state(child), None | Some('Z')));
}

#[test]
fn h8_a_memory_hog_ends_itself_only() {
    let server = Server::start("isolation", &[]);
    let mut witness = server.connect();
    witness.line();
    let mut client = server.connect();
    client.line();
    client.send("hog\n");
    client.until_closed();
    server.until_logged("was killed by SIGABRT");
    assert!(witness.ask("well?").ends_with("is well"));
}

#[test]
fn the_isolation_example_ends_a_handler_that_spins() {
    let server = Server::start("isolation", &[]);
    let mut client = server.connect();
    client.line();
    client.send("spin\n");
    client.until_closed();
    server.until_logged("at the request limit");
}

#[test]
fn shutdown_and_counters_work_in_a_child() {
    let mut server = start(&[]);
    let mut idle = server.connect();
    assert_eq!(idle.ask("ECHO in"), "in");
    assert_eq!(server.stats()["active"], 2);
    assert_eq!(server.stats()["max_connections"], 128);
    server.connect().send("SHUTDOWN\n");
    idle.until_closed();
    server.ended().well_within(AT_ONCE);
}

#[test]
fn an_interrupt_of_the_whole_group_lets_requests_finish() {
    let mut server = start(&[]);
    let mut client = server.connect();
    assert_eq!(client.ask("ECHO in"), "in");
    client.send_and_see_it_taken("SLEEP 500\n");
    let group = format!("-{}", server.pid());
    assert!(Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap().success());
    assert_eq!(client.line(), "slept", "Ctrl-C reaches the children too");
    server.ended().well_within(AT_ONCE);
}
