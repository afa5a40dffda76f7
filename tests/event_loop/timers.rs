//! Timers: order, cancel and reset, far and near, many, and those of connections.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::script::{Journal, Script};
use socketserver::event_loop::{ConnId, TimerId};
use socketserver::testing::TestLoop;
use socketserver::{Context, Reactor};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn test_loop() -> (TestLoop, Journal) {
    (TestLoop::new().unwrap(), Journal::default())
}

fn note(cx: &mut Context<'_>, journal: &Journal, delay: Duration, text: &'static str) -> TimerId {
    let journal = journal.clone();
    cx.call_later(delay, move |_| journal.add(text))
}

#[test]
fn the_earliest_comes_first_and_equal_times_keep_their_order() {
    let (mut test, journal) = test_loop();
    test.act(|cx| {
        for (delay, text) in [(3, "c1"), (1, "a1"), (2, "b1"), (1, "a2"), (3, "c2"), (2, "b2"), (1, "a3")] {
            note(cx, &journal, delay * SECOND, text);
        }
    });
    assert_eq!(test.timers(), 7);
    test.advance(SECOND - MS);
    assert_eq!(journal.take(), "");
    test.advance(MS);
    assert_eq!(journal.take(), "a1 a2 a3");
    test.advance(10 * SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("b1 b2 c1 c2", 0));
}

#[test]
fn each_sees_its_own_time_when_several_are_due() {
    let (mut test, _) = test_loop();
    let (since, seen) = (test.act(|cx| cx.now()), Rc::new(Cell::new(0)));
    for n in 1..=3 {
        let seen = seen.clone();
        test.act(|cx| {
            cx.call_later(n * SECOND, move |cx| {
                assert_eq!(cx.now() - since, n * SECOND);
                seen.set(seen.get() + n);
            })
        });
    }
    test.advance(10 * SECOND);
    assert_eq!(seen.get(), 6);
}

#[test]
fn a_timer_is_cancelled_once() {
    let (mut test, journal) = test_loop();
    let (a, b) = test.act(|cx| (note(cx, &journal, SECOND, "a"), note(cx, &journal, SECOND, "b")));
    test.act(|cx| assert!(cx.cancel(a) && !cx.cancel(a) && !cx.reset(a, MS)));
    test.advance(SECOND);
    assert_eq!(journal.take(), "b");
    test.act(|cx| assert!(!cx.cancel(b) && !cx.reset(b, MS), "it has fired"));
    let c = test.act(|cx| note(cx, &journal, SECOND, "c"));
    test.act(|cx| assert!(!cx.cancel(a) && !cx.cancel(b), "an old id stands for no new timer"));
    test.advance(SECOND);
    assert_eq!(journal.take(), "c");
    test.act(|cx| assert!(!cx.cancel(c)));
}

#[test]
fn reset_counts_from_now_and_queues_behind() {
    let (mut test, journal) = test_loop();
    let a = test.act(|cx| note(cx, &journal, 2 * SECOND, "a"));
    test.act(|cx| note(cx, &journal, 4 * SECOND, "b"));
    test.advance(SECOND);
    test.act(|cx| assert!(cx.reset(a, 3 * SECOND)));
    test.advance(2 * SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("", 2));
    test.advance(SECOND);
    assert_eq!(journal.take(), "b a");
    let (c, _) = test.act(|cx| (note(cx, &journal, 9 * SECOND, "c"), note(cx, &journal, 5 * SECOND, "d")));
    test.act(|cx| assert!(cx.reset(c, SECOND)));
    test.advance(SECOND);
    assert_eq!(journal.take(), "c", "sooner as well");
}

#[test]
fn callbacks_cancel_and_reset_each_other_and_themselves() {
    let (mut test, journal) = test_loop();
    let ids: Rc<Cell<Option<(TimerId, TimerId, TimerId)>>> = Rc::default();
    let (theirs, notes) = (ids.clone(), journal.clone());
    test.act(|cx| {
        let first = cx.call_later(SECOND, move |cx| {
            let (own, second, third) = theirs.get().unwrap();
            assert!(!cx.cancel(own) && !cx.reset(own, SECOND), "what runs has fired");
            assert!(cx.cancel(second) && cx.reset(third, SECOND));
            notes.add("first");
        });
        ids.set(Some((first, note(cx, &journal, SECOND, "second"), note(cx, &journal, SECOND, "third"))));
    });
    test.advance(SECOND);
    assert_eq!(journal.take(), "first");
    test.advance(SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("third", 0));
}

fn again(cx: &mut Context<'_>, left: u32, journal: Journal) {
    journal.add("tick");
    if left > 0 {
        cx.call_later(Duration::ZERO, move |cx| again(cx, left - 1, journal));
    }
}

