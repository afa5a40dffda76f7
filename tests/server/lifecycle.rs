//! A server's life: stops, waits, pauses, limits that change, and an account that adds up.

use crate::kit;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{concurrent, connect, expect, ms, read_all, serve, strategies, until, Lines, LONG};
use crate::support::{queues, AT_ONCE};
use socketserver::{handler, Connection, Error, HandlerResult, Limit, Report, ServerBuilder, ServerHandle};

const ANY: &str = "127.0.0.1:0";
/// A drain limit that no test is to reach.
const FAR: Duration = Duration::from_secs(3600);

fn adds_up(report: &Report) {
    let ended = report.served + report.failed + report.disconnected + report.refused;
    assert_eq!(report.accepted, ended + report.abandoned, "{report}");
}

#[test]
fn a_stop_before_serving_is_not_forgotten() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        server.handle().shutdown();
        server.handle().shutdown();
        assert_eq!(server.serve_forever().unwrap(), Report::default(), "{name}");
    }
}

#[test]
fn a_late_stop_does_not_end_the_next_run() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        server.handle().shutdown();
        server.serve_forever().unwrap();
        server.handle().shutdown(); // Python's next serve_forever would return at once
        let server = serve(server);
        assert_eq!(server.ask("hello\n"), "hello\n", "{name}");
        assert!(!server.handle.is_shutting_down());
        assert_eq!(server.stop().served, 1, "{name}");
    }
}

#[test]
fn any_number_of_stops_from_any_number_of_threads_is_one() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
        assert_eq!(server.ask("hello\n"), "hello\n");
        let stops: Vec<_> = (0..8)
            .map(|_| {
                let handle = server.handle.clone();
                thread::spawn(move || (0..100).for_each(|_| handle.shutdown()))
            })
            .collect();
        stops.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(server.join().served, 1, "{name}");
    }
}

#[test]
fn a_stop_from_a_handler_lets_that_handler_finish() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).drain_timeout(FAR);
        let server = serve(server.bind(ANY, Lines).unwrap());
        let mut client = server.connect();
        client.write_all(b"before\nstop\nafter\n").unwrap();
        assert_eq!(read_all(&mut client), "before\nafter\n", "{name}");
        let report = server.join();
        assert_eq!((report.served, report.drained, report.forced), (1, 1, 0), "{name}: {report}");
    }
}

#[test]
fn a_stop_ends_the_wait_for_a_request_like_an_end_of_stream() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).drain_timeout(FAR);
        let greet = handler(|conn| {
            writeln!(conn, "hello")?;
            while conn.next_request()? {
                conn.next_line()?;
            }
            Ok(writeln!(conn, "good bye")?)
        });
        let server = serve(server.bind(ANY, greet).unwrap());
        let count = if name == "Sequential" { 1 } else { 4 };
        let mut idlers: Vec<_> = (0..count).map(|_| server.connect()).collect();
        idlers.iter_mut().for_each(|idler| expect(idler, "hello\n"));
        server.handle.shutdown();
        idlers.iter_mut().for_each(|idler| assert_eq!(read_all(idler), "good bye\n", "{name}"));
        let report = server.join();
        assert_eq!((report.served, report.drained, report.forced), (count, count, 0), "{name}: {report}");
    }
}

/// What the client has sent has been read, and so its request is in progress.
fn until_read(client: &std::net::TcpStream) {
    let (ours, theirs) = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    until("the server reads it", || queues::unread(theirs, ours) == Some(0));
}

#[test]
fn a_request_in_progress_is_finished() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).drain_timeout(FAR);
        let server = serve(server.bind(ANY, Lines).unwrap());
        let mut client = server.connect();
        client.write_all(b"begun\nhalf").unwrap();
        expect(&mut client, "begun\n");
        until_read(&client);
        server.handle.shutdown();
        thread::sleep(ms(50));
        assert!(!server.has_ended(), "{name}");
        client.write_all(b" and half\n").unwrap();
        assert_eq!(read_all(&mut client), "half and half\n", "{name}");
        assert_eq!(server.join().served, 1, "{name}");
    }
}

