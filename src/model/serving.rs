//! Crews at work: every connection is served, never too many at once, and somebody always waits.

use std::sync::Arc;
use std::time::Duration;

use super::{check, join_all, Scene, Stay, FOR_EVER};
use crate::accept::{AcceptEvent, Acceptor};
use crate::admit::Permit;
use crate::strategy::{Rejected, Request, ServingStrategy};
use crate::sync::model::fail_spawns;
use crate::sync::thread::{spawn, Builder};
use crate::sync::Mutex;
use crate::{AtLimit, ServerBuilder, ThreadPool, Threading};

const KEEP_ALIVE: Duration = Duration::from_secs(1);

fn threading(limit: usize) -> ServerBuilder<Threading> {
    let strategy = Threading::new().keep_alive(KEEP_ALIVE).spare_threads(2);
    ServerBuilder::new().max_connections(limit).drain_timeout(FOR_EVER).strategy(strategy)
}

fn pool(threads: usize) -> ServerBuilder<ThreadPool> {
    ServerBuilder::new().drain_timeout(FOR_EVER).strategy(ThreadPool::new(threads))
}

#[test]
fn threads_serve_all_within_the_limit() {
    check(|| {
        let running = Scene::new(threading(2), Stay::Short).start();
        let clients = join_all(running.clients(3));
        running.tally.until(|counts| counts.ended == 3);
        running.handle.shutdown();
        let (scene, report) = running.join();
        assert_eq!(report.served, 3);
        assert!(scene.tally.counts().most <= 2);
        drop(clients);
    });
}

#[test]
fn a_pool_serves_all_within_its_size() {
    check(|| {
        let running = Scene::new(pool(2), Stay::Short).start();
        let clients = join_all(running.clients(3));
        running.tally.until(|counts| counts.ended == 3);
        running.handle.shutdown();
        let (scene, report) = running.join();
        assert_eq!(report.served, 3);
        assert!(scene.tally.counts().most <= 2);
        drop(clients);
    });
}

/// The first stays until the second is served: so somebody must wait meanwhile.
#[test]
fn somebody_waits_while_handlers_stay() {
    check(|| {
        let running = Scene::new(threading(3), Stay::UntilReleased).start();
        let clients = join_all(running.clients(3));
        running.tally.until(|counts| counts.active == 3);
        running.tally.release();
        running.tally.until(|counts| counts.ended == 3);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert_eq!(report.served, 3);
        drop(clients);
    });
}

#[test]
fn a_limit_that_rises_lets_waiting_clients_in() {
    check(|| {
        let running = Scene::new(threading(1), Stay::UntilReleased).start();
        let clients = running.clients(2);
        running.tally.until(|counts| counts.active == 1);
        running.handle.set_max_connections(2).unwrap();
        running.tally.until(|counts| counts.active == 2);
        running.handle.set_max_connections(1).unwrap();
        running.tally.release();
        let more = running.clients(1);
        running.tally.until(|counts| counts.ended == 3);
        running.handle.shutdown();
        let (scene, report) = running.join();
        assert_eq!(report.served, 3);
        assert!(scene.tally.counts().most <= 2);
        drop((join_all(clients), join_all(more)));
    });
}

#[test]
fn a_pause_loses_nobody() {
    check(|| {
        let running = Scene::new(threading(2), Stay::Short).start();
        running.handle.pause();
        let clients = running.clients(2);
        running.handle.resume();
        running.handle.pause();
        running.handle.resume();
        running.tally.until(|counts| counts.ended == 2);
        running.handle.shutdown();
        assert_eq!(running.join().1.served, 2);
        drop(join_all(clients));
    });
}

