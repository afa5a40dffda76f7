//! Several loops as one server: the limit, the stop, pauses, stalls and failures are those of all together.

use crate::kit;
use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::kit::loops::Rig;
use crate::kit::{connect, expect, ms, read_all, serve, until, AT_ONCE, LONG};
use socketserver::testing::FailingListener;
use socketserver::{factory, Error, EventLoop, EventLoops, Failure, HandlerResult, Protocol};
use socketserver::{ServerBuilder, Transport};

const ANY: &str = "127.0.0.1:0";

fn builder(loops: usize) -> ServerBuilder<EventLoops> {
    ServerBuilder::new().strategy(EventLoops::new(loops))
}

/// Repeats what it hears.
struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(t.write(data)?)
    }
}

/// Counts how many there are.
struct Counted(Arc<AtomicUsize>);

impl Protocol for Counted {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(t.write(data)?)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn the_limit_is_exact_over_all_loops_under_load() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let theirs = most.clone();
    let build = factory(move |_| {
        theirs.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
        Counted(now.clone())
    });
    let server = serve(builder(2).max_connections(3).bind(ANY, build).unwrap());
    let addr = server.addr();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || (0..100).for_each(|n| assert_eq!(kit::ask(addr, &n.to_string()), n.to_string())))
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!((server.stop().served, most.load(SeqCst)), (800, 3));
}

/// All places are taken in one loop; a waiting client is served when one comes back, whichever its loop.
#[test]
fn a_place_that_one_loop_gives_back_is_heard_of_by_the_others() {
    let rig = Rig::new(builder(2));
    let mut held: Vec<_> = rig.one_in_each(2).into_iter().map(|client| client.socket).collect();
    until("the others are gone", || rig.server.handle.stats().active == 2);
    rig.server.handle.set_max_connections(2).unwrap();
    for n in 0..100 {
        let mut waits = connect(rig.server.addr());
        waits.write_all(b"waits").unwrap();
        drop(held.remove(n % 2));
        expect(&mut waits, "waits");
        held.push(waits);
    }
    assert_eq!(rig.server.stop().failed, 0);
}

#[test]
fn a_pause_holds_for_all_loops_and_so_does_the_resume() {
    let rig = Rig::new(builder(2));
    let mut old = rig.one_in_each(2);
    rig.server.handle.pause();
    let accepted = rig.server.handle.stats().accepted;
    let mut new: Vec<TcpStream> = (0..16).map(|_| connect(rig.server.addr())).collect();
    new.iter_mut().for_each(|client| client.write_all(b"new").unwrap());
    for client in &mut old {
        client.socket.write_all(b"old").unwrap();
        expect(&mut client.socket, "old");
    }
    assert_eq!(rig.server.handle.stats().accepted, accepted, "they wait in the kernel's queue");
    rig.server.handle.resume();
    new.iter_mut().for_each(|client| expect(client, "new"));
}

#[test]
fn a_higher_limit_is_heard_of_by_all_loops() {
    let server = serve(builder(2).max_connections(1).bind(ANY, factory(|_| Echo)).unwrap());
    let mut clients: Vec<TcpStream> = (0..16).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    until("the first is served", || server.handle.stats().accepted == 1);
    server.handle.set_max_connections(16).unwrap();
    clients.iter_mut().for_each(|client| expect(client, "x"));
}

/// Answers after a while, like a protocol that asks a thread.
struct Slow;

impl Protocol for Slow {
    fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        t.request_begins();
        t.set_timer(ms(20));
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::event_loop::TimerId) -> HandlerResult {
        t.write(b"answer")?;
        t.close();
        Ok(())
    }
}

#[test]
fn at_a_stop_each_queued_client_is_served_once_by_any_loop() {
    let server = serve(builder(2).max_connections(2).bind(ANY, factory(|_| Slow)).unwrap());
    let mut clients: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"question").unwrap());
    until("two are served", || server.handle.stats().active == 2);
    server.handle.shutdown();
    let since = Instant::now();
    clients.iter_mut().for_each(|client| assert_eq!(read_all(client), "answer"));
    let report = server.join();
    assert_eq!((report.accepted, report.served, report.forced), (20, 20, 0), "{report}");
    assert!(since.elapsed() < AT_ONCE, "without a wait for the drain limit: {:?}", since.elapsed());
}

/// Newcomers have come in time for no stop.
#[test]
fn at_a_stop_the_loops_together_take_no_more_than_was_queued() {
    let mut server = builder(4).max_connections(1).bind(ANY, factory(|_| Slow)).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = thread::spawn(move || (server.serve_forever().unwrap(), server));
    let mut clients: Vec<TcpStream> = (0..5).map(|_| connect(addr)).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"question").unwrap());
    until("one is served", || handle.stats().active == 1);
    handle.shutdown();
    clients.iter_mut().take(2).for_each(|client| assert_eq!(read_all(client), "answer"));
    let _late: Vec<TcpStream> = (0..5).map(|_| connect(addr)).collect();
    assert_eq!(serving.join().unwrap().0.accepted, 5);
}

