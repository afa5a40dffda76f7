//! Clients in memory, with a clock that the test moves: what is called in which order, and when attempts follow.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use crate::script::clients::Client;
use crate::script::{Journal, Script};
use socketserver::event_loop::{Connect, Connector, ConnectorState, Reconnect};
use socketserver::testing::TestLoop;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn test_loop() -> (TestLoop, Journal) {
    (TestLoop::new().unwrap(), Journal::default())
}

fn refused() -> io::Result<()> {
    Err(ErrorKind::ConnectionRefused.into())
}

fn steady() -> Reconnect {
    Reconnect::new().jitter(0.0)
}

fn to(policy: Reconnect) -> Connect {
    Connect::to("192.0.2.1:80").reconnect(policy)
}

fn state(test: &mut TestLoop, connector: Connector) -> ConnectorState {
    test.act(|cx| cx.connector_state(connector))
}

#[test]
fn callbacks_come_in_twisted_s_order() {
    let (mut test, journal) = test_loop();
    test.answer_connects([Ok(())]);
    let connector = test.act(|cx| cx.connect_tcp("192.0.2.1:80", Client::new(&journal)));
    let server = test.act(|cx| cx.connection_of(connector)).unwrap();
    test.feed(server, b"hello");
    test.eof(server);
    assert_eq!(journal.take(), "start build made data:hello eof lost:closed by the peer stop");
    assert_eq!(test.timers(), 0);
}

#[test]
fn nothing_happens_within_the_callback_that_connects() {
    let (mut test, journal) = test_loop();
    test.answer_connects([Ok(())]);
    let notes = journal.clone();
    test.act(|cx| {
        let connector = cx.connect_tcp("192.0.2.1:80", Client::new(&notes));
        assert_eq!((cx.connector_state(connector), notes.take().as_str()), (ConnectorState::Connecting, ""));
    });
    assert_eq!(journal.take(), "start build made");
}

#[test]
fn an_attempt_without_an_answer_ends_at_the_timeout() {
    let (mut test, journal) = test_loop();
    test.act(|cx| cx.connect_tcp("192.0.2.1:80", Client::new(&journal)));
    test.advance(30 * SECOND - MS);
    assert_eq!(journal.take(), "start");
    test.advance(MS);
    assert_eq!((journal.take().as_str(), test.timers()), ("failed:timed-out stop", 0));
    let forever = Connect::to("192.0.2.1:80").timeout(Duration::MAX);
    test.act(|cx| cx.connect(forever, Client::new(&journal)));
    test.advance(Duration::from_secs(1 << 30));
    assert_eq!(journal.take(), "start");
}

#[test]
fn delays_grow_from_attempt_to_attempt_up_to_the_cap() {
    let (mut test, journal) = test_loop();
    test.answer_connects((0..8).map(|_| refused()));
    let told = Rc::new(Cell::new(None));
    let theirs = told.clone();
    let client = Client::new(&journal).on_failure(move |_, error| theirs.set(error.retry_in));
    let connector = test.act(|cx| cx.connect(to(steady()), client));
    assert_eq!(state(&mut test, connector), ConnectorState::Disconnected);
    for (attempts, millis) in (1..).zip([1000, 2718, 7389, 20_085, 54_598, 60_000]) {
        let delay: Duration = told.take().unwrap();
        assert_eq!(delay.as_millis(), millis);
        test.advance(delay - MS);
        assert_eq!(test.attempts(), attempts, "not before {delay:?}");
        test.advance(MS);
        assert_eq!(test.attempts(), attempts + 1, "after {delay:?}");
    }
    assert_eq!((test.attempts(), test.timers()), (7, 1));
}

