//! Which callback is called when: in order, never twice at once, and `connection_lost` once and last, whatever the end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::script::{Journal, Script, CALLBACKS};
use socketserver::event_loop::{ConnId, LostReason};
use socketserver::testing::TestLoop;
use socketserver::{EventLoop, Group, Transport};

const SECOND: Duration = Duration::from_secs(1);

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

#[test]
fn callbacks_come_in_order() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let client = test.connect(Script::new(&journal));
    test.feed(client, b"a");
    test.feed(client, b"");
    test.feed(client, b"b");
    test.hold(client, b"c");
    test.eof(client);
    assert_eq!(journal.take(), "made data:a data:b data:c eof lost:closed by the peer");
    assert!(test.is_lost(client));
}

#[test]
fn data_before_the_end_of_the_stream_is_delivered_first() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let client = test.connect(Script::new(&journal).on("made", |t, _| {
        t.pause_reading();
        Ok(())
    }));
    test.hold(client, b"a");
    test.hold(client, b"b");
    test.eof(client);
    assert_eq!(journal.take(), "made", "a pause in connection_made is honoured");
    test.act(|cx| assert!(cx.resume_connection(client)));
    assert_eq!(journal.take(), "reading data:a data:b eof lost:closed by the peer");
}

/// How each reason comes about, and what the protocol hears.
#[test]
fn connection_lost_comes_once_and_last_for_every_reason() {
    type Ending = fn(&mut TestLoop, ConnId);
    let cases: [(&str, &str, Ending); 11] = [
        ("closed by the peer", "", |test, id| test.eof(id)),
        ("closed", "c", |_, _| ()),
        ("aborted", "a", |_, _| ()),
        ("broken: connection reset", "", |test, id| test.reset(id)),
        ("idle limit of 1s exceeded", "", |test, _| test.advance(SECOND)),
        ("write limit of 30s exceeded, 5 bytes unsent", "w", |test, _| test.advance(30 * SECOND)),
        ("the output queue would exceed 8388608 bytes", "o", |_, _| ()),
        ("failed: asked to", "e", |_, _| ()),
        ("panicked: asked to", "p", |_, _| ()),
        ("the server stops", "", |test, _| test.act(|cx| cx.shutdown(SECOND))),
        ("drain limit of 1s exceeded", "r", |test, _| {
            test.act(|cx| cx.shutdown(SECOND));
            test.advance(SECOND);
        }),
    ];
    for (reason, letter, ending) in cases {
        let (mut test, journal) = (test_loop(), Journal::default());
        let client = test.connect(
            Script::new(&journal)
                .on("made", |t, _| {
                    t.set_idle_timeout(Some(SECOND));
                    t.set_timer(SECOND / 2);
                    Ok(())
                })
                .on("data", |t, data| {
                    match data {
                        b"c" => t.close(),
                        b"a" => t.abort(),
                        b"w" => t.write(b"hello")?,
                        b"o" => t.write(&vec![0; (8 << 20) + 1])?,
                        b"e" => return Err("asked to".into()),
                        b"p" => panic!("asked to"),
                        _ => t.request_begins(),
                    }
                    Ok(())
                }),
        );
        test.take_at_most(client, 0);
        test.feed(client, letter.as_bytes());
        ending(&mut test, client);
        assert!(test.is_lost(client), "{reason}: {}", journal.take());
        test.hold(client, b"more");
        test.eof(client);
        test.reset(client);
        test.advance(100 * SECOND);
        assert_eq!((test.timers(), test.connections()), (0, 0), "{reason}");
        let journal = journal.take();
        let end = format!("lost:{reason}");
        assert!(journal.ends_with(&end), "{reason}: {journal}");
        assert_eq!(journal.matches("lost:").count(), 1, "{journal}");
    }
}

/// Everything that a callback can do to a connection, to itself included.
fn interfere(t: &mut Transport<'_>, ids: &[ConnId], group: Group, with: &str) {
    t.join(group);
    for id in ids {
        t.write_to(*id, b"x");
        t.post(*id, "hello");
        t.pause_connection(*id);
        t.resume_connection(*id);
        t.broadcast(group, &[b'y'; 600], None);
        t.link(*id);
        let _ = match with {
            "close" => t.close_connection(*id),
            "abort" => t.abort_connection(*id),
            _ => false,
        };
    }
    t.call_later(Duration::ZERO, |_| ());
    t.set_timer(Duration::ZERO);
    let _ = t.send_reader(&b"more"[..]); // refused once it closes
    if with == "half-close" {
        t.shutdown_write();
    }
}

