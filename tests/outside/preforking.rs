//! `PreForking` from outside, as an operator sees it.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{comes_true, example, procfs, tool, until, Client, Server, AT_ONCE};

const MS: Duration = Duration::from_millis(1);

fn start(args: &[&str]) -> Server {
    let all = [&["--strategy", "preforking", "--workers", "4"], args].concat();
    let server = Server::start("torture_server", &all);
    until("four workers are ready", || ready(&server) == 4);
    server
}

fn ready(server: &Server) -> usize {
    server.stderr().iter().filter(|line| line.contains("is ready")).count()
}

fn workers(server: &Server) -> HashSet<u32> {
    procfs::descendants(server.pid()).into_iter().filter(|pid| procfs::state(*pid) != Some('Z')).collect()
}

fn kill(signal: &str, to: &str) {
    let mut command = Command::new("sh");
    assert!(command.args(["-c", "kill -s \"$0\" -- \"$1\"", signal, to]).status().unwrap().success());
}

/// The process that serves this connection.
fn server_of(client: &mut Client) -> u32 {
    client.ask("PID").split(' ').next().unwrap().parse().unwrap()
}

/// Asks again and again, a connection each time, until it is told to stop; how many were served.
fn load(server: &Server, clients: usize, act: impl FnOnce()) -> usize {
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    assert_eq!(server.ask("ECHO under load"), "under load");
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        act();
        over.store(true, SeqCst);
    });
    served.into_inner()
}

#[test]
fn a_worker_that_dies_is_replaced_at_once() {
    let server = start(&[]);
    for command in ["EXIT 0", "EXIT 3", "ABORT", "SEGV"] {
        let (before, ready_before) = (workers(&server), ready(&server));
        server.connect().send(format!("{command}\n"));
        let began = Instant::now();
        until("a fifth becomes ready", || ready(&server) > ready_before);
        let took = began.elapsed();
        assert!(took < AT_ONCE, "{took:?} after {command}"); // the promise: 100 ms
        assert_eq!(workers(&server).difference(&before).count(), 1, "one for one");
    }
    server.until_stats("four have crashed", |s| s["crashed"] == 4 && s.add_up());
}

/// A hundred requests stand before an honest client, and each of them ends a worker. Then there is one for each worker
/// again and again.
#[test]
fn requests_that_crash_keep_no_honest_client_out() {
    let crash = |server: &Server, command: &str| {
        let mut client = server.connect();
        let _ = client.try_send(format!("{command}\n").as_bytes()); // its worker may have crashed already
        client
    };
    // A worker that crashes may take an honest client along: it tries again.
    let is_served = |server: &Server| {
        until("an honest client is served", || server.connect().try_ask("ECHO me").is_ok_and(|said| said == "me"));
    };
    for (inner, command) in [("threading", "ABORT"), ("thread-pool", "EXIT 3"), ("event-loop", "SEGV")] {
        let server = start(&["--inner", inner]);
        let storm: Vec<Client> = (0..100).map(|_| crash(&server, command)).collect();
        let began = Instant::now();
        is_served(&server);
        assert!(began.elapsed() < AT_ONCE, "{inner}: {:?} behind the storm", began.elapsed()); // the promise: 1 s
        drop(storm);
        for round in 0..10 {
            let _storm: Vec<Client> = (0..4).map(|_| crash(&server, command)).collect();
            let began = Instant::now();
            is_served(&server);
            assert!(began.elapsed() < AT_ONCE, "{inner}: {:?} in round {round}", began.elapsed());
        }
        until("there are four again", || workers(&server).len() == 4);
    }
}