/// One thread is woken for a connection. If it gives up waiting for a place, another one learns of the connection.
#[test]
fn a_thread_that_leaves_the_gate_leaves_no_connection_behind() {
    check(|| {
        let running = Scene::new(threading(3), Stay::Short).start();
        let early = join_all(running.clients(3));
        running.tally.until(|counts| counts.ended == 3);
        running.handle.pause();
        let clients = join_all(running.clients(1));
        running.handle.resume();
        running.tally.until(|counts| counts.ended == 4);
        running.handle.shutdown();
        assert_eq!(running.join().1.served, 4);
        drop((early, clients));
    });
}

/// One has the gate, another queues behind it for a while only: the place that comes back is for the first then.
#[test]
fn a_thread_that_queues_for_the_gate_in_vain_disturbs_no_other() {
    check(|| {
        let Scene { server, door, .. } = Scene::new(threading(1), Stay::Short);
        let acceptor = Acceptor::new(&server.bound.core, &server.bound.listeners, server.handler().clone());
        let held = Permit::take(&server.bound.core).unwrap();
        let clients = [door.connect(), door.connect()];
        let waits = [None, Some(KEEP_ALIVE)].map(|time| {
            let acceptor = acceptor.clone();
            spawn(move || matches!(acceptor.seat().unwrap().next(time).unwrap(), AcceptEvent::Request(_)))
        });
        let [first, second] = waits;
        assert!(!second.join().unwrap());
        drop(held);
        assert!(first.join().unwrap());
        drop(clients);
    });
}

/// A client for whom no thread can be started is refused, and the others are served.
#[test]
fn threads_that_fail_to_start_cost_their_connection_only() {
    check(|| {
        let running = Scene::new(threading(3), Stay::Short).start();
        let first = join_all(running.clients(1));
        running.tally.until(|counts| counts.ended == 1);
        fail_spawns(2);
        let more = join_all(running.clients(2));
        running.tally.until(|counts| counts.ended + counts.refused == 3);
        fail_spawns(0);
        let last = join_all(running.clients(1));
        running.tally.until(|counts| counts.ended + counts.refused == 4);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert!(report.refused <= 2 && report.served + report.refused == 4, "{report}");
        drop((first, more, last));
    });
}

#[test]
fn a_server_without_a_thread_says_so_and_may_try_again() {
    check(|| {
        let scene = Scene::new(threading(2), Stay::Short);
        fail_spawns(1);
        let client = scene.door.connect();
        let Scene { mut server, door, tally, handle } = scene;
        let serving = spawn(move || (server.serve_forever().is_err(), server));
        let (failed, server) = serving.join().unwrap();
        assert!(failed);
        let running = Scene { server, door, tally, handle }.start();
        running.tally.until(|counts| counts.ended == 1);
        running.handle.shutdown();
        assert_eq!(running.join().1.served, 1);
        drop(client);
    });
}

/// A strategy that hands over, as a user would write it.
struct Handing;

impl ServingStrategy for Handing {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        let parcel = Arc::new(Mutex::new(Some(request)));
        let theirs = parcel.clone();
        let run = move || {
            let request = theirs.lock().take();
            request.into_iter().for_each(Request::run);
        };
        let Err(why) = Builder::new().spawn(run) else { return Ok(()) };
        let request = parcel.lock().take().unwrap();
        Err(Rejected::new(request, why))
    }
}

/// A failed start refuses, and accepting rests: for a place that comes back, or for the time.
#[test]
fn one_thread_that_accepts_serves_or_refuses_all() {
    for at_limit in [AtLimit::Wait, AtLimit::Refuse(Vec::new())] {
        check(move || {
            let builder = ServerBuilder::new().max_connections(1).at_limit(at_limit.clone()).drain_timeout(FOR_EVER);
            let running = Scene::new(builder.strategy(Handing), Stay::Short).start();
            fail_spawns(1);
            let clients = join_all(running.clients(3));
            running.tally.until(|counts| counts.ended + counts.refused == 3);
            running.handle.shutdown();
            let (scene, report) = running.join();
            assert_eq!(report.served + report.refused, 3);
            assert!(scene.tally.counts().most <= 1);
            drop(clients);
        });
    }
}
