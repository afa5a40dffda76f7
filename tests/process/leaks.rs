//! Nothing is left behind, and nothing turns in circles: descriptors, threads, processor time.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Duration;

use crate::kit::{ask, descriptors, ms, serve, strategies, threads_named, until, Lines, LONG};
use socketserver::{handler, ServerBuilder, Threading};

const ANY: &str = "127.0.0.1:0";

/// Processor time that the threads of this name have used.
fn processor_time(name: &str) -> Duration {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        if fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            nanos += stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanos)
}

#[test]
fn a_hundred_runs_leave_nothing_behind() {
    alone!();
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
        let before = descriptors();
        for run in 0..100 {
            let client = thread::spawn(move || ask(addr, "hello\nstop\n"));
            assert_eq!(server.serve_forever().unwrap().served, 1, "{name}, run {run}");
            assert_eq!(client.join().unwrap(), "hello\n", "{name}, run {run}");
        }
        until("the descriptors are back", || descriptors() <= before);
        until("the threads are gone", || threads_named("threading") + threads_named("thread-pool") == 0);
        assert_eq!(handle.stats().active, 0, "{name}");
    }
}

#[test]
fn a_dropped_server_leaves_nothing_behind() {
    alone!();
    let before = descriptors();
    for (_, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).listen(ANY).bind(ANY, Lines).unwrap();
        let server = serve(server);
        let idle = server.connect();
        assert!(idle.peer_addr().is_ok());
        drop(server);
    }
    drop(ServerBuilder::new().bind(ANY, Lines).unwrap()); // it never served
    until("the descriptors are back", || descriptors() <= before);
}

#[test]
fn single_requests_leave_nothing_behind() {
    alone!();
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let addr = server.local_addr().socket_addr().unwrap();
        let before = descriptors();
        for _ in 0..50 {
            let client = thread::spawn(move || ask(addr, "hello\n"));
            assert!(server.handle_request(Some(LONG)).unwrap(), "{name}");
            assert_eq!(client.join().unwrap(), "hello\n", "{name}");
        }
        until("the descriptors are back", || descriptors() <= before);
    }
}

/// Whenever a stop comes, be it as a run begins or ends: every run ends, promptly.
#[test]
fn stops_at_any_moment_end_every_run() {
    alone!();
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let (handle, over) = (server.handle(), Arc::new(AtomicBool::new(false)));
        let hammer = thread::spawn({
            let over = over.clone();
            move || {
                while !over.load(SeqCst) {
                    handle.shutdown();
                    thread::yield_now();
                }
            }
        });
        let (tell, told) = mpsc::channel();
        let runs = thread::spawn(move || (0..200).for_each(|_| tell.send(server.serve_forever().is_ok()).unwrap()));
        for run in 0..200 {
            assert_eq!(told.recv_timeout(LONG), Ok(true), "{name}, run {run}");
        }
        over.store(true, SeqCst);
        hammer.join().unwrap();
        runs.join().unwrap();
    }
}

#[test]
fn a_server_without_clients_uses_no_processor() {
    alone!();
    for (_, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let handle = server.handle();
        let run = thread::Builder::new().name("idle-server".into());
        let run = run.spawn(move || server.serve_forever().unwrap()).unwrap();
        assert_idle(&["idle-server", "threading", "thread-pool"]);
        handle.shutdown();
        run.join().unwrap();
    }
}

#[test]
fn a_thread_that_need_not_be_kept_waits_without_turning() {
    alone!();
    let strategy = Threading::new().keep_alive(Duration::ZERO).thread_name("unkept");
    let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
    assert_eq!(server.ask("hello\n"), "hello\n");
    assert_idle(&["unkept"]);
}

#[test]
fn a_full_or_paused_server_waits_without_turning() {
    alone!();
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).max_connections(1).bind(ANY, Lines).unwrap();
        let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
        let run = thread::Builder::new().name("full-server".into());
        let run = run.spawn(move || server.serve_forever().unwrap()).unwrap();
        let _first = crate::kit::connect(addr);
        until("it is full", || handle.stats().active == 1);
        let _second = crate::kit::connect(addr);
        assert_idle(&["full-server", "threading", "thread-pool"]);
        handle.pause();
        drop(_first);
        until("it is empty", || handle.stats().active == 0);
        assert_idle(&["full-server", "threading", "thread-pool"]);
        handle.shutdown();
        assert_eq!(run.join().unwrap().served, 1, "{name}");
    }
}

#[test]
fn a_reader_waits_without_turning_after_messages_from_threads() {
    alone!();
    let (lend, lent) = mpsc::channel();
    let listen = handler(move |conn| {
        lend.send(conn.writer()?)?;
        Ok(conn.next_request().map(drop)?)
    });
    let strategy = Threading::new().thread_name("listening");
    let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, listen).unwrap());
    let mut client = server.connect();
    let writer = lent.recv_timeout(LONG).unwrap();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let writer = writer.clone();
            thread::spawn(move || (0..2000).for_each(|_| writer.send(*b"x").unwrap()))
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    crate::kit::expect(&mut client, &"x".repeat(8000));
    assert_idle(&["listening"]);
}

/// A turning thread uses all of the processor, a waiting one nothing.
fn assert_idle(names: &[&str]) {
    thread::sleep(ms(20));
    let used = || names.iter().map(|name| processor_time(name)).sum::<Duration>();
    let before = used();
    thread::sleep(ms(200));
    let spent = used().saturating_sub(before);
    assert!(spent < ms(20), "{names:?} used {spent:?} of 200 ms");
}