/// The queue at a stop has requests that crash, and honest ones behind them.
#[test]
fn a_queue_behind_requests_that_crash_is_served_at_a_stop() {
    for (inner, command) in [("threading", "ABORT"), ("thread-pool", "EXIT 3"), ("event-loop", "SEGV")] {
        let args = ["--strategy", "preforking", "--workers", "2", "--max-connections", "2", "--inner", inner];
        let mut server = Server::start("torture_server", &args);
        let mut busy: Vec<Client> = (0..2).map(|_| server.connect()).collect();
        busy.iter_mut().for_each(|client| client.send_and_see_it_taken("SLEEP 500"));
        let mut storm: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        let mut honest: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        storm.iter_mut().for_each(|client| client.send(format!("{command}\n")));
        honest.iter_mut().for_each(|client| client.send("ECHO honest\n"));
        server.signal("TERM");
        honest.iter_mut().for_each(|client| assert_eq!(client.line(), "honest", "{inner}"));
        busy.iter_mut().for_each(|client| assert_eq!(client.line(), "slept", "{inner}"));
        drop((honest, busy, storm));
        server.ended().well_within(AT_ONCE * 5);
        server.until_logged("failed 20 (crashed 20)");
    }
}

/// Clients know which worker serves them, so a failed connection can be attributed.
#[test]
fn workers_killed_every_100_ms_take_only_their_own_connections_along() {
    let least = if std::env::var_os("SOAK").is_some() { 60_000 * MS } else { 5_000 * MS };
    let server = start(&[]);
    let (killed, unknown, served) = (Mutex::new(HashSet::new()), AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    // A busy machine takes longer for the kills that show something; the limit is ten times the time.
    let goes_on = || {
        let enough = killed.lock().unwrap().len() > 20 && served.load(SeqCst) > 100;
        began.elapsed() < least || !enough && began.elapsed() < 10 * least
    };
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while goes_on() {
                    let mut client = server.connect();
                    let Ok(said) = client.try_ask("PID").map(|said| said.split(' ').next().unwrap_or("").to_owned())
                    else {
                        unknown.fetch_add(1, SeqCst);
                        continue;
                    };
                    let Ok(pid) = said.parse::<u32>() else {
                        unknown.fetch_add(1, SeqCst);
                        continue;
                    };
                    let went_well = (0..5).all(|i| {
                        let answer = client.try_ask(&format!("SLEEP {i}"));
                        answer.is_ok_and(|answer| answer == "slept")
                    });
                    assert!(went_well || killed.lock().unwrap().contains(&pid), "{pid} failed, and nobody killed it");
                    served.fetch_add(usize::from(went_well), SeqCst);
                }
            });
        }
        let mut number = 0;
        while goes_on() {
            let mut all: Vec<u32> = workers(&server).into_iter().collect();
            all.sort_unstable();
            if let Some(pid) = all.get(number % all.len().max(1)) {
                killed.lock().unwrap().insert(*pid); // before, or a client may be faster
                kill("KILL", &pid.to_string());
            }
            number += 1;
            thread::sleep(100 * MS);
        }
    });
    let (kills, unknown) = (killed.into_inner().unwrap().len(), unknown.into_inner());
    assert!(kills > 20 && served.into_inner() > 100, "{kills} kills");
    server.until_stats("all that was lost is counted", |s| s["failed"] == s["crashed"] && s.add_up());
    // Accepted and not counted yet, or connected while nobody had been killed: one client each at the most.
    assert!(unknown as u64 <= server.stats()["crashed"] + kills as u64 * 6, "{unknown} unknown, {kills} kills");
    until("four are there again", || workers(&server).len() == 4);
}

#[test]
fn f16_a_stopped_worker_is_replaced_and_nothing_in_the_queue_is_lost() {
    // Long enough for those that are not stopped, on a busy machine.
    let server = start(&["--heartbeat", "2000"]);
    let mut held = server.connect();
    let stopped = server_of(&mut held);
    kill("STOP", &stopped.to_string());
    let began = Instant::now();
    let served = load(&server, 4, || until("the stopped one is gone", || !workers(&server).contains(&stopped)));
    let took = began.elapsed();
    assert!(took > 1500 * MS && took < AT_ONCE * 2, "{took:?} for a heartbeat of 2 s");
    assert!(served > 10);
    assert!(held.until_closed().is_empty(), "its own connection goes with it");
    until("four again", || workers(&server).len() == 4);
    server.until_stats("one was lost", |s| s["crashed"] == 1 && s.add_up());
    server.until_logged("is stuck, and was killed");
}

