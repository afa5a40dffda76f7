//! Connections that are parked between two requests: no request, message, permit or stop is missed.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::{check, join_all, Door, Tally, FOR_EVER};
use crate::connection::ConnectionWriter;
use crate::strategy::ServingStrategy;
use crate::sync::thread::{spawn, JoinHandle};
use crate::sync::Mutex;
use crate::sys::model::act;
use crate::{sessions, Connection, HandlerResult, Next, Report, Sequential, ServerBuilder, ServerHandle, Session};
use crate::{ThreadPool, Threading};

type Writers = Arc<Mutex<Vec<ConnectionWriter>>>;

/// Takes a line; `hold` stays until the tally releases it, `bye` closes. The tally has the requests as `most`.
struct Talk {
    tally: Arc<Tally>,
    writers: Option<Writers>,
}

impl Session for Talk {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        if let Some(writers) = &self.writers {
            writers.lock().push(conn.writer()?);
        }
        self.tally.change(|counts| counts.active += 1);
        Ok(())
    }

    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
        let line = conn.next_line()?;
        self.tally.change(|counts| counts.most += 1);
        match line.as_deref() {
            Some("hold") => self.tally.until(|counts| counts.released),
            Some("bye") | None => return Ok(Next::Close),
            Some(_) => {}
        }
        Ok(Next::Request)
    }

    fn finish(&mut self, _: &mut Connection) -> HandlerResult {
        self.tally.change(|counts| counts.ended += 1);
        Ok(())
    }
}

struct Scene {
    door: Door,
    tally: Arc<Tally>,
    handle: ServerHandle,
    serving: JoinHandle<Report>,
}

fn start(strategy: Box<dyn ServingStrategy>, limit: usize, writers: Option<&Writers>) -> Scene {
    let tally = Arc::new(Tally::default());
    let (theirs, writers) = (tally.clone(), writers.cloned());
    let handler = sessions(move || Talk { tally: theirs.clone(), writers: writers.clone() });
    let builder = ServerBuilder::new().strategy(strategy).max_connections(limit).drain_timeout(FOR_EVER);
    let (door, mut server) = Door::of(builder, handler);
    let handle = server.handle();
    Scene { door, tally, handle, serving: spawn(move || server.serve_forever().unwrap()) }
}

impl Scene {
    /// Stops, and joins. Nothing of the run may be left.
    fn stop(self) -> Report {
        self.handle.shutdown();
        let report = self.serving.join().unwrap();
        let stats = self.handle.stats();
        assert_eq!((stats.active, stats.parked, report.abandoned), (0, 0, 0));
        report
    }

    /// A client on a thread of its own that says these lines one after the other.
    fn client(&self, lines: &'static [&'static str]) -> JoinHandle<UnixStream> {
        let door = self.door.clone();
        spawn(move || {
            let client = door.connect();
            lines.iter().for_each(|line| say(&client, line));
            client
        })
    }
}

fn say(mut client: &UnixStream, line: &str) {
    act(|| client.write_all(format!("{line}\n").as_bytes()).unwrap());
}

fn strategies() -> [fn() -> Box<dyn ServingStrategy>; 3] {
    [|| Box::new(ThreadPool::new(2)), || Box::new(Threading::new().spare_threads(1)), || Box::new(Sequential)]
}

#[test]
fn every_request_is_served() {
    for strategy in strategies() {
        check(move || {
            let scene = start(strategy(), 10, None);
            let clients = [scene.client(&["one", "two"]), scene.client(&["one"]), scene.client(&["one", "bye"])];
            scene.tally.until(|counts| counts.most == 5 && counts.ended == 1);
            let clients = join_all(clients.into());
            say(&clients[0], "three");
            scene.tally.until(|counts| counts.most == 6);
            assert_eq!(scene.stop().served, 3);
        });
    }
}

/// Both have spoken: a stop sends the others away.
#[test]
fn what_has_come_before_a_stop_is_served() {
    for strategy in strategies() {
        check(move || {
            let scene = start(strategy(), 10, None);
            let clients = join_all([scene.client(&["one"]), scene.client(&["one", "two"])].into());
            let tally = scene.tally.clone();
            assert_eq!(scene.stop().served, 2);
            assert_eq!(tally.counts().most, 3);
            drop(clients);
        });
    }
}

/// The one thread is busy meanwhile.
#[test]
fn a_stop_ends_what_is_idle_while_all_threads_are_busy() {
    check(|| {
        let scene = start(Box::new(ThreadPool::new(1)), 10, None);
        let idle = join_all([scene.client(&["one"]), scene.client(&["one"])].into());
        scene.tally.until(|counts| counts.most == 2);
        let busy = join_all(vec![scene.client(&["hold"])]);
        scene.tally.until(|counts| counts.most == 3);
        scene.handle.shutdown();
        scene.tally.until(|counts| counts.ended == 2);
        scene.tally.release();
        assert_eq!(scene.stop().served, 3);
        drop((idle, busy));
    });
}

#[test]
fn at_the_limit_a_permit_that_comes_back_lets_the_next_one_in() {
    for strategy in strategies() {
        check(move || {
            let scene = start(strategy(), 1, None);
            let clients = [scene.client(&["one", "bye"]), scene.client(&["one", "bye"]), scene.client(&["bye"])];
            scene.tally.until(|counts| counts.ended == 3);
            assert_eq!(scene.stop().served, 3);
            drop(join_all(clients.into()));
        });
    }
}

#[test]
fn a_pause_ends() {
    check(|| {
        let scene = start(Box::new(ThreadPool::new(1)), 2, None);
        scene.handle.pause();
        let client = scene.client(&["one"]);
        scene.handle.resume();
        scene.handle.pause();
        scene.handle.resume();
        scene.tally.until(|counts| counts.most == 1);
        assert_eq!(scene.stop().served, 1);
        drop(client.join().unwrap());
    });
}

/// A message that comes while the connection is being parked must take it up.
#[test]
fn a_writer_ends_a_connection_whenever_it_is_parked() {
    for strategy in strategies() {
        check(move || {
            let writers = Writers::default();
            let scene = start(strategy(), 10, Some(&writers));
            let client = scene.client(&["one"]).join().unwrap();
            scene.tally.until(|counts| counts.active == 1);
            let room = writers.clone();
            let closer = spawn(move || room.lock().iter().for_each(ConnectionWriter::close));
            scene.tally.until(|counts| counts.ended == 1);
            closer.join().unwrap();
            drop(client); // or the close would wait for it, by the clock
            assert_eq!(scene.stop().served, 1);
        });
    }
}