#[test]
fn e4_no_callback_runs_within_another() {
    for with in ["nothing", "close", "abort", "half-close"] {
        for callback in CALLBACKS {
            let settings = EventLoop::new().water_marks(10, 1500);
            let (mut test, journal) = (TestLoop::with(settings).unwrap(), Journal::default());
            let (inside, ids, once) = (Rc::default(), Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
            let group = Group::new();
            for _ in 0..3 {
                let (theirs, once) = (ids.clone(), once.clone());
                let script = Script::new(&journal).never_inside(&inside).keep_open().on("made", |t, _| {
                    t.set_timer(SECOND / 2);
                    Ok(t.send_reader(&b"read"[..])?)
                });
                let script = script.on(callback, move |t, _| {
                    if !once.replace(true) {
                        let all: Vec<_> = theirs.borrow().iter().copied().chain([t.id()]).collect();
                        interfere(t, &all, group, with);
                    }
                    Ok(())
                });
                let id = test.connect(script);
                ids.borrow_mut().push(id);
            }
            let clients = ids.borrow().clone();
            provoke_all(&mut test, &clients);
            assert!(once.get(), "{callback} was not called");
            drop(test);
            assert_eq!(
                (journal.count("lost:"), journal.count("lost:panicked")),
                (3, 0),
                "{callback}, {with}: {}",
                journal.take()
            );
        }
    }
}

/// Has every callback called.
fn provoke_all(test: &mut TestLoop, clients: &[ConnId]) {
    for id in clients.iter().copied() {
        test.feed(id, b"data");
        test.take_at_most(id, 0);
        test.act(|cx| cx.write_to(id, &[0; 2000]));
        test.take_at_most(id, usize::MAX);
        test.act(|cx| cx.pause_connection(id));
        test.act(|cx| cx.resume_connection(id));
        test.act(|cx| cx.post(id, "message"));
    }
    test.advance(SECOND);
    for id in clients.iter().copied() {
        test.eof(id);
    }
    test.act(|cx| cx.shutdown(SECOND));
}

#[test]
fn what_is_done_to_others_shows_after_the_callback() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let other = test.connect(Script::new(&journal));
    let group = Group::new();
    let client = test.connect(Script::new(&journal).on("data", move |t, _| {
        t.join(group);
        assert!(t.write_to(other, b"for you") && t.post(other, "hello"));
        assert_eq!((t.queued_of(other), t.peer_of(other).is_some()), (Some(7), true));
        assert!(t.close_connection(other), "it was open");
        assert!(!t.close_connection(other) && !t.write_to(other, b"refused") && !t.pause_connection(other));
        assert_eq!(t.connections(), 2, "nobody is gone yet");
        Ok(())
    }));
    journal.take();
    test.feed(client, b"go");
    assert_eq!(journal.take(), "data:go lost:closed", "a message to one that closes is not delivered");
    assert_eq!(test.output(other), b"for you");
}

#[test]
fn a_stale_id_stands_for_nothing_although_its_place_is_used_again() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let first = test.connect(Script::new(&journal));
    test.act(|cx| assert!(cx.post(first, "too late") && cx.close_connection(first)));
    let second = test.connect(Script::new(&journal));
    assert_ne!(first, second);
    journal.take();
    test.act(|cx| {
        assert!(!cx.write_to(first, b"x") && !cx.post(first, "x") && !cx.close_connection(first));
        assert!(!cx.abort_connection(first) && !cx.pause_connection(first) && !cx.resume_connection(first));
        assert_eq!((cx.queued_of(first), cx.peer_of(first).is_none()), (None, true));
        assert_eq!((cx.connections(), cx.queued_of(second)), (1, Some(0)));
    });
    assert_eq!(journal.take(), "");
    assert!(test.is_reading(second));
    assert_eq!(test.output(second), b"");
}

#[test]
fn a_reactor_that_is_dropped_tells_each_connection_once() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let clients: Vec<_> = (0..3).map(|_| test.connect(Script::new(&journal))).collect();
    let all = clients.clone();
    let meddler = test.connect(Script::new(&journal).at_loss(move |cx, why| {
        assert!(matches!(why.reason, LostReason::Shutdown) && !cx.abort_connection(why.id));
        for id in &all {
            cx.write_to(*id, b"x");
            cx.abort_connection(*id);
            cx.post(*id, "x");
        }
    }));
    test.take_at_most(clients[0], 0);
    test.act(|cx| cx.write_to(clients[0], b"unsent") && cx.close_connection(clients[0]));
    assert!(test.is_closing(clients[0]) && !test.is_lost(meddler));
    journal.take();
    drop(test);
    assert_eq!(journal.count("lost:"), 4, "{}", journal.take());
}

#[test]
fn messages_come_in_order_and_timers_as_well() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let notes = journal.clone();
    let client = test.connect(Script::new(&Journal::default()).on("message", move |t, text| {
        notes.add(String::from_utf8_lossy(text));
        if text == b"2" {
            let own = t.id();
            t.post(own, "4");
        }
        Ok(())
    }));
    test.act(|cx| ["1", "2", "3"].map(|text| cx.post(client, text)));
    assert_eq!(journal.take(), "1 2 3 4");
}