#[test]
fn clients_in_the_kernel_s_queue_are_served_before_the_end() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).drain_timeout(FAR).bind(ANY, Lines).unwrap();
        let addr = server.local_addr().socket_addr().unwrap();
        let mut clients: Vec<_> = (0..20).map(|_| connect(addr)).collect();
        clients.iter_mut().for_each(|client| client.write_all(b"queued\nquit\n").unwrap());
        server.handle().shutdown();
        let report = serve(server).join();
        clients.iter_mut().for_each(|client| assert_eq!(read_all(client), "queued\n", "{name}"));
        assert_eq!((report.accepted, report.served), (20, 20), "{name}: {report}");
    }
}

/// Waits within a request, for a client that sends nothing more.
fn stuck(conn: &mut Connection) -> HandlerResult {
    writeln!(conn, "here")?;
    conn.next_request()?;
    let error = conn.next_line().expect_err("the cut");
    assert_eq!(Limit::of(&error), Some(Limit::Drain), "{error}");
    Err(error.into())
}

fn stop_a_stuck_one(limit: Duration, stop: fn(&ServerHandle)) {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).drain_timeout(limit);
        let server = serve(server.bind(ANY, handler(stuck)).unwrap());
        let mut client = server.connect();
        client.write_all(b"half a request").unwrap();
        expect(&mut client, "here\n");
        until_read(&client);
        let since = Instant::now();
        stop(&server.handle);
        let report = server.join();
        assert!(since.elapsed() < AT_ONCE, "{name}: {:?}", since.elapsed());
        let counts = (report.failed, report.forced, report.drained, report.abandoned);
        assert_eq!(counts, (1, 1, 0, 0), "{name}: {report}");
        adds_up(&report);
    }
}

#[test]
fn at_the_drain_limit_the_rest_is_cut() {
    stop_a_stuck_one(ms(100), ServerHandle::shutdown);
}

#[test]
fn a_drain_limit_of_zero_cuts_at_once() {
    stop_a_stuck_one(ms(0), ServerHandle::shutdown);
}

#[test]
fn shutdown_now_cuts_at_once() {
    stop_a_stuck_one(FAR, ServerHandle::shutdown_now);
}

#[test]
fn shutdown_now_hastens_a_drain() {
    stop_a_stuck_one(FAR, |handle| {
        handle.shutdown();
        thread::sleep(ms(50));
        handle.shutdown_now();
    });
}

#[test]
fn a_handler_that_ignores_the_stop_is_left_behind_and_counted() {
    for (name, strategy) in concurrent() {
        let release = Arc::new(AtomicBool::new(false));
        let theirs = release.clone();
        let deaf = handler(move |conn| {
            writeln!(conn, "here")?;
            conn.flush()?;
            until("released", || theirs.load(SeqCst));
            Ok(())
        });
        let server = serve(ServerBuilder::new().strategy(strategy).drain_timeout(ms(100)).bind(ANY, deaf).unwrap());
        let handle = server.handle.clone();
        let mut client = server.connect();
        expect(&mut client, "here\n");
        let since = Instant::now();
        let report = server.stop();
        assert!(since.elapsed() < AT_ONCE, "{name}: {:?}", since.elapsed());
        assert_eq!((report.abandoned, report.forced, report.served), (1, 1, 0), "{name}: {report}");
        adds_up(&report);
        assert_eq!(read_all(&mut client), "", "{name}: its connection has been cut");
        release.store(true, SeqCst);
        until("it ends after all", || handle.stats().active == 0);
    }
}

#[test]
fn waiting_for_the_end_has_a_limit_of_its_own() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
        let handle = server.handle.clone();
        assert_eq!(server.ask("hello\n"), "hello\n");
        assert!(!handle.wait(Some(ms(20))).unwrap(), "{name}: it serves");
        let waits = thread::spawn(move || handle.wait(None).unwrap());
        server.handle.shutdown();
        assert!(waits.join().unwrap());
        assert!(server.handle.wait(Some(LONG)).unwrap(), "{name}: it has ended");
        assert!(server.handle.wait(Some(Duration::MAX)).unwrap(), "{name}: an endless limit is no overflow");
    }
}

