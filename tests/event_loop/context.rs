//! What `Reactor::context` asks for outside of a turn: it holds for the next one, in the order in which it was asked.

use std::cell::RefCell;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use socketserver::event_loop::{Factory, Peer};
use socketserver::{Context, HandlerResult, Protocol, Reactor, Transport};

const LONG: Option<Duration> = Some(Duration::from_secs(30));

/// A factory that notes what it is told.
#[derive(Default)]
struct Notes(RefCell<Vec<&'static str>>);

struct Silent;

impl Protocol for Silent {
    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

impl Factory for Notes {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        self.0.borrow_mut().push("build");
        Some(Box::new(Silent))
    }

    fn start_factory(&self, _: &mut Context<'_>) {
        self.0.borrow_mut().push("start");
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        self.0.borrow_mut().push("stop");
    }
}

#[test]
fn a_stop_ends_the_next_run() {
    let mut reactor = Reactor::new().unwrap();
    reactor.context().stop();
    assert!(!reactor.turn(LONG).unwrap());
    reactor.context().stop();
    reactor.run().unwrap();
}

#[test]
fn a_shutdown_ends_the_next_run_also_after_another_one() {
    let mut reactor = Reactor::new().unwrap();
    for _ in 0..3 {
        reactor.context().shutdown(Duration::ZERO);
        reactor.run().unwrap();
    }
}

#[test]
fn a_factory_of_a_client_and_a_port_is_started_before_it_builds() {
    let mut reactor = Reactor::new().unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let notes = Rc::new(Notes::default());
    reactor.context().connect_tcp(nowhere.local_addr().unwrap(), notes.clone());
    let port = reactor.listen_tcp("127.0.0.1:0", notes.clone()).unwrap();
    let _client = TcpStream::connect(port.local_addr().socket_addr().unwrap()).unwrap();
    while notes.0.borrow().iter().filter(|note| **note == "build").count() < 2 {
        assert!(reactor.turn(LONG).unwrap());
    }
    assert_eq!(*notes.0.borrow(), ["start", "build", "build"]);
    drop(reactor);
    assert_eq!(*notes.0.borrow(), ["start", "build", "build", "stop"]);
}

#[test]
fn a_factory_is_stopped_before_it_is_started_again() {
    let mut reactor = Reactor::new().unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let notes = Rc::new(Notes::default());
    let port = reactor.listen_tcp("127.0.0.1:0", notes.clone()).unwrap();
    reactor.context().stop_listening(&port);
    reactor.context().connect_tcp(nowhere.local_addr().unwrap(), notes.clone());
    drop(reactor);
    assert_eq!(*notes.0.borrow(), ["start", "stop", "start", "stop"]);
}
