//! S: what a stop meets.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socketserver::testing::TestServer;
use socketserver::{handler, ServerBuilder};

use crate::support::{example, tool, until, Client, Server, AT_ONCE, LIMIT};
use crate::{torture, ALL, CONCURRENT};

#[test]
fn s1_an_idle_server_is_gone_at_once_and_its_file_too() {
    for strategy in ALL {
        let folder = std::env::temp_dir().join(format!("socketserver-s1-{}-{strategy}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let addr = format!("unix:{}", folder.join("socket").display());
        let mut server = Server::start_at(&addr, "torture_server", &["--strategy", strategy]);
        assert_eq!(server.ask("ECHO warm"), "warm");
        server.term().well_within(AT_ONCE);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{strategy}: something is left in its folder");
        std::fs::remove_dir(&folder).unwrap();
    }
}

#[test]
fn s2_a_hundred_requests_finish() {
    for strategy in CONCURRENT {
        let mut server = torture(strategy, &["--workers", "110", "--max-connections", "110"]);
        let mut clients: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("SLEEP 1000\n"));
        server.until_stats("all are served", |s| s["active"] == 101);
        server.signal("TERM");
        clients.iter_mut().for_each(|client| assert_eq!(client.line(), "slept", "{strategy}"));
        server.ended().well_within(AT_ONCE);
        server.until_reported_without("accepted ", &["forced"]);
    }
}

#[test]
fn s3_a_late_request_is_cut_at_the_drain_limit() {
    for strategy in CONCURRENT {
        let mut server = torture(strategy, &["--drain", "200"]);
        let mut late = server.connect();
        late.send_and_see_it_taken("SLEEP 60000\n");
        let asked = Instant::now();
        server.term().well_within(AT_ONCE);
        assert!(asked.elapsed() >= Duration::from_millis(200), "{strategy}: before its time");
        server.until_logged("forced 1");
    }
}

/// The system calls of a start and a stop, in their order: each by its name, and how many of that name there were.
fn calls_of_a_start(folder: &std::path::Path) -> Vec<(String, usize)> {
    let log = folder.join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o"]).arg(&log).arg(example("torture_server"));
    let addr = format!("unix:{}", folder.join("first").display());
    let server = Server::start_command(strace, &addr, &["--strategy", "sequential"]);
    drop(server);
    let mut seen = std::collections::HashMap::<String, usize>::new();
    let text = std::fs::read_to_string(log).unwrap();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
    let is_call = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let calls = names.filter(is_call).skip(1); // the first is the exec, which strace does not count
    calls
        .map(|name| {
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            (name, *count)
        })
        .collect()
}

/// Starts a server that gets a SIGTERM at that call.
fn start_and_stop(folder: &std::path::Path, (name, nth): &(String, usize)) -> (PathBuf, Child) {
    let socket = folder.join(format!("{name}-{nth}"));
    let mut command = Command::new("strace");
    command.args(["-qq", "-o", "/dev/null", "-e"]).arg(format!("inject={name}:signal=SIGTERM:when={nth}"));
    command.arg(example("torture_server")).arg(format!("unix:{}", socket.display())).args(["--strategy", "sequential"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    (socket, command.spawn().unwrap())
}

/// SIGTERM at any system call of the start: it ends, and in order.
#[test]
fn s5_a_stop_at_any_moment_of_the_start() {
    if tool("strace").is_none() {
        return;
    }
    let step = if std::env::var_os("SOAK").is_some() { 1 } else { 5 };
    let folder = std::env::temp_dir().join(format!("socketserver-s5-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let calls: Vec<_> = calls_of_a_start(&folder).into_iter().step_by(step).collect();
    assert!(calls.len() * step > 80, "{calls:?}");
    let mut in_order = 0;
    for batch in calls.chunks(4) {
        let started: Vec<_> = batch.iter().map(|call| (call, start_and_stop(&folder, call))).collect();
        for (call, (socket, mut child)) in started {
            let ended = crate::support::comes_true(LIMIT, || child.try_wait().unwrap().is_some());
            if !ended {
                let group = nix::unistd::Pid::from_raw(child.id() as i32);
                nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
            let status = child.wait().unwrap();
            assert!(ended, "a SIGTERM at {call:?} did not end it");
            let killed = status.signal() == Some(15);
            assert!(status.success() || killed, "at {call:?}: {status:?}");
            assert!(killed || !socket.exists(), "at {call:?}: its socket is left");
            in_order += usize::from(status.success());
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(in_order > 0, "none came after the handler was installed");
}

#[test]
fn s6_a_hundred_in_the_queue_are_served_at_the_stop() {
    for strategy in CONCURRENT {
        let mut server = torture(strategy, &["--workers", "1", "--max-connections", "1"]);
        let mut first = server.connect();
        first.send_and_see_it_taken("SLEEP 500\n");
        let mut queued: Vec<Client> = (0..100).map(|_| server.connect()).collect();
        queued.iter_mut().enumerate().for_each(|(n, client)| client.send(format!("ECHO {n}\n")));
        until("all are queued", || server.queued() == 100);
        server.signal("TERM");
        assert_eq!(first.line(), "slept");
        for (n, client) in queued.iter_mut().enumerate() {
            assert_eq!(client.line(), n.to_string(), "{strategy}");
        }
        server.ended().well_within(AT_ONCE);
    }
}

/// One server, many runs. `process/leaks.rs` shows that nothing is left of any.
#[test]
fn s14_it_serves_again_and_again() {
    let mut server = ServerBuilder::new()
        .bind("127.0.0.1:0", handler(|conn| Ok(std::io::Write::write_all(conn, b"hi\n")?)))
        .unwrap();
    let (addr, handle) = (server.local_addr().to_string(), server.handle());
    for run in 0..300 {
        let client = std::thread::spawn({
            let (addr, handle) = (addr.clone(), handle.clone());
            move || {
                assert_eq!(Client::connect(&addr).line(), "hi");
                handle.shutdown();
            }
        });
        assert_eq!(server.serve_forever().unwrap().served, 1, "run {run}");
        client.join().unwrap();
    }
}

/// Two of them, side by side.
#[test]
fn s14_two_servers_of_one_process_stop_apart() {
    let answer = |text: &'static str| handler(move |conn| Ok(std::io::Write::write_all(conn, text.as_bytes())?));
    let (one, two) = (TestServer::start(answer("one\n")), TestServer::start(answer("two\n")));
    assert_eq!((one.connect().line(), two.connect().line()), ("one".to_owned(), "two".to_owned()));
    one.stop();
    assert_eq!(two.connect().line(), "two");
    two.stop();
}

#[test]
fn s15_a_stop_wakes_a_thousand_idle_readers() {
    for (strategy, count) in [("threading", 1000), ("event-loop", 4000)] {
        let limit = (count + 10).to_string();
        let mut server = torture(strategy, &["--max-connections", &limit]);
        let mut idle: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        assert_eq!(idle[count - 1].ask("ECHO all are here"), "all are here");
        server.until_stats("all are here", |s| s["active"] as usize == count + 1);
        server.term().well_within(AT_ONCE);
        assert!(idle.iter_mut().all(|client| client.until_closed().is_empty()), "{strategy}");
    }
}
