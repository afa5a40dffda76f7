//! Clients: connecting and failing to, over sockets and in memory; connecting again; what a stop makes of it.

mod kit;
mod script;

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kit::{descriptors, expect, ms, read_all, Folder, LONG};
use script::{Journal, Script};
use socketserver::{
    factory, Addr, Address, Connect, ConnectError, ConnectFailure, Connector, ConnectorState, Context, Factory, Peer,
    Protocol, Reactor,
};

const SECOND: Duration = Duration::from_secs(1);

type OnFailure = Box<dyn Fn(&mut Context<'_>, &ConnectError)>;

/// Notes what it is called for; its protocols are scripts that write into the same journal.
struct Client {
    journal: Journal,
    build: Box<dyn Fn(&Journal) -> Option<Script>>,
    on_failure: OnFailure,
}

impl Client {
    fn new(journal: &Journal) -> Self {
        let journal = journal.clone();
        Self { journal, build: Box::new(|journal| Some(Script::new(journal))), on_failure: Box::new(|_, _| ()) }
    }

    fn with(mut self, build: impl Fn(&Journal) -> Option<Script> + 'static) -> Self {
        self.build = Box::new(build);
        self
    }

    fn on_failure(mut self, act: impl Fn(&mut Context<'_>, &ConnectError) + 'static) -> Self {
        self.on_failure = Box::new(act);
        self
    }
}

impl Factory for Client {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        self.journal.add("build");
        (self.build)(&self.journal).map(|script| Box::new(script) as Box<dyn Protocol>)
    }

    fn start_factory(&self, _: &mut Context<'_>) {
        self.journal.add("start");
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        self.journal.add("stop");
    }

    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        let kind = match &error.reason {
            ConnectFailure::Resolve(_) => "resolve",
            ConnectFailure::Refused(_) => "refused",
            ConnectFailure::TimedOut(_) => "timed-out",
            ConnectFailure::Stopped => "stopped",
            _ => "system",
        };
        self.journal.add(format!("failed:{kind}"));
        (self.on_failure)(cx, error);
    }
}

fn turn_until(reactor: &mut Reactor, what: &str, mut done: impl FnMut(&mut Reactor) -> bool) {
    let by = Instant::now() + LONG;
    while !done(reactor) {
        assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
        reactor.turn(Some(ms(10))).unwrap();
    }
}

/// Runs until nothing is left of the client; its last failure's text.
fn attempt(to: Connect) -> (String, String) {
    let (mut reactor, journal, text) = (Reactor::new().unwrap(), Journal::default(), Rc::new(RefCell::default()));
    let texts = text.clone();
    let client = Client::new(&journal).on_failure(move |_, error| *texts.borrow_mut() = error.to_string());
    reactor.connect(to, client);
    turn_until(&mut reactor, "the attempt ends", |_| journal.count("stop") == 1);
    (journal.take(), text.take())
}

#[test]
fn a_client_converses_and_each_side_knows_the_other_s_address() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let client = Client::new(&journal).with(|journal| {
        Some(Script::new(journal).on("made", |t, _| {
            let (local, peer) = (t.local_addr(), t.peer_addr());
            Ok(write!(t, "{local} {peer} ")?)
        }))
    });
    let connector = reactor.connect_tcp(addr, client);
    assert_eq!(reactor.connector_state(connector), ConnectorState::Connecting);
    assert_eq!(journal.take(), "start");
    turn_until(&mut reactor, "it is connected", |r| r.connector_state(connector) == ConnectorState::Connected);
    let (mut theirs, peer) = server.accept().unwrap();
    turn_until(&mut reactor, "it has told", |_| journal.count("made") == 1);
    expect(&mut theirs, &format!("{peer} {addr} "));
    theirs.write_all(b"hello").unwrap();
    drop(theirs);
    turn_until(&mut reactor, "nothing is left", |_| journal.count("stop") == 1);
    assert_eq!(journal.take(), "build made data:hello eof lost:closed by the peer stop");
    assert_eq!(reactor.connector_state(connector), ConnectorState::Disconnected);
    assert!(!reactor.connect_again(connector) && !reactor.disconnect(connector), "it stands for nothing");
    let stats = reactor.server().stats();
    assert_eq!((stats.accepted, stats.served, stats.failed, stats.active), (0, 0, 0, 0), "nobody was served");
}
