//! `test_task`, `test_internet` and `test_threads`: timers, and calls from threads. What the suites of this crate show
//! already is not shown again: the table of `tests/README.md` says where.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socketserver::event_loop::TimerId;
use socketserver::testing::TestLoop;
use socketserver::Reactor;

use crate::script::Journal;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

// ClockTests

/// By the deadlines that hold at the end, and equal ones in the order in which they were set last.
#[test]
fn test_call_later_keeps_correct_order() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let mut pending: Vec<(u64, usize, TimerId)> = Vec::new(); // when, in which order it was set, which
    let (mut names, mut sets) = (std::collections::HashMap::new(), 0);
    test.act(|cx| {
        for n in 0..200_u64 {
            let (at, notes) = (n * 7919 % 23, journal.clone());
            let timer = cx.call_later(at as u32 * SECOND, move |_| notes.add(n.to_string()));
            names.insert(timer, n);
            pending.push((at, sets, timer));
            sets += 1;
        }
        for (n, place) in (0..200).step_by(3).enumerate() {
            let at = (n as u64 * 104_729) % 31;
            assert!(cx.reset(pending[place].2, at as u32 * SECOND));
            (pending[place].0, pending[place].1) = (at, sets);
            sets += 1;
        }
        pending.retain(|(at, _, timer)| at % 5 != 4 || !cx.cancel(*timer));
    });
    assert!(test.timers() < pending.len(), "those without delay have been called");
    test.advance(31 * SECOND);
    pending.sort_by_key(|(at, set, _)| (*at, *set));
    let expected: Vec<String> = pending.iter().map(|(_, _, timer)| names[timer].to_string()).collect();
    assert_eq!(journal.take(), expected.join(" "));
}

/// A call sets others anew: one sooner than the next, one behind all.
#[test]
fn test_call_later_reset_inside_call_keeps_correct_order() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let note = |text: &'static str| {
        let notes = journal.clone();
        move |_: &mut socketserver::Context<'_>| notes.add(text)
    };
    test.act(|cx| {
        let last = cx.call_later(2 * SECOND, note("last"));
        cx.call_later(3 * SECOND, note("second"));
        let first = cx.call_later(4 * SECOND, note("first"));
        cx.call_later(SECOND, move |cx| {
            assert!(cx.reset(first, SECOND / 2) && cx.reset(last, 9 * SECOND));
        });
    });
    test.advance(3 * SECOND);
    assert_eq!(journal.take(), "first second");
    test.advance(7 * SECOND - MS);
    assert_eq!(journal.take(), "");
    test.advance(MS);
    assert_eq!((journal.take().as_str(), test.timers()), ("last", 0));
}

// LoopTests: there is no such class here, but a call that sets itself again.

/// Every second until it has had enough, or is cancelled; nothing is left of it.
#[test]
fn test_basic_function() {
    fn every(cx: &mut socketserver::Context<'_>, left: u32, last: Rc<Cell<Option<TimerId>>>, journal: Journal) {
        let since = cx.now();
        let theirs = last.clone();
        let timer = cx.call_later(SECOND, move |cx| {
            assert_eq!(cx.now() - since, SECOND);
            journal.add("tick");
            if left > 1 {
                every(cx, left - 1, theirs, journal);
            }
        });
        last.set(Some(timer));
    }
    let (mut test, journal, last) = (TestLoop::new().unwrap(), Journal::default(), Rc::default());
    test.act(|cx| every(cx, 3, Rc::clone(&last), journal.clone()));
    test.advance(2 * SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("tick tick", 1));
    test.advance(10 * SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("tick", 0));
    test.act(|cx| every(cx, 10, Rc::clone(&last), journal.clone()));
    test.advance(2 * SECOND);
    test.act(|cx| assert!(cx.cancel(last.get().unwrap())));
    test.advance(10 * SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("tick tick", 0));
}

// TimeTestsBuilder, ThreadTestsBuilder

#[test]
fn test_delayed_call_stops_reactor() {
    let mut reactor = Reactor::new().unwrap();
    reactor.context().call_later(Duration::ZERO, |cx| {
        cx.call_later(Duration::ZERO, |cx| cx.stop());
    });
    reactor.run().unwrap();
}

/// What a timer's call sends to its own loop is called in the next turn, with no other event to wait for.
#[test]
fn test_delayed_call_from_thread() {
    let (mut reactor, since) = (Reactor::new().unwrap(), Instant::now());
    reactor.context().call_later(600 * SECOND, |cx| cx.stop());
    reactor.context().call_later(Duration::ZERO, |cx| {
        cx.handle().call_from_thread(|cx| cx.stop()).unwrap();
    });
    reactor.run().unwrap();
    assert!(since.elapsed() < 60 * SECOND, "{:?}", since.elapsed());
}