#[test]
fn a_stable_connection_begins_the_delays_anew_and_a_short_one_does_not() {
    let (mut test, journal) = test_loop();
    test.answer_connects([refused(), refused(), Ok(()), Ok(())]);
    let policy = steady().factor(2.0).stable_after(10 * SECOND);
    let connector = test.act(|cx| cx.connect(to(policy), Client::new(&journal)));
    test.advance(3 * SECOND);
    assert_eq!(journal.take(), "start failed:refused+1s failed:refused+2s build made");
    for (held, delay) in [(10 * SECOND - MS, 4 * SECOND), (10 * SECOND, SECOND)] {
        test.advance(held);
        let server = test.act(|cx| cx.connection_of(connector)).unwrap();
        test.eof(server);
        assert_eq!(journal.take(), "eof lost:closed by the peer");
        let before = test.attempts();
        test.advance(delay - MS);
        assert_eq!(test.attempts(), before, "after {held:?}");
        test.advance(MS);
        assert_eq!(test.attempts(), before + 1, "after {held:?}");
        journal.take();
    }
}

#[test]
fn attempts_in_a_row_end_at_the_limit() {
    let (mut test, journal) = test_loop();
    test.answer_connects((0..9).map(|_| refused()));
    let connector = test.act(|cx| cx.connect(to(steady().factor(1.0).max_retries(2)), Client::new(&journal)));
    test.advance(100 * SECOND);
    assert_eq!(journal.take(), "start failed:refused+1s failed:refused+1s failed:refused stop");
    assert_eq!((test.attempts(), test.timers()), (3, 0));
    assert!(!test.act(|cx| cx.connect_again(connector)), "nothing is left of it");
}

#[test]
fn the_factory_may_stop_it_when_it_hears_of_a_failure() {
    let (mut test, journal) = test_loop();
    test.answer_connects([refused()]);
    let client = Client::new(&journal).on_failure(|cx, error| assert!(cx.stop_reconnecting(error.connector)));
    test.act(|cx| cx.connect(to(steady()), client));
    test.advance(100 * SECOND);
    assert_eq!((journal.take().as_str(), test.attempts()), ("start failed:refused+1s stop", 1));
}

#[test]
fn each_kind_of_stop_ends_what_it_says() {
    let (mut test, journal) = test_loop();
    // While it waits.
    test.answer_connects([refused()]);
    let connector = test.act(|cx| cx.connect(to(steady()), Client::new(&journal)));
    assert!(test.act(|cx| cx.stop_connecting(connector)) && !test.act(|cx| cx.stop_connecting(connector)));
    assert_eq!((journal.take().as_str(), test.timers()), ("start failed:refused+1s stop", 0));
    // While it tries.
    for stop in 0..3 {
        let connector = test.act(|cx| cx.connect(to(steady()), Client::new(&journal)));
        assert!(test.act(|cx| match stop {
            0 => cx.stop_connecting(connector),
            1 => cx.stop_reconnecting(connector),
            _ => cx.disconnect(connector),
        }));
        assert_eq!((journal.take().as_str(), test.timers()), ("start failed:stopped stop", 0));
    }
    // While it is connected.
    test.answer_connects([Ok(()), Ok(())]);
    let connector = test.act(|cx| cx.connect(to(steady()), Client::new(&journal)));
    assert!(!test.act(|cx| cx.stop_connecting(connector)) && test.act(|cx| cx.stop_reconnecting(connector)));
    assert_eq!(state(&mut test, connector), ConnectorState::Connected);
    let server = test.act(|cx| cx.connection_of(connector)).unwrap();
    test.eof(server);
    assert_eq!(journal.take(), "start build made eof lost:closed by the peer stop");
    let connector = test.act(|cx| cx.connect(to(steady()), Client::new(&journal)));
    assert!(test.act(|cx| cx.disconnect(connector)) && !test.act(|cx| cx.disconnect(connector)));
    assert_eq!((journal.take().as_str(), test.timers()), ("start build made lost:closed stop", 0));
}

