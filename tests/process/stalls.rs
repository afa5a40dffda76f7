//! Callbacks that hold the loop up are told.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::kit::{expect, ms, serve, until};
use crate::script::Echo;
use socketserver::event_loop::{Factory, Peer};
use socketserver::{factory, Context, EventLoop, Failure, HandlerResult, Protocol, Reactor, ServerBuilder, Transport};

const ANY: &str = "127.0.0.1:0";

/// Repeats what it hears, `slow` slowly.
struct Doer;

impl Protocol for Doer {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        if data == b"slow" {
            thread::sleep(ms(50));
        }
        Ok(t.write(data)?)
    }
}

fn ask(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).unwrap();
    expect(client, text);
}

type Stalls = Arc<Mutex<Vec<(&'static str, bool, Duration)>>>;

#[test]
fn e1_each_slow_callback_is_told_with_its_name() {
    alone!();
    let stalls = Stalls::default();
    let seen = stalls.clone();
    let server = ServerBuilder::new().strategy(EventLoop::new().slow_callback(ms(10)));
    let server = server.handle_error(move |failure| {
        if let Failure::Stalled { callback, peer, took, .. } = failure {
            seen.lock().unwrap().push((*callback, peer.is_some(), *took));
        }
    });
    let server = serve(server.bind(ANY, factory(|_| Doer)).unwrap());
    let mut client = server.connect();
    ask(&mut client, "fast");
    ask(&mut client, "slow");
    ask(&mut client, "slow");
    // The client may have its answer before the callback has returned.
    until("both are told", || stalls.lock().unwrap().iter().filter(|(_, _, took)| *took >= ms(50)).count() >= 2);
    let told = stalls.lock().unwrap().clone();
    // On a loaded machine, others may have been slow as well.
    let slow: Vec<_> = told.iter().filter(|(_, _, took)| *took >= ms(50)).collect();
    assert!(slow.len() >= 2 && slow.iter().all(|(_, peer, _)| *peer), "{told:?}");
    assert!(slow.iter().filter(|(callback, ..)| *callback == "data_received").count() >= 2, "{told:?}");
    assert!(told.iter().all(|(_, _, took)| *took >= ms(10)), "{told:?}");
    drop(client);
    server.stop();
}

/// Takes its time in making a protocol.
struct SlowFactory;

impl Factory for SlowFactory {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        thread::sleep(ms(50));
        Some(Box::new(Echo))
    }
}

#[test]
fn a_slow_factory_is_told_by_its_own_name() {
    alone!();
    let stalls = Stalls::default();
    let seen = stalls.clone();
    let server = ServerBuilder::new().strategy(EventLoop::new().slow_callback(ms(10))).handle_error(move |failure| {
        if let Failure::Stalled { callback, peer, took, .. } = failure {
            seen.lock().unwrap().push((*callback, peer.is_some(), *took));
        }
    });
    let server = serve(server.bind(ANY, SlowFactory).unwrap());
    assert_eq!(server.ask("x"), "x");
    server.stop();
    let told = stalls.lock().unwrap().clone();
    let factory =
        |(callback, peer, took): &(&str, bool, Duration)| *callback == "build_protocol" && *peer && *took >= ms(50);
    assert!(told.iter().any(factory), "{told:?}");
}

#[test]
fn what_a_program_does_between_turns_is_no_slow_callback() {
    alone!();
    struct Log(Mutex<Vec<String>>);
    impl log::Log for Log {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            if record.args().to_string().contains("_factory") {
                self.0.lock().unwrap().push(record.args().to_string());
            }
        }
        fn flush(&self) {}
    }
    static LOG: Log = Log(Mutex::new(Vec::new()));
    log::set_logger(&LOG).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let mut reactor = Reactor::with(EventLoop::new().slow_callback(ms(100))).unwrap();
    thread::sleep(ms(150));
    let port = reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap();
    reactor.turn(Some(ms(0))).unwrap();
    thread::sleep(ms(150));
    reactor.context().stop_listening(&port);
    drop(reactor);
    assert!(LOG.0.lock().unwrap().is_empty(), "{:?}", LOG.0.lock().unwrap());
}
