//! Connections that are parked between two requests: they have no thread.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::kit::{connect, expect, ms, read_all, serve, until, AnyStrategy, Running, LONG};
use crate::{line, Talker, ANY};
use socketserver::connection::ConnectionWriter;
use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{
    per_request, sessions, AtLimit, Connection, HandlerResult, Next, Sequential, ServerBuilder, Session, ThreadPool,
    Threading,
};

/// A strategy of a user: a thread for each request.
struct ThreadEach;

impl ServingStrategy for ThreadEach {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        thread::spawn(move || request.run());
        Ok(())
    }

    fn parks(&self) -> bool {
        true
    }
}

pub fn parking() -> Vec<(&'static str, AnyStrategy)> {
    vec![
        ("ThreadPool", Box::new(ThreadPool::new(2))),
        ("Threading", Box::new(Threading::new())),
        ("Sequential", Box::new(Sequential)),
        ("ThreadEach", Box::new(ThreadEach)),
    ]
}

fn lines(strategy: impl ServingStrategy + 'static) -> Running {
    serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(line)).unwrap())
}

pub fn talkers(server: &Running, count: usize) -> Vec<Talker> {
    (0..count).map(|_| Talker::to(server)).collect()
}

pub fn until_parked(server: &Running, count: usize) {
    until("they are parked", || server.handle.stats().parked == count);
}

#[test]
fn more_clients_stay_than_there_are_threads() {
    for (name, strategy) in parking() {
        let server = lines(strategy);
        let mut clients = talkers(&server, 50);
        for round in 0..3 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.echo(&format!("{round} {number}"));
            }
        }
        until_parked(&server, 50);
        assert_eq!(server.handle.stats().active, 50, "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.drained, report.forced), (50, 50, 0), "{name}: {report}");
        clients.iter_mut().for_each(|client| assert_eq!(client.hear(), "", "{name}"));
    }
}

#[test]
fn a_client_that_says_nothing_is_parked_too() {
    for (name, strategy) in parking() {
        let server = lines(strategy);
        let silent = talkers(&server, 20);
        until_parked(&server, 20);
        Talker::to(&server).echo("served");
        drop(silent);
        until("all have ended", || server.handle.stats().active == 0);
        assert_eq!(server.stop().served, 21, "{name}");
    }
}

#[test]
fn its_default_limit_is_that_of_descriptors() {
    let limit = |strategy: AnyStrategy| {
        let server = ServerBuilder::new().strategy(strategy).bind(ANY, per_request(line)).unwrap();
        server.handle().stats().max_connections
    };
    let descriptors = rlimit();
    for (name, strategy) in parking() {
        assert_eq!(limit(strategy), descriptors - 64, "{name}");
    }
    let own =
        ServerBuilder::new().strategy(ThreadPool::new(2)).max_connections(7).bind(ANY, per_request(line)).unwrap();
    assert_eq!(own.handle().stats().max_connections, 7);
}

fn rlimit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for (name, strategy) in parking() {
        let server = lines(strategy);
        let mut client = connect(server.addr());
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        let (mut to, said) = (client.try_clone().unwrap(), text.clone());
        let sender = thread::spawn(move || {
            for piece in said.as_bytes().chunks(977) {
                std::io::Write::write_all(&mut to, piece).unwrap();
            }
        });
        expect(&mut client, &text);
        sender.join().unwrap();
        drop(client);
        assert_eq!(server.stop().served, 1, "{name}");
    }
}

#[test]
fn the_end_of_the_stream_and_a_reset_end_a_parked_connection() {
    for (name, strategy) in parking() {
        let server = lines(strategy);
        for _ in 0..20 {
            let mut client = Talker::to(&server);
            client.echo("one");
            client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut client.0), "", "{name}");
            let mut client = Talker::to(&server);
            client.echo("one");
            reset(client);
        }
        until("all have ended", || server.handle.stats().active == 0);
        let report = server.stop();
        assert_eq!((report.failed, report.served + report.disconnected), (0, 40), "{name}");
    }
}

/// Closes by a reset.
fn reset(client: Talker) {
    let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(client.0.get_ref(), nix::sys::socket::sockopt::Linger, &at_once).unwrap();
}

#[test]
fn the_idle_limit_ends_a_parked_connection() {
    for (name, strategy) in parking() {
        let builder = ServerBuilder::new().strategy(strategy).idle_timeout(ms(400));
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut silent = talkers(&server, 20);
        silent.iter_mut().take(10).for_each(|client| client.echo("once"));
        silent.iter_mut().for_each(|client| assert_eq!(client.hear(), "", "{name}"));
        until("it is counted", || server.handle.stats().timed_out == 20);
        let report = server.stop();
        assert_eq!((report.failed, report.served), (20, 0), "{name}");
    }
}