#[test]
fn f13_after_the_master_s_death_nobody_accepts_and_what_is_in_progress_is_finished() {
    let mut server = start(&[]);
    let mut busy = server.connect();
    busy.send_and_see_it_taken("SLEEP 1500");
    let mut idle = server.connect();
    assert_eq!(idle.ask("ECHO here"), "here");
    let orphans = workers(&server);
    server.signal("KILL");
    server.ended();
    let began = Instant::now();
    until("nobody accepts", || TcpStream::connect(server.addr()).is_err());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed()); // the promise: 1 s
    assert_eq!(idle.rest(), "", "an idle client is sent away");
    let next = Server::start_at(server.addr(), "torture_server", &["--strategy", "preforking"]);
    assert_eq!(next.ask("ECHO the port is free"), "the port is free");
    assert_eq!(busy.line(), "slept");
    drop(busy);
    until("the orphans end", || orphans.iter().all(|pid| procfs::state(*pid).is_none_or(|state| state == 'Z')));
}

/// One of them hears of it first, and shuts the listener for all.
#[test]
fn f13_the_log_of_each_orphan_says_that_its_master_is_gone() {
    for inner in ["threading", "thread-pool", "event-loop", "event-loops"] {
        let mut server = start(&["--inner", inner]);
        let orphans = workers(&server);
        server.signal("KILL");
        server.ended();
        server.until_all_is_read();
        for pid in orphans {
            let told = format!("(process {pid}) serves what it has and ends: its master is gone");
            let count = server.stderr().iter().filter(|line| line.contains(&told)).count();
            assert_eq!(count, 1, "{inner}: {:?}", server.stderr());
        }
        assert!(!server.stderr().iter().any(|line| line.contains("gave up")), "{inner}: {:?}", server.stderr());
    }
}

/// Nobody is left to kill it, so it is killed by a timer of its own.
#[test]
fn f13_an_orphan_that_spins_ends_after_its_drain_limit() {
    for inner in ["threading", "event-loop", "event-loops"] {
        let mut server = start(&["--inner", inner, "--drain", "300"]);
        server.connect().send_and_see_it_taken("SPIN");
        let orphans = workers(&server);
        server.signal("KILL");
        server.ended();
        until("the orphans end", || orphans.iter().all(|pid| procfs::state(*pid).is_none_or(|state| state == 'Z')));
    }
}

#[test]
fn f13_the_file_of_a_unix_socket_is_free_after_the_master_s_death() {
    let path = std::env::temp_dir().join(format!("socketserver-orphans-{}", std::process::id()));
    let addr = format!("unix:{}", path.display());
    let mut server = Server::start_at(&addr, "torture_server", &["--strategy", "preforking", "--workers", "2"]);
    let mut busy = server.connect();
    assert_eq!(busy.ask("ECHO here"), "here");
    busy.send("SLEEP 2000\n");
    thread::sleep(500 * MS); // a quarter of its time: nothing shows from outside that a Unix client has been read
    server.signal("KILL");
    server.ended();
    until("nobody accepts", || UnixStream::connect(&path).is_err());
    // The first worker to hear of it ends the listening for all; each lets go of its own descriptor in its own time.
    let let_go = || UnixDatagram::unbound().unwrap().connect(&path).unwrap_err().kind() == ErrorKind::ConnectionRefused;
    until("nobody has the socket", let_go);
    let next = Server::start_at(&addr, "torture_server", &["--strategy", "preforking"]);
    assert_eq!(next.ask("ECHO again"), "again");
    assert_eq!(busy.line(), "slept");
    drop(next);
    let _ = fs::remove_file(&path); // it was killed
    let _ = fs::remove_file(path.with_extension("lock"));
    let _ = fs::remove_file(format!("{}.lock", path.display()));
}