#[test]
fn a_loop_that_stands_still_holds_up_its_own_connections_only() {
    let stalls = Arc::new(AtomicUsize::new(0));
    let told = stalls.clone();
    let rig = Rig::new(builder(2).handle_error(move |failure| {
        if let Failure::Stalled { callback: "data_received", .. } = failure {
            told.fetch_add(1, SeqCst);
        }
    }));
    let mut clients = rig.one_in_each(2);
    rig.stand_still(&mut clients[0]);
    for n in 0..20 {
        clients[1].socket.write_all(b"on").unwrap();
        expect(&mut clients[1].socket, "on");
        let new = rig.client();
        assert_eq!(new.place, clients[1].place, "{n}: served by a loop that stands still");
    }
    thread::sleep(ms(200)); // longer than a callback may take untold
    rig.go_on();
    expect(&mut clients[0].socket, "stall");
    until("the stall is told", || stalls.load(SeqCst) == 1);
}

#[test]
fn clients_that_stay_are_shared_out() {
    let rig = Rig::new(builder(2));
    until("both have begun", || rig.started() == 2);
    let mut clients: Vec<_> = (0..64).map(|_| rig.client()).collect();
    loop {
        let mut counts: HashMap<ThreadId, usize> = HashMap::new();
        clients.iter().for_each(|client| *counts.entry(client.place).or_default() += 1);
        if counts.len() == 2 && counts.values().all(|count| count * 8 >= clients.len() * 3) {
            break;
        }
        // A loop that had no processor for a while has fewer: it gets the next clients.
        assert!(clients.len() < 640, "{counts:?}");
        clients.push(rig.client());
    }
}

#[test]
fn the_factory_hears_of_each_loop_and_each_has_a_thread() {
    let rig = Rig::new(builder(3));
    until("all have begun", || rig.started() == 3);
    drop(rig.one_in_each(3));
    until("the last one has its name", || kit::threads_named("loop-2") >= 1);
    assert_eq!(rig.server.stop().failed, 0);
    assert_eq!(*rig.known.stopped.lock().unwrap(), 3);
}

#[test]
fn one_loop_calls_the_service_actions() {
    let threads = Arc::new(Mutex::new(Vec::new()));
    let calls = threads.clone();
    let rig = Rig::new(builder(3).service_actions(ms(1), move || calls.lock().unwrap().push(thread::current().id())));
    until("it was called", || threads.lock().unwrap().len() >= 20);
    drop(rig);
    let threads = threads.lock().unwrap();
    assert!(threads.iter().all(|thread| *thread == threads[0]));
}

#[test]
fn verify_request_decides_in_all_loops() {
    let rig = Rig::new(builder(2).verify_request(|incoming| {
        thread::sleep(ms(1));
        incoming.peer_addr().port().is_some_and(|port| port > 0)
    }));
    let clients = rig.one_in_each(2);
    drop(clients);
    assert_eq!(rig.server.stop().refused, 0);
}

#[test]
fn a_listener_that_fails_for_good_ends_all_loops_in_order() {
    let (listener, failures) = FailingListener::bind(ANY).unwrap();
    let known = Arc::<kit::loops::Known>::default();
    let members = kit::loops::Members { known: known.clone(), room: socketserver::Group::new() };
    let server = serve(builder(2).drain_timeout(ms(300)).from_listener(listener, members).unwrap());
    let mut old: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for client in &mut old {
        client.write_all(b"x").unwrap();
        expect(client, "x");
    }
    failures.add([9]); // EBADF
    let _last = server.connect();
    let error = server.result().unwrap_err();
    assert!(matches!(error, Error::Accept { .. }), "{error}");
    old.iter_mut().for_each(|client| assert_eq!(read_all(client), "", "closed in order"));
    assert_eq!(*known.stopped.lock().unwrap(), 2);
}

#[test]
fn a_single_request_is_served_from_whichever_listener_it_comes() {
    let mut server = builder(2).bind(ANY, factory(|_| Echo)).unwrap();
    let addr = server.local_addr().socket_addr().unwrap();
    for n in 0..10 {
        let asks = thread::spawn(move || kit::ask(addr, &n.to_string()));
        assert!(server.handle_request(Some(LONG)).unwrap());
        assert_eq!(asks.join().unwrap(), n.to_string());
    }
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap());
    assert_eq!(server.handle().stats().served, 10);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let name = |server: Result<_, Error>| match server.map(drop) {
        Err(Error::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    let echo = || factory(|_| Echo);
    assert_eq!(name(builder(0).bind(ANY, echo()).map(drop)), "EventLoops::new");
    assert_eq!(name(builder(513).bind(ANY, echo()).map(drop)), "EventLoops::new");
    let each = EventLoops::new(2).each(EventLoop::new().water_marks(2, 1));
    assert_eq!(name(ServerBuilder::new().strategy(each).bind(ANY, echo()).map(drop)), "water_marks");
}

#[test]
fn it_serves_again_after_a_stop() {
    let mut server = builder(2).bind(ANY, factory(|_| Echo)).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    for run in 0..3 {
        thread::scope(|scope| {
            let serving = scope.spawn(|| server.serve_forever().unwrap());
            let mut held = connect(addr);
            held.write_all(b"x").unwrap();
            expect(&mut held, "x");
            handle.shutdown();
            assert_eq!(kit::read(&mut held, &mut [0]).unwrap(), 0);
            assert_eq!(serving.join().unwrap().served, 1, "run {run}");
        });
    }
}