#[test]
fn a_wait_is_cut_short_by_the_program() {
    let (mut test, journal) = test_loop();
    test.answer_connects([refused(), Ok(())]);
    let connector = test.act(|cx| cx.connect(to(steady()), Client::new(&journal)));
    assert!(test.act(|cx| cx.connect_again(connector)) && !test.act(|cx| cx.connect_again(connector)));
    assert_eq!((journal.take().as_str(), test.timers()), ("start failed:refused+1s build made", 0));
}

#[test]
fn a_connection_that_its_own_protocol_closes_is_made_again() {
    let (mut test, journal) = test_loop();
    test.answer_connects([Ok(()), Ok(())]);
    let client = Client::new(&journal).with(|journal| {
        Some(Script::new(journal).on("data", |t, _| {
            t.close();
            Ok(())
        }))
    });
    let connector = test.act(|cx| cx.connect(to(steady()), client));
    let server = test.act(|cx| cx.connection_of(connector)).unwrap();
    test.feed(server, b"x");
    test.advance(SECOND);
    assert_eq!(journal.take(), "start build made data:x lost:closed build made");
}

#[test]
fn a_panic_of_the_factory_is_contained() {
    let (mut test, journal) = test_loop();
    test.answer_connects([Ok(()), refused(), Ok(())]);
    let panics = Rc::new(Cell::new(2));
    let (theirs, others) = (panics.clone(), panics.clone());
    let client = Client::new(&journal)
        .with(move |journal| {
            assert!(theirs.replace(theirs.get() - 1) <= 0, "asked to panic");
            Some(Script::new(journal))
        })
        .on_failure(move |_, _| assert!(others.replace(others.get() - 1) <= 0, "asked to panic"));
    test.act(|cx| cx.connect(to(steady().factor(1.0)), client));
    test.advance(2 * SECOND);
    assert_eq!(journal.take(), "start build failed:refused+1s build made");
    let stats = test.act(|cx| cx.server().stats());
    assert_eq!((stats.panicked, stats.failed, stats.refused), (0, 0, 0), "nobody was served");
}

#[test]
fn a_stop_cancels_attempts_and_waits_and_nothing_begins_any_more() {
    for drop_it in [false, true] {
        let (mut test, journal) = test_loop();
        let waiting = Journal::default();
        test.answer_connects([refused()]);
        test.act(|cx| cx.connect(to(steady()), Client::new(&waiting)));
        // Whatever fails is begun anew: no reason for the stop not to come to an end.
        let theirs = journal.clone();
        let client = Client::new(&journal).on_failure(move |cx, error| {
            assert!(!cx.connect_again(error.connector));
            cx.connect_tcp("192.0.2.1:80", Client::new(&theirs));
        });
        test.act(|cx| cx.connect(to(steady()), client));
        assert_eq!((waiting.take().as_str(), journal.take().as_str()), ("start failed:refused+1s", "start"));
        if drop_it {
            drop(test);
        } else {
            test.reactor().shutdown(10 * SECOND);
            assert!(!test.reactor().turn(Some(Duration::ZERO)).unwrap(), "it is over at once");
        }
        assert_eq!(waiting.take(), "stop");
        assert!(journal.take().starts_with("failed:stopped stop"));
    }
}

#[test]
fn a_factory_that_is_shared_starts_once_and_stops_once() {
    let (mut test, journal) = test_loop();
    test.answer_connects([Ok(()), Ok(()), refused()]);
    let shared = Rc::new(Client::new(&journal));
    let connectors = [0; 2].map(|_| test.act(|cx| cx.connect_tcp("192.0.2.1:80", shared.clone())));
    let port = test.reactor().listen_tcp("127.0.0.1:0", shared.clone()).unwrap();
    test.act(|cx| cx.connect_tcp("192.0.2.1:80", shared.clone()));
    assert_eq!(journal.take(), "start build made build made failed:refused");
    test.act(|cx| connectors.map(|connector| cx.disconnect(connector)));
    assert_eq!(journal.take(), "lost:closed lost:closed");
    test.act(|cx| cx.stop_listening(&port));
    assert_eq!(journal.take(), "stop");
}