#[test]
fn a_handler_cannot_wait_for_its_own_server_but_for_another() {
    for (name, strategy) in strategies() {
        let other = ServerBuilder::new().bind(ANY, Lines).unwrap().handle();
        let own = handler(move |conn| {
            let refused = matches!(conn.server().wait(None), Err(Error::WaitInHandler));
            Ok(write!(conn, "{refused} {}", other.wait(Some(ms(10)))?)?)
        });
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, own).unwrap());
        assert_eq!(read_all(&mut server.connect()), "true true", "{name}");
    }
}

#[test]
fn while_paused_clients_wait_and_connections_go_on() {
    for (name, strategy) in concurrent() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
        let mut old = server.connect();
        old.write_all(b"1\n").unwrap();
        expect(&mut old, "1\n");
        server.handle.pause();
        assert!(server.handle.is_paused());
        let mut new: Vec<_> = (0..3).map(|_| server.connect()).collect();
        new.iter_mut().for_each(|client| client.write_all(b"new\nquit\n").unwrap());
        old.write_all(b"2\n").unwrap();
        expect(&mut old, "2\n");
        thread::sleep(ms(50));
        assert_eq!(server.handle.stats().accepted, 1, "{name}");
        server.handle.resume();
        new.iter_mut().for_each(|client| assert_eq!(read_all(client), "new\n", "{name}"));
    }
}

#[test]
fn a_paused_server_can_be_stopped() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).drain_timeout(FAR).bind(ANY, Lines).unwrap());
        server.handle.pause();
        let _waits = server.connect();
        thread::sleep(ms(20));
        assert_eq!(server.stop().served, 0, "{name}");
    }
}

/// How many were served at once, at most, when all clients came at once.
fn most_at_once(limit: usize, change: impl Fn(&ServerHandle)) -> usize {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (now.clone(), most.clone());
    let busy = handler(move |_| {
        m.fetch_max(n.fetch_add(1, SeqCst) + 1, SeqCst);
        thread::sleep(ms(5));
        n.fetch_sub(1, SeqCst);
        Ok(())
    });
    let server = serve(ServerBuilder::new().max_connections(limit).bind(ANY, busy).unwrap());
    change(&server.handle);
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(kit::read(client, &mut [0]).unwrap(), 0));
    let report = server.stop();
    assert_eq!(report.served, 60);
    adds_up(&report);
    most.load(SeqCst)
}

#[test]
fn the_connection_limit_is_exact() {
    assert_eq!(most_at_once(1, |_| ()), 1);
    assert!(most_at_once(3, |_| ()) <= 3);
}

#[test]
fn the_limit_is_lowered_and_raised_while_serving() {
    assert_eq!(most_at_once(50, |handle| handle.set_max_connections(1).unwrap()), 1);
    let server = serve(ServerBuilder::new().max_connections(1).bind(ANY, Lines).unwrap());
    let (mut first, mut second) = (server.connect(), server.connect());
    first.write_all(b"1\n").unwrap();
    expect(&mut first, "1\n");
    second.write_all(b"2\n").unwrap();
    server.handle.set_max_connections(2).unwrap();
    expect(&mut second, "2\n");
    assert_eq!((server.handle.stats().active, server.handle.stats().max_connections), (2, 2));
    server.handle.set_max_connections(1).unwrap(); // cuts nobody
    first.write_all(b"3\n").unwrap();
    expect(&mut first, "3\n");
}

#[test]
fn the_account_adds_up_and_is_that_of_one_run() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
        for run in 1..=2 {
            let clients = thread::spawn(move || {
                for text in ["fine\n", "fail\n", "panic\n", "half a line", "fine\nquit\n"] {
                    kit::ask(addr, text);
                }
            });
            let stops = thread::spawn({
                let handle = handle.clone();
                move || {
                    until("all are counted", || handle.stats().accepted == run * 5 && handle.stats().active == 0);
                    handle.shutdown();
                }
            });
            let report = server.serve_forever().unwrap();
            clients.join().unwrap();
            stops.join().unwrap();
            let counts = (report.accepted, report.served, report.failed, report.disconnected, report.refused);
            assert_eq!(counts, (5, 2, 2, 1, 0), "{name}, run {run}: {report}");
            let stats = handle.stats();
            assert_eq!((stats.served, stats.failed, stats.panicked), (2 * run, 2 * run, run), "{name}: {stats}");
        }
    }
}
