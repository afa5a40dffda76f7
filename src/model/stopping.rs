//! Stops at any moment: each ends the run, wakes idle threads, and harms no later run.

use std::time::Duration;

use super::{check, join_all, Scene, Stay, FOR_EVER};
use crate::sync::thread::spawn;
use crate::{Sequential, ServerBuilder, ThreadPool, Threading};

fn threading(drain: Duration) -> ServerBuilder<Threading> {
    let strategy = Threading::new().keep_alive(Duration::from_secs(1)).spare_threads(1);
    ServerBuilder::new().max_connections(2).drain_timeout(drain).strategy(strategy)
}

fn pool() -> ServerBuilder<ThreadPool> {
    ServerBuilder::new().drain_timeout(FOR_EVER).strategy(ThreadPool::new(2))
}

/// Clients that were there before the stop are served, whenever it comes, and however often.
#[test]
fn a_stop_ends_threads_at_any_moment() {
    check(|| {
        let scene = Scene::new(threading(FOR_EVER), Stay::Short);
        let early = [scene.door.connect(), scene.door.connect(), scene.door.connect()];
        let running = scene.start();
        let again = running.handle.clone();
        let second = spawn(move || again.shutdown());
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert_eq!(report.served, 3);
        second.join().unwrap();
        drop(early);
    });
}

#[test]
fn a_stop_ends_a_pool_at_any_moment() {
    check(|| {
        let scene = Scene::new(pool(), Stay::Short);
        let early = [scene.door.connect(), scene.door.connect(), scene.door.connect()];
        let running = scene.start();
        let late = running.clients(1);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert!(report.served >= 3);
        drop((early, join_all(late)));
    });
}

#[test]
fn a_stop_before_the_run_ends_it() {
    check(|| {
        let scene = Scene::new(threading(FOR_EVER), Stay::Short);
        scene.handle.shutdown();
        let running = scene.start();
        let clients = running.clients(1);
        let (_scene, _) = running.join();
        drop(join_all(clients));
    });
}

/// Threads whose connections idle are woken by the registry.
#[test]
fn a_stop_wakes_threads_whose_connections_idle() {
    check(|| {
        let running = Scene::new(threading(FOR_EVER), Stay::NextRequest).start();
        let clients = running.clients(1);
        running.tally.until(|counts| counts.active == 1);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert_eq!(report.failed, 0);
        drop(join_all(clients));
    });
}

/// The thread that serves watches the switch itself.
#[test]
fn a_stop_wakes_the_serving_thread_s_own_connection() {
    check(|| {
        let builder = ServerBuilder::new().drain_timeout(FOR_EVER).strategy(Sequential);
        let running = Scene::new(builder, Stay::NextRequest).start();
        let clients = running.clients(1);
        running.tally.until(|counts| counts.active == 1);
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert_eq!(report.failed, 0);
        drop(join_all(clients));
    });
}

#[test]
fn a_run_after_a_stop_serves_until_its_own() {
    check(|| {
        let running = Scene::new(threading(FOR_EVER), Stay::Short).start();
        let again = running.handle.clone();
        running.handle.shutdown();
        let (scene, _) = running.join();
        again.shutdown(); // late, for the run that is over
        let running = scene.start();
        let clients = join_all(running.clients(1));
        running.tally.until(|counts| counts.ended == 1);
        running.handle.shutdown();
        assert_eq!(running.join().1.served, 1);
        drop(clients);
    });
}

/// At the drain limit, or at once, the account tells how many handlers were left.
#[test]
fn a_drain_that_is_over_counts_the_rest() {
    check(|| {
        let running = Scene::new(threading(Duration::from_secs(1)), Stay::UntilReleased).start();
        let clients = running.clients(2);
        running.handle.shutdown();
        let tally = running.tally.clone();
        let hurries = running.handle.clone();
        let other = spawn(move || {
            hurries.shutdown_now();
            tally.release();
        });
        let (_scene, report) = running.join();
        assert!(report.abandoned <= 2);
        other.join().unwrap();
        drop(join_all(clients));
    });
}

/// A pause keeps queued clients out, in a stop too.
#[test]
fn a_stop_ends_a_paused_server() {
    check(|| {
        let running = Scene::new(threading(FOR_EVER), Stay::Short).start();
        let clients = running.clients(2);
        running.handle.pause();
        running.handle.shutdown();
        let (_scene, report) = running.join();
        assert!(report.served <= 2);
        drop(join_all(clients));
    });
}

/// A place that comes back in the drain goes to a client that was queued at the stop.
#[test]
fn clients_queued_at_the_stop_get_the_places_that_come_back() {
    check(|| {
        let scene = Scene::new(threading(FOR_EVER), Stay::UntilReleased);
        scene.handle.set_max_connections(1).unwrap();
        let clients = [scene.door.connect(), scene.door.connect(), scene.door.connect()];
        let running = scene.start();
        running.tally.until(|counts| counts.active == 1);
        running.handle.shutdown();
        running.tally.release();
        let (scene, report) = running.join();
        assert_eq!((report.served, scene.tally.counts().most), (3, 1));
        drop(clients);
    });
}

#[test]
fn a_stop_ends_a_single_turn_and_stays_until_the_drain() {
    check(|| {
        let builder = ServerBuilder::new().drain_timeout(FOR_EVER).strategy(Sequential);
        let Scene { mut server, door, tally, handle } = Scene::new(builder, Stay::Short);
        let serving = spawn(move || (server.handle_request(None).unwrap(), server));
        let client = spawn(move || door.connect());
        handle.shutdown();
        let (served, mut server) = serving.join().unwrap();
        let client = client.join().unwrap();
        assert_eq!(served, tally.counts().ended == 1);
        assert!(!server.handle_request(None).unwrap(), "heard in the first turn or not, it stays");
        // The client is served by the turn or by the drain.
        let report = server.serve_forever().unwrap();
        assert_eq!(report.served, u64::from(!served));
        drop(client);
    });
}
