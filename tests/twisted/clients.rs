//! `test_tcp`, `test_factories`: listening, connecting, failing to, and connecting again. What other suites
//! of this crate show is not shown again: `tests/README.md` names them.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socketserver::event_loop::{Connect, ConnectorState, Factory, ListeningPort, Peer, Reconnect};
use socketserver::testing::TestLoop;
use socketserver::{factory, Context, Error, Protocol, Reactor};

use crate::script::clients::Client;
use crate::script::{Echo, Journal, Script};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const ANY: &str = "127.0.0.1:0";

fn turn_until(reactor: &mut Reactor, mut done: impl FnMut(&mut Reactor) -> bool) {
    let by = Instant::now() + 30 * SECOND;
    while !done(reactor) {
        assert!(Instant::now() < by);
        reactor.turn(Some(10 * MS)).unwrap();
    }
}

// LoopbackTests

/// Closes its port with the first connection, which it serves.
struct Closing(Rc<RefCell<Option<ListeningPort>>>, Journal);

impl Factory for Closing {
    fn build_protocol(&self, cx: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        cx.stop_listening(self.0.borrow().as_ref().unwrap());
        self.1.add("closed");
        Some(Box::new(Echo))
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        self.1.add("stop");
    }
}

#[test]
fn test_close_port_in_protocol_factory() {
    let (mut reactor, server, client) = (Reactor::new().unwrap(), Journal::default(), Journal::default());
    let its_port = Rc::default();
    let port = reactor.listen_tcp(ANY, Closing(Rc::clone(&its_port), server.clone())).unwrap();
    its_port.replace(Some(port.clone()));
    let addr = port.local_addr().socket_addr().unwrap();
    let greets = Client::new(&client).with(|journal| {
        let script = Script::new(journal).on("made", |t, _| Ok(t.write(b"hello")?));
        Some(script.on("data", |t, _| {
            t.close();
            Ok(())
        }))
    });
    reactor.context().connect_tcp(addr, greets);
    turn_until(&mut reactor, |_| client.count("stop") == 1);
    assert_eq!(client.take(), "start build made data:hello lost:closed stop");
    assert_eq!(server.take(), "closed stop", "once build_protocol had returned");
    drop(TcpListener::bind(addr).unwrap());
}

// CannotBindTests

#[test]
fn test_cannot_bind() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap();
    let addr = port.local_addr().socket_addr().unwrap();
    let error = reactor.listen_tcp(addr, Client::new(&journal)).unwrap_err();
    assert!(matches!(&error, Error::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse), "{error}");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    assert_eq!(journal.take(), "", "the factory was not started");
    reactor.context().stop_listening(&port);
    reactor.listen_tcp(addr, Client::new(&journal)).unwrap();
    assert_eq!(journal.take(), "start");
}

// ListeningTests, FactoryTests

/// One factory, three ports: one start, one stop.
#[test]
fn test_server_start_stop() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let shared = Rc::new(Client::new(&journal));
    for _ in 0..2 {
        let ports = [0; 3].map(|_| reactor.listen_tcp(ANY, shared.clone()).unwrap());
        assert_eq!(journal.take(), "start");
        ports[1..].iter().for_each(|port| reactor.context().stop_listening(port));
        assert_eq!(journal.take(), "");
        reactor.context().stop_listening(&ports[1]);
        assert_eq!(journal.take(), "", "a port counts once");
        reactor.context().stop_listening(&ports[0]);
        assert!(reactor.turn(Some(Duration::ZERO)).unwrap());
        assert_eq!(journal.take(), "stop");
    }
}

// TCPConnectorTests, StreamClientTestsMixin

/// There from `startedConnecting`. Here from the callback that connects: nothing has begun by then, and it is told all
/// the same.
#[test]
fn test_user_fail() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let (client, ended) = (Client::new(&journal), journal.clone());
    test.act(|cx| {
        let connector = cx.connect_tcp("192.0.2.1:80", client);
        assert!(cx.stop_connecting(connector) && !cx.stop_connecting(connector));
        assert_eq!((cx.connector_state(connector), ended.take().as_str()), (ConnectorState::Disconnected, ""));
    });
    assert_eq!((journal.take().as_str(), test.attempts(), test.timers()), ("start failed:stopped stop", 0, 0));
}

#[test]
fn test_client_connection_failed_stops_reactor() {
    let free = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    reactor.context().connect_tcp(free, Client::new(&journal).on_failure(|cx, _| cx.stop()));
    reactor.run().unwrap();
    assert_eq!(journal.take(), "start failed:refused stop");
}

/// The connection is closed, and no protocol hears of it. A policy goes on, as after any loss.
#[test]
fn test_build_protocol_returning_none() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    test.answer_connects([Ok(()), Ok(()), Ok(())]);
    test.act(|cx| cx.connect_tcp("192.0.2.1:80", Client::new(&journal).with(|_| None)));
    assert_eq!((journal.take().as_str(), test.connections(), test.timers()), ("start build stop", 0, 0));
    let again = Connect::to("192.0.2.1:80").reconnect(Reconnect::new().max_retries(1));
    test.act(|cx| cx.connect(again, Client::new(&journal).with(|_| None)));
    assert_eq!((journal.take().as_str(), test.connections(), test.timers()), ("start build", 0, 1));
    test.advance(SECOND);
    assert_eq!((journal.take().as_str(), test.attempts(), test.timers()), ("build stop", 3, 0));
}

// ReconnectTestCase

/// A client that connects again from the lost callback, over sockets: the connector is the same, and the factory neither stops
/// nor starts in between.
#[test]
fn test_reconnect() {
    let server = TcpListener::bind(ANY).unwrap();
    let (mut reactor, journal, told) = (Reactor::new().unwrap(), Journal::default(), Rc::new(Cell::new(None)));
    let theirs = told.clone();
    let client = Client::new(&journal).with(move |journal| {
        let told = theirs.clone();
        Some(Script::new(journal).at_loss(move |cx, why| {
            let connector = why.connector.unwrap();
            if told.replace(Some(connector)).is_none() {
                assert!(cx.connect_again(connector));
                assert_eq!(cx.connector_state(connector), ConnectorState::Disconnected, "not within the callback");
            }
        }))
    });
    let connector = reactor.context().connect_tcp(server.local_addr().unwrap(), client);
    for made in 1..=2 {
        turn_until(&mut reactor, |_| journal.count("made") == made);
        drop(server.accept().unwrap());
        turn_until(&mut reactor, |_| journal.count("lost") == made);
    }
    turn_until(&mut reactor, |_| journal.count("stop") == 1);
    let once = "build made eof lost:closed by the peer";
    assert_eq!(journal.take(), format!("start {once} {once} stop"));
    assert_eq!(told.get(), Some(connector));
}