#[test]
fn a_call_without_delay_runs_in_the_next_turn() {
    let (mut test, journal) = test_loop();
    let (notes, theirs) = (journal.clone(), journal.clone());
    let id = test.connect(
        Script::new(&Journal::default())
            .on("data", move |t, _| {
                notes.add("data");
                again(t, 3, notes.clone());
                t.set_timer(Duration::ZERO);
                Ok(())
            })
            .on("timer", move |_, _| {
                theirs.add("timer");
                Ok(())
            }),
    );
    test.hold(id, b"x");
    test.turn();
    assert_eq!(journal.take(), "data tick", "never in this turn");
    test.turn();
    assert_eq!(journal.take(), "tick timer");
    test.hold(id, b"x");
    test.turn();
    assert_eq!(journal.take(), "data tick tick", "a connection is served between two of them");
    test.settle();
    assert_eq!(journal.take(), "tick timer tick tick tick");
}

#[test]
fn no_delay_is_too_long() {
    let (mut test, journal) = test_loop();
    let far =
        [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 31), Duration::from_secs(1 << 40)];
    let ids = far.map(|delay| test.act(|cx| note(cx, &journal, delay, "far")));
    test.act(|cx| note(cx, &journal, SECOND, "near"));
    test.advance(Duration::from_secs(1 << 30));
    assert_eq!((journal.take().as_str(), test.timers()), ("near", 4));
    test.act(|cx| ids.iter().for_each(|id| assert!(cx.reset(*id, Duration::MAX) && cx.cancel(*id))));
    // The system's wait takes it, too.
    let mut reactor = Reactor::new().unwrap();
    reactor.context().call_later(Duration::MAX, |_| ());
    reactor.context().call_later(Duration::from_secs(1 << 31), |_| ());
    reactor.context().call_later(MS, |cx| cx.stop());
    reactor.run().unwrap();
}

#[test]
fn a_connection_s_timers_end_with_it() {
    let (mut test, journal) = test_loop();
    let script = Script::new(&journal).on("made", |t, _| {
        t.set_idle_timeout(Some(3 * SECOND));
        for n in 1..=10 {
            t.set_timer(n * SECOND);
        }
        let gone = t.set_timer(SECOND);
        assert!(t.cancel(gone) && !t.cancel(gone));
        Ok(())
    });
    let id = test.connect(script);
    assert_eq!(test.timers(), 11);
    test.advance(SECOND);
    assert_eq!(journal.take(), "made timer");
    test.reset(id);
    assert_eq!((test.timers(), journal.take().as_str()), (0, "lost:broken: connection reset"));
    test.advance(20 * SECOND);
    assert_eq!(journal.take(), "");
}

#[test]
fn another_s_callback_may_cancel_a_connection_s_timer() {
    let (mut test, journal) = test_loop();
    let set: Rc<Cell<Option<TimerId>>> = Rc::default();
    let theirs = set.clone();
    test.connect(Script::new(&journal).on("made", move |t, _| {
        theirs.set(Some(t.set_timer(SECOND)));
        Ok(())
    }));
    let timer = set.get().unwrap();
    test.act(|cx| assert!(cx.reset(timer, 2 * SECOND)));
    test.advance(SECOND);
    assert_eq!(journal.take(), "made");
    test.act(|cx| assert!(cx.cancel(timer)));
    test.advance(SECOND);
    assert_eq!((journal.take().as_str(), test.timers()), ("", 0));
}

#[test]
fn e7_a_hundred_thousand_timers_are_set_and_cancelled() {
    let (mut test, _) = test_loop();
    let since = Instant::now();
    let fired = Rc::new(Cell::new(0));
    test.act(|cx| {
        let ids: Vec<_> = (0..100_000u32)
            .map(|n| {
                let fired = fired.clone();
                cx.call_later(SECOND + n % 1000 * MS, move |_| fired.set(fired.get() + 1))
            })
            .collect();
        for id in &ids {
            assert!(cx.reset(*id, 2 * SECOND));
        }
        ids.iter().step_by(2).for_each(|id| assert!(cx.cancel(*id)));
    });
    assert_eq!(test.timers(), 50_000);
    test.advance(2 * SECOND);
    assert_eq!((fired.get(), test.timers()), (50_000, 0));
    assert!(since.elapsed() < 20 * SECOND, "{:?}", since.elapsed());
}

#[test]
fn a_timer_in_a_callback_of_the_loop_s_end_is_dropped() {
    let (mut test, journal) = test_loop();
    let notes = journal.clone();
    let _: ConnId = test.connect(Script::new(&journal).at_loss(move |cx, _| {
        note(cx, &notes, Duration::ZERO, "never");
    }));
    drop(test);
    assert_eq!(journal.take(), "made lost:the server stops");
}
