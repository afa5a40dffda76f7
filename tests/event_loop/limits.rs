//! Time limits of connections, and how long a close may linger, by the manual clock.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::script::{with, Echo, Journal, Script};
use socketserver::event_loop::ConnId;
use socketserver::testing::TestLoop;
use socketserver::Transport;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

/// Which limit ends a connection, and when, after it has heard this.
fn ends_after(set: fn(&mut Transport<'_>), feed: &[&[u8]], every: Duration) -> (String, Duration) {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", move |t, _| {
        set(t);
        Ok(())
    }));
    let mut at = Duration::ZERO;
    for piece in feed {
        test.feed(id, piece);
        test.advance(every);
        at += every;
    }
    while !test.is_lost(id) && at < 100 * SECOND {
        test.advance(MS * 100);
        at += MS * 100;
    }
    let why = journal.take().split("lost:").nth(1).unwrap_or("nothing").to_owned();
    (why, at)
}

#[test]
fn each_time_limit_ends_the_right_connections() {
    let idle: fn(&mut Transport<'_>) = |t| t.set_idle_timeout(Some(2 * SECOND));
    assert_eq!(ends_after(idle, &[], SECOND), ("idle limit of 2s exceeded".into(), 2 * SECOND));
    assert_eq!(ends_after(idle, &[b"a", b"b"], SECOND), ("idle limit of 2s exceeded".into(), 3 * SECOND));
    let read: fn(&mut Transport<'_>) = |t| {
        t.set_idle_timeout(Some(9 * SECOND));
        t.set_read_timeout(Some(2 * SECOND));
        t.request_begins();
    };
    assert_eq!(ends_after(read, &[b"a", b"b"], SECOND), ("read limit of 2s exceeded".into(), 3 * SECOND));
    let request: fn(&mut Transport<'_>) = |t| t.set_request_timeout(Some(3 * SECOND));
    assert_eq!(ends_after(request, &[], SECOND).0, "nothing");
    let trickle: [&[u8]; 9] = [b"x"; 9];
    assert_eq!(ends_after(request, &trickle, SECOND / 2), ("request limit of 3s exceeded".into(), 9 * SECOND / 2));
    let ended: fn(&mut Transport<'_>) = |t| {
        t.set_request_timeout(Some(3 * SECOND));
        t.set_idle_timeout(Some(5 * SECOND));
        t.request_begins();
        t.request_ends();
    };
    assert_eq!(ends_after(ended, &[], SECOND), ("idle limit of 5s exceeded".into(), 5 * SECOND));
    let never: fn(&mut Transport<'_>) = |t| t.set_idle_timeout(Some(Duration::MAX));
    assert_eq!(ends_after(never, &[b"a"], SECOND).0, "nothing");
    let taken_back: fn(&mut Transport<'_>) = |t| {
        t.set_idle_timeout(Some(SECOND));
        t.set_idle_timeout(None);
    };
    assert_eq!(ends_after(taken_back, &[b"a"], SECOND).0, "nothing");
}

#[test]
fn the_write_limit_counts_while_nothing_is_taken() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.set_write_timeout(Some(2 * SECOND));
        Ok(())
    }));
    test.take_at_most(id, 0);
    test.act(|cx| cx.write_to(id, &[0; 100]));
    for _ in 0..10 {
        test.advance(3 * SECOND / 2);
        test.take_at_most(id, 1);
        test.act(|cx| cx.write_to(id, b"more: that is no progress of the peer"));
    }
    assert!(!test.is_lost(id), "{}", journal.take());
    test.advance(2 * SECOND - MS);
    assert!(!test.is_lost(id));
    test.advance(MS);
    assert!(test.is_lost(id) && test.is_reset(id));
    assert!(journal.take().contains("lost:write limit of 2s exceeded, "));
}

#[test]
fn an_echo_that_goes_on_is_never_idle() {
    let mut test = test_loop();
    let id = test.connect(Echo);
    let made = test.connect(Script::new(&Journal::default()).on("data", |t, data| Ok(t.write(data)?)));
    test.act(|cx| assert_eq!(cx.connections(), 2));
    for _ in 0..100 {
        test.feed(id, b"x");
        test.feed(made, b"x");
        test.advance(SECOND);
    }
    assert_eq!((test.output(id).len(), test.output(made).len(), test.timers()), (100, 100, 0));
}

#[test]
fn a_lingering_close_waits_for_the_peer_within_bounds() {
    for (every, lasts) in [(None, 2 * SECOND), (Some(19 * SECOND / 10), 30 * SECOND)] {
        let (mut test, id, journal) = with(|t, _| {
            t.write(b"answer")?;
            t.close();
            Ok(())
        });
        test.hold(id, b"a");
        test.hold(id, b"unread");
        test.settle();
        assert!(test.is_ended(id) && !test.is_lost(id), "half-closed");
        assert_eq!(test.output(id), b"answer");
        let mut at = Duration::ZERO;
        while let Some(every) = every.filter(|every| at + *every < lasts) {
            test.advance(every);
            test.feed(id, b"more");
            at += every;
        }
        test.advance(lasts - at - MS);
        assert!(!test.is_lost(id), "{every:?}");
        test.advance(MS);
        assert!(test.is_lost(id) && !test.is_reset(id), "{every:?}");
        assert_eq!((journal.take().as_str(), test.timers()), ("data:a lost:closed", 0));
    }
}

#[test]
fn a_lingering_close_ends_with_the_peer() {
    let endings: [fn(&mut TestLoop, ConnId); 3] =
        [TestLoop::eof, TestLoop::reset, |test, id| test.act(|cx| assert!(cx.abort_connection(id)))];
    for ending in endings {
        let closed = Rc::new(Cell::new(0));
        let (mut test, id, journal) = with(move |t, _| {
            closed.set(closed.get() + 1);
            assert_eq!(closed.get(), 1);
            t.close();
            Ok(())
        });
        test.hold(id, b"a");
        test.hold(id, b"unread");
        test.settle();
        assert!(!test.is_lost(id));
        ending(&mut test, id);
        assert!(test.is_lost(id));
        assert_eq!((journal.take().as_str(), test.timers()), ("data:a lost:closed", 0));
    }
}