#[test]
fn f22_workers_are_recycled_under_load_and_no_request_fails() {
    let mut server = start(&["--max-requests", "40"]);
    let first = workers(&server);
    load(&server, 4, || until("all have gone, some twice", || ready(&server) > 12));
    assert!(workers(&server).is_disjoint(&first));
    server.until_stats("none has failed", |s| s["failed"] == 0 && s["disconnected"] == 0 && s.add_up());
    server.term().well_within(AT_ONCE);
    server.until_reported_without("accepted ", &["failed", "disconnected", "refused"]);
}

#[test]
fn sighup_replaces_all_workers_one_after_another_and_no_request_fails() {
    let server = start(&[]);
    let (before, master) = (workers(&server), server.ask("MASTER"));
    let mut stays = server.connect();
    stays.send_and_see_it_taken("SLEEP 700");
    let mut most = 0;
    load(&server, 3, || {
        server.signal("HUP");
        until("four others", || {
            let now = workers(&server);
            most = most.max(ready(&server) - 4);
            ready(&server) == 8 && now.difference(&before).count() == 4
        });
    });
    assert_eq!(stays.line(), "slept", "what was in progress is finished");
    drop(stays);
    until("the old ones are gone", || workers(&server).is_disjoint(&before));
    assert_eq!(server.ask("MASTER"), master);
    server.until_stats("none has failed", |s| s["failed"] == 0 && s.add_up());
}

#[test]
fn sigttin_and_sigttou_change_how_many_workers_there_are() {
    let server = start(&[]);
    server.signal("TTIN");
    until("five", || workers(&server).len() == 5);
    for fewer in (1..5).rev() {
        server.signal("TTOU");
        until("one less", || workers(&server).len() == fewer);
    }
    let last = workers(&server);
    server.signal("TTOU");
    server.until_logged("1 workers from now on");
    assert_eq!(server.ask("ECHO one is left"), "one is left");
    assert_eq!(workers(&server), last, "never none");
}

#[test]
fn a_worker_that_gets_sigterm_is_replaced_before_it_goes() {
    let server = start(&[]);
    let mut client = server.connect();
    let pid = server_of(&mut client);
    client.send_and_see_it_taken("SLEEP 300");
    load(&server, 2, || {
        kill("TERM", &pid.to_string());
        until("it is replaced", || ready(&server) == 5 && !workers(&server).contains(&pid));
    });
    assert_eq!(client.line(), "slept");
    server.until_stats("none has failed", |s| s["failed"] == 0 && s.add_up());
}

/// As systemd and a terminal do it: all processes get the signal at once.
#[test]
fn a_signal_to_the_whole_group_drains_as_one_to_the_master() {
    for signal in ["TERM", "INT"] {
        let mut server =
            Server::start("torture_server", &["--strategy", "preforking", "--workers", "2", "--max-connections", "2"]);
        let mut busy: Vec<Client> = (0..2).map(|_| server.connect()).collect();
        busy.iter_mut().for_each(|client| client.send_and_see_it_taken("SLEEP 500"));
        let mut queued: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        queued.iter_mut().for_each(|client| client.send("ECHO queued\n"));
        until("three wait", || server.queued() == 3);
        kill(signal, &format!("-{}", server.pid()));
        busy.iter_mut().for_each(|client| assert_eq!(client.line(), "slept"));
        queued.iter_mut().for_each(|client| assert_eq!(client.line(), "queued"));
        drop((busy, queued));
        server.ended().well_within(AT_ONCE);
        server.until_reported_without("accepted 5, served 5", &["failed"]);
    }
}

#[test]
fn a_drain_ends_at_its_limit_for_all_workers_stuck_ones_too() {
    let mut server = start(&["--drain", "500", "--inner", "event-loop"]);
    let mut spins = server.connect();
    spins.send_and_see_it_taken("SPIN");
    let mut slow = server.connect();
    slow.send_and_see_it_taken("SLEEP 20000");
    let ended = server.term();
    ended.well_within(5000 * MS);
    assert!(ended.after > 450 * MS, "{:?}", ended.after);
    server.until_logged("forced 2");
}