/// A connection sets its own limit.
#[test]
fn a_handler_may_change_the_limit() {
    let server = ServerBuilder::new().strategy(ThreadPool::new(1)).idle_timeout(ms(200));
    let patient = per_request(|conn| {
        conn.set_idle_timeout(None);
        line(conn)
    });
    let server = serve(server.bind(ANY, patient).unwrap());
    let mut client = Talker::to(&server);
    client.echo("stays");
    let mut silent = Talker::to(&server);
    assert_eq!(silent.hear(), "", "the server's limit has passed");
    client.echo("is still here");
}

#[test]
fn a_lost_wake_up_would_show_under_load() {
    for (name, strategy) in parking() {
        let builder = ServerBuilder::new().strategy(strategy).max_connections(8).idle_timeout(LONG);
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        thread::scope(|scope| {
            for seed in 0..16_u64 {
                let server = &server;
                scope.spawn(move || talk_at_random(server, seed));
            }
        });
        until("all have ended", || server.handle.stats().active == 0);
        let report = server.stop();
        assert_eq!(report.failed, 0, "{name}: {report}");
    }
}

fn talk_at_random(server: &Running, seed: u64) {
    let mut state = seed + 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..6 {
        let mut client = Talker::to(server);
        for _ in 0..random(30) {
            match random(3) {
                0 => {
                    client.say("1\n2\n");
                    assert_eq!((client.hear(), client.hear()), ("1\n".into(), "2\n".into()));
                }
                1 => {
                    client.say("ha");
                    assert_eq!(client.ask("lf"), "half\n");
                }
                _ => client.echo("x"),
            }
        }
    }
}

/// Clients that never stop talking keep nobody out.
#[test]
fn newcomers_are_served_beside_busy_clients() {
    for (name, strategy) in parking() {
        let server = lines(strategy);
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut client = connect(server.addr());
                    let text = "x\n".repeat(64);
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        std::io::Write::write_all(&mut client, text.as_bytes()).unwrap();
                        expect(&mut client, &text);
                    }
                });
            }
            for _ in 0..20 {
                Talker::to(&server).echo("new");
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        assert_eq!(server.stop().served, 24, "{name}");
    }
}

#[test]
fn at_the_limit_newcomers_wait_and_the_parked_are_served() {
    for (name, strategy) in parking() {
        let builder = ServerBuilder::new().strategy(strategy).max_connections(4);
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut inside = talkers(&server, 4);
        inside.iter_mut().for_each(|client| client.echo("in"));
        let mut late = talkers(&server, 8);
        late.iter_mut().for_each(|client| client.say("late\n"));
        for _ in 0..20 {
            inside.iter_mut().for_each(|client| client.echo("still in"));
        }
        assert_eq!((server.handle.stats().active, server.handle.stats().accepted), (4, 4), "{name}");
        for mut client in late {
            drop(inside.remove(0)); // a permit comes back
            assert_eq!(client.hear(), "late\n", "{name}");
            inside.push(client);
        }
        server.handle.pause();
        drop(inside.pop());
        let mut paused = Talker::to(&server);
        paused.say("paused\n");
        inside.iter_mut().for_each(|client| client.echo("during a pause"));
        until("one has ended", || server.handle.stats().active == 3);
        server.handle.resume();
        assert_eq!(paused.hear(), "paused\n", "{name}");
        server.handle.set_max_connections(6).unwrap();
        let mut more = talkers(&server, 2);
        more.iter_mut().for_each(|client| client.echo("more"));
        let report = server.stop();
        assert_eq!((report.served, report.failed), (15, 0), "{name}: {report}");
    }
}

#[test]
fn at_the_limit_a_free_thread_refuses() {
    for (name, strategy) in parking() {
        let builder =
            ServerBuilder::new().strategy(strategy).max_connections(3).at_limit(AtLimit::Refuse(b"full\n".to_vec()));
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut inside = talkers(&server, 3);
        inside.iter_mut().for_each(|client| client.echo("in"));
        for _ in 0..3 {
            assert_eq!(Talker::to(&server).hear(), "full\n", "{name}");
        }
        inside.iter_mut().for_each(|client| client.echo("still in"));
        drop(inside.pop());
        until("one has ended", || server.handle.stats().active == 2);
        Talker::to(&server).echo("in");
        assert_eq!(server.stop().refused, 3, "{name}");
    }
}

/// Everybody hears every line.
struct Member(Arc<Mutex<Vec<ConnectionWriter>>>);

