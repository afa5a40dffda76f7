//! Shutdown of a loop: which connections are told, which are waited for, and when the rest is cut.

use crate::script;
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{connect, expect, ms, read_all, until, AT_ONCE};
use crate::script::{Journal, Looped, Script};
use socketserver::event_loop::ListeningPort;
use socketserver::testing::TestLoop;
use socketserver::{factory, Context, HandlerResult, Lost, Protocol, Reactor, Transport};

const ANY: &str = "127.0.0.1:0";
const SECOND: Duration = Duration::from_secs(1);

/// Says good-bye to a shutdown; never ends by itself when it has heard `busy`.
struct Polite;

impl Protocol for Polite {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        match data {
            b"busy" => t.request_begins(),
            _ => t.request_ends(),
        }
        Ok(t.write(data)?)
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        Ok(t.write(b"bye")?)
    }
}

fn polite() -> Looped {
    script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Polite)).unwrap())
}

#[test]
fn a_shutdown_closes_the_idle_at_once_and_waits_for_the_busy() {
    let looped = polite();
    let (mut idle, mut busy) = (connect(looped.addr), connect(looped.addr));
    busy.write_all(b"busy").unwrap();
    expect(&mut busy, "busy");
    until("both are there", || looped.ask(|cx| cx.connections()) == 2);
    looped.handle.shutdown(3600 * SECOND).unwrap();
    looped.handle.shutdown(3600 * SECOND).unwrap();
    assert_eq!(read_all(&mut idle), "bye");
    expect(&mut busy, "bye");
    assert!(!looped.has_ended());
    busy.write_all(b"done").unwrap();
    assert_eq!(read_all(&mut busy), "done");
    let report = looped.join();
    assert_eq!((report.served, report.drained, report.forced), (2, 2, 0), "{report}");
}

#[test]
fn at_the_end_of_the_grace_the_rest_is_cut() {
    for grace in [ms(0), ms(100)] {
        let looped = polite();
        let mut busy = connect(looped.addr);
        busy.write_all(b"busy").unwrap();
        expect(&mut busy, "busy");
        let since = Instant::now();
        let report = looped.shutdown(grace);
        assert!(since.elapsed() >= grace && since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
        assert_eq!((report.failed, report.forced), (1, 1), "{report}");
    }
}

#[test]
fn a_shutdown_before_the_run_keeps_its_grace() {
    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(ANY, factory(|_| Stubborn)).unwrap();
    let client = connect(port.local_addr().socket_addr().unwrap());
    reactor.shutdown(ms(100));
    let since = Instant::now();
    let report = reactor.run().unwrap();
    assert!(since.elapsed() < AT_ONCE, "{:?}: not the default of 10 s", since.elapsed());
    assert_eq!((report.accepted, report.forced), (1, 1), "a client in the queue is served: {report}");
    drop(client);
}

/// The stop of the run before is over: it is not taken for this one.
#[test]
fn a_shutdown_between_two_runs_ends_the_next() {
    let mut reactor = Reactor::new().unwrap();
    reactor.context().call_later(SECOND * 600, |_| ());
    for _ in 0..3 {
        reactor.shutdown(ms(100));
        reactor.run().unwrap();
    }
    reactor.context().call_later(Duration::ZERO, |cx| cx.stop());
    let since = Instant::now();
    reactor.run().unwrap();
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    assert!(reactor.turn(Some(Duration::ZERO)).unwrap(), "it was no drain: the loop goes on");
}

/// Is never idle.
struct Stubborn;

impl Protocol for Stubborn {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.request_begins();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn the_grace_counts_from_the_call() {
    let (mut reactor, lost) = (Reactor::new().unwrap(), Rc::new(Cell::new(false)));
    reactor.turn(Some(ms(0))).unwrap();
    thread::sleep(ms(300)); // the program's own work, between two turns
    let ended = lost.clone();
    let port = reactor.listen_tcp(ANY, factory(move |_| Ending(ended.clone()))).unwrap();
    let mut client = connect(port.local_addr().socket_addr().unwrap());
    client.write_all(b"x").unwrap();
    until("it is served", || {
        reactor.turn(Some(ms(10))).unwrap();
        reactor.server().stats().active == 1
    });
    thread::sleep(ms(300));
    reactor.shutdown(ms(200));
    let since = Instant::now();
    while reactor.turn(None).unwrap() {}
    assert!(lost.get() && since.elapsed() >= ms(150), "{:?}", since.elapsed());
    let addr = port.local_addr().socket_addr().unwrap();
    until("nobody listens", || std::net::TcpStream::connect(addr).is_err()); // a program that another test starts has it for a moment
}

struct Ending(Rc<Cell<bool>>);

impl Protocol for Ending {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.request_begins();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn connection_lost(&mut self, _: &mut Context<'_>, _: &Lost) {
        self.0.set(true);
    }
}

#[test]
fn a_grace_without_end_is_no_overflow_and_no_default() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.request_begins();
        Ok(())
    }));
    test.act(|cx| cx.shutdown(Duration::MAX));
    test.advance(3600 * SECOND);
    assert_eq!((journal.take().as_str(), test.is_lost(id)), ("made shutting_down", false));
}

#[test]
fn a_listener_that_is_closed_in_a_shutdown_holds_it_up_no_more() {
    let (send, ports) = mpsc::channel::<ListeningPort>();
    let looped = script::run(move |reactor| {
        reactor.server().set_max_connections(1).unwrap();
        let port = reactor.listen_tcp(ANY, factory(|_| Polite)).unwrap();
        send.send(port.clone()).unwrap();
        port
    });
    let mut busy = connect(looped.addr);
    busy.write_all(b"busy").unwrap();
    expect(&mut busy, "busy");
    let _queued: Vec<_> = (0..3).map(|_| connect(looped.addr)).collect();
    looped.handle.shutdown(3600 * SECOND).unwrap();
    expect(&mut busy, "bye");
    let port = ports.recv().unwrap();
    looped.ask(move |cx| cx.stop_listening(&port));
    busy.write_all(b"done").unwrap();
    assert_eq!(read_all(&mut busy), "done");
    assert_eq!(looped.join().accepted, 1);
}
