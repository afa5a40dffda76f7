//! Crews at work: every connection is served, never too many at once, and somebody always waits.

use std::time::Duration;

use std::sync::atomic::Ordering::SeqCst;

use super::{check, join_all, world, Scene, Stay, FOR_EVER};
use crate::{ServerBuilder, ThreadPool, Threading};

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
fn a_limit_that_rises_lets_in_who_waits() {
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

/// The one who is woken for a connection, and tires of waiting for a place, is not the only one to know of it.
#[test]
fn who_leaves_the_gate_leaves_no_connection_behind() {
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

/// Who cannot be served for want of a thread is refused, and the others are served.
#[test]
fn threads_that_fail_to_start_cost_their_connection_only() {
    check(|| {
        let running = Scene::new(threading(3), Stay::Short).start();
        let first = join_all(running.clients(1));
        running.tally.until(|counts| counts.ended == 1);
        world().failing_spawns.store(2, SeqCst);
        let clients = join_all(running.clients(2));
        world().failing_spawns.store(0, SeqCst);
        let last = join_all(running.clients(1));
        let handle = running.handle.clone();
        let refused = || handle.stats().refused as usize;
        running.tally.until(|counts| counts.ended + refused() >= 4 || counts.ended >= 2);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert_eq!(report.accepted, 4);
        drop((first, clients, last));
    });
}