impl Session for Member {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        self.0.lock().unwrap().push(conn.writer()?);
        Ok(())
    }

    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
        let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
        let line: Arc<[u8]> = format!("{line}\n").into_bytes().into();
        for member in &*self.0.lock().unwrap() {
            let _ = member.send(line.clone());
        }
        Ok(Next::Request)
    }
}

fn room(strategy: impl ServingStrategy + 'static) -> (Running, Arc<Mutex<Vec<ConnectionWriter>>>) {
    let room = Arc::<Mutex<Vec<_>>>::default();
    let theirs = room.clone();
    let members = sessions(move || Member(theirs.clone()));
    (serve(ServerBuilder::new().strategy(strategy).bind(ANY, members).unwrap()), room)
}

#[test]
fn messages_reach_parked_connections() {
    for (name, strategy) in parking() {
        let (server, room) = room(strategy);
        let mut members = talkers(&server, 10);
        until_parked(&server, 10);
        for round in 0..30 {
            let text = format!("round {round}\n");
            members[round % 10].say(&text);
            members.iter_mut().for_each(|member| assert_eq!(member.hear(), text, "{name}"));
        }
        // Many at once, from outside too.
        let writers = room.lock().unwrap().clone();
        let outside = thread::spawn(move || {
            for _ in 0..100 {
                writers.iter().for_each(|writer| writer.send_line("x").unwrap());
            }
        });
        members.iter_mut().for_each(|member| member.say(&"x\n".repeat(20)));
        members.iter_mut().for_each(|member| (0..300).for_each(|_| assert_eq!(member.hear(), "x\n", "{name}")));
        outside.join().unwrap();
        server.stop();
    }
}

#[test]
fn a_writer_ends_a_parked_connection() {
    for (name, strategy) in parking() {
        let (server, room) = room(strategy);
        let mut members = talkers(&server, 3);
        until_parked(&server, 3);
        for writer in room.lock().unwrap().drain(..) {
            writer.send_line("goodbye").unwrap();
            writer.close();
        }
        members.iter_mut().for_each(|member| assert_eq!(read_all(&mut member.0), "goodbye\n", "{name}"));
        until("all have ended", || server.handle.stats().active == 0);
        assert_eq!(server.stop().served, 3, "{name}");
    }
}

/// Waits within a request until it is told to go on.
pub fn held(begun: Sender<()>, go_on: Receiver<()>) -> impl Fn(&mut Connection) -> HandlerResult<Next> + Send + Sync {
    let go_on = Mutex::new(go_on);
    move |conn| {
        let Some(text) = conn.next_line()? else { return Ok(Next::Close) };
        if text == "hold" {
            let _ = begun.send(());
            let _ = go_on.lock().unwrap().recv_timeout(LONG);
        }
        conn.send_line(text)?;
        Ok(Next::Request)
    }
}

#[test]
fn a_request_that_waits_for_a_thread_is_served() {
    let ((begun, has_begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let server = ServerBuilder::new().strategy(ThreadPool::new(1)).bind(ANY, per_request(held(begun, go_on))).unwrap();
    let server = serve(server);
    let mut waits = talkers(&server, 5);
    waits.iter_mut().for_each(|client| client.echo("first"));
    let mut holds = Talker::to(&server);
    holds.say("hold\n");
    has_begun.recv_timeout(LONG).unwrap();
    waits.iter_mut().for_each(|client| client.say("second\n"));
    go.send(()).unwrap();
    assert_eq!(holds.hear(), "hold\n");
    waits.iter_mut().for_each(|client| assert_eq!(client.hear(), "second\n"));
    server.stop();
}

#[test]
fn a_single_request_and_later_runs_have_what_they_need() {
    let mut server = ServerBuilder::new().strategy(ThreadPool::new(2)).bind(ANY, per_request(line)).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    for _ in 0..3 {
        let stops = handle.clone();
        let clients = thread::spawn(move || {
            let mut clients: Vec<_> = (0..10).map(|_| Talker::at(addr)).collect();
            clients.iter_mut().for_each(|client| client.echo("one"));
            clients.iter_mut().for_each(|client| client.echo("two"));
            stops.shutdown();
            clients.iter_mut().for_each(|client| assert_eq!(client.hear(), ""));
        });
        assert_eq!(server.serve_forever().unwrap().served, 10);
        clients.join().unwrap();
    }
    let alone = thread::spawn(move || {
        let mut client = Talker::at(addr);
        client.echo("one");
        client.echo("two");
    });
    assert!(server.handle_request(Some(LONG)).unwrap());
    alone.join().unwrap();
}
