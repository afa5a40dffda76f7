//! However an attempt ends, it leaves no descriptor and no thread behind.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use crate::kit::{descriptors, ms, until, Folder, LONG};
use crate::script::clients::Client;
use crate::script::Journal;
use nix::sys::socket::{listen, Backlog};
use socketserver::event_loop::{Connect, Connector, ConnectorState};
use socketserver::{Address, Reactor};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn turn_until(reactor: &mut Reactor, what: &str, mut done: impl FnMut(&mut Reactor) -> bool) {
    let by = Instant::now() + LONG;
    while !done(reactor) {
        assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
        reactor.turn(Some(ms(10))).unwrap();
    }
}

/// The descriptors of this process with a reactor.
struct WithAReactor(usize);

impl WithAReactor {
    /// Nothing may be left of ten such attempts once they have ended like this.
    fn leaves_nothing(&self, what: &str, to: impl Into<Address>, end: impl Fn(&mut Reactor, Connector, &Journal)) {
        let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
        // The thread that has resolved a name may not have let go of the last reactor's bell yet.
        until("only this reactor is there", || descriptors() == self.0);
        let time = if what.starts_with("timed out") { ms(50) } else { Duration::from_secs(600) };
        let to = Connect::to(to).timeout(time);
        for _ in 0..10 {
            let connector = reactor.context().connect(to.clone(), Client::new(&journal));
            end(&mut reactor, connector, &journal);
            assert_eq!(reactor.context().connector_state(connector), ConnectorState::Disconnected, "{what}");
            assert_eq!((descriptors(), journal.count("stop")), (self.0, 1), "{what}: {}", journal.take());
            journal.take();
        }
    }
}

fn stops(reactor: &mut Reactor, _: Connector, journal: &Journal) {
    turn_until(reactor, "nothing is left", |_| journal.count("stop") == 1);
}

fn tries(reactor: &mut Reactor, connector: Connector) {
    (0..3).for_each(|_| assert!(reactor.turn(Some(ms(1))).unwrap()));
    assert_eq!(reactor.context().connector_state(connector), ConnectorState::Connecting);
}

#[test]
fn an_attempt_leaves_nothing_behind() {
    alone!();
    let folder = Folder::new();
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&hole, Backlog::new(0).unwrap()).unwrap();
    let full = UnixListener::bind(folder.path("full.sock")).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let _queued = TcpStream::connect(hole.local_addr().unwrap()).unwrap();
    let _queued_too = UnixStream::connect(folder.path("full.sock")).unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let before = (descriptors(), threads());
    let reactor = Reactor::new().unwrap();
    let with = WithAReactor(descriptors());
    drop(reactor);

    let (connects, hangs) = (server.local_addr().unwrap(), hole.local_addr().unwrap());
    with.leaves_nothing("made, and closed by this side", connects, |reactor, connector, journal| {
        turn_until(reactor, "it is connected", |_| journal.count("made") == 1);
        assert!(reactor.context().disconnect(connector));
        stops(reactor, connector, journal);
    });
    (0..10).for_each(|_| drop(server.accept().unwrap())); // those that are queued
    with.leaves_nothing("made, and closed by the other", connects, |reactor, connector, journal| {
        turn_until(reactor, "it is connected", |_| journal.count("made") == 1);
        drop(server.accept().unwrap());
        stops(reactor, connector, journal);
    });
    with.leaves_nothing("refused", free, stops);
    with.leaves_nothing("refused: no such file", folder.path("none.sock"), stops);
    with.leaves_nothing("resolved, and refused", format!("localhost:{}", free.port()), stops);
    with.leaves_nothing("timed out", hangs, stops);
    with.leaves_nothing("timed out, a full queue", folder.path("full.sock"), stops);
    with.leaves_nothing("cancelled", hangs, |reactor, connector, journal| {
        tries(reactor, connector);
        assert!(reactor.context().disconnect(connector));
        stops(reactor, connector, journal);
    });
    with.leaves_nothing("cancelled, a full queue", folder.path("full.sock"), |reactor, connector, journal| {
        tries(reactor, connector);
        assert!(reactor.context().stop_connecting(connector));
        stops(reactor, connector, journal);
    });
    with.leaves_nothing("the loop stops while it connects", hangs, |reactor, connector, _| {
        tries(reactor, connector);
        reactor.shutdown(LONG);
        reactor.run().unwrap();
    });
    for to in [Address::from(hangs), Address::from(folder.path("full.sock"))] {
        let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
        let connector = reactor.context().connect(Connect::to(to), Client::new(&journal));
        tries(&mut reactor, connector);
        drop(reactor);
        assert_eq!(journal.take(), "start failed:stopped stop");
    }
    until("the threads that have resolved names have ended", || (descriptors(), threads()) == before);
}