#[test]
fn every_inner_engine_serves() {
    for inner in ["threading", "thread-pool", "event-loop"] {
        let mut server = Server::start("preforking_server", &["--workers", "3", "--inner", inner]);
        let pid = server.pid().to_string();
        for _ in 0..30 {
            let greeting = server.connect().rest();
            assert!(greeting.starts_with("Thank you for connecting to process "), "{greeting:?}");
            assert!(!greeting.contains(&format!(" {pid}\n")), "the master serves nobody");
        }
        let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned();
        // One that has served nobody yet may just begin.
        until("each worker has its name", || {
            workers(&server).iter().map(name).collect::<HashSet<_>>() == (0..3).map(|i| format!("worker-{i}")).collect()
        });
        server.term().well_within(AT_ONCE);
        server.until_reported_without("accepted 30, served 30", &["failed"]);
    }
}

#[test]
fn idle_workers_and_their_master_use_no_time() {
    let server = start(&[]);
    let all = |server: &Server| workers(server).into_iter().chain([server.pid()]).map(procfs::ticks).sum::<u64>();
    let before = all(&server);
    thread::sleep(1000 * MS);
    assert!(all(&server) - before <= 10, "two hundredths of a second each");
}

/// With one client at a time nobody else's connection wakes a worker up that has missed one.
#[test]
fn f22_recycling_with_a_single_client_keeps_nobody_waiting() {
    for inner in ["threading", "thread-pool", "event-loop"] {
        let server = start(&["--inner", inner, "--max-requests", "1"]);
        for i in 0..200 {
            let began = Instant::now();
            assert_eq!(server.ask(&format!("ECHO {i}")), i.to_string());
            assert!(began.elapsed() < AT_ONCE, "{inner}: {:?} for request {i}", began.elapsed());
        }
    }
}

#[test]
fn a_signal_that_is_like_that_of_the_master_s_death_is_nothing() {
    let server = start(&[]);
    let before = workers(&server);
    before.iter().for_each(|pid| kill("IO", &pid.to_string()));
    (0..20).for_each(|i| assert_eq!(server.ask(&format!("ECHO {i}")), i.to_string()));
    assert_eq!(workers(&server), before);
}

/// With `stty tostop` the terminal sends SIGTTOU for each line that a job in the background writes.
#[test]
fn in_the_background_of_a_terminal_it_serves_and_does_not_spin() {
    let (Some(_), Some(_), mut shell) = (tool("script"), tool("setpriv"), Command::new("sh")) else { return };
    let job = "stty tostop; set -m; setpriv --pdeathsig KILL $0 $* & wait"; // it ends with its terminal
    shell.args(["-c", &format!("exec script -qec \"{job}\" /dev/null")]).arg(example("torture_server"));
    let server = Server::start_command(shell, "127.0.0.1:0", &["--strategy", "preforking", "--workers", "2"]);
    let master: u32 = server.ask("MASTER").parse().unwrap();
    let counts = |count: &str| server.stdout().iter().any(|line| line.contains(count));
    let before = procfs::ticks(master);
    thread::sleep(1000 * MS); // a stretch of time, in which nothing is to happen
    assert!(procfs::ticks(master) - before < 30, "it spins"); // of 100 in a second
    assert!(!counts("from now on"), "what the terminal sends is no wish: {:?}", server.stdout());
    for (signal, count) in [("TTIN", "3 workers from now on"), ("TTOU", "2 workers from now on")] {
        // Again where nothing comes of it: a signal is lost beside one of its kind that is pending, as the terminal's is.
        until(count, || {
            kill(signal, &master.to_string());
            comes_true(500 * MS, || counts(count))
        });
    }
    kill("TERM", &master.to_string());
    until("it ends", || procfs::state(master).is_none_or(|state| state == 'Z'));
}
