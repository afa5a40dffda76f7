//! A peer that does not keep up: water marks, the pause of reading, and the cap.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::script::{Journal, Script};
use socketserver::event_loop::{ConnId, QueueFull, WriteError};
use socketserver::testing::TestLoop;
use socketserver::EventLoop;

const HIGH: usize = 64 << 10;
const LOW: usize = 16 << 10;
const CAP: usize = 8 << 20;

/// A client that takes nothing.
fn stuck(script: Script) -> (TestLoop, ConnId) {
    let mut test = TestLoop::new().unwrap();
    let id = test.connect(script);
    test.take_at_most(id, 0);
    (test, id)
}

fn write(test: &mut TestLoop, id: ConnId, n: usize) {
    test.act(|cx| assert!(cx.write_to(id, &vec![b'x'; n])));
}

#[test]
fn the_water_marks_are_exact() {
    let journal = Journal::default();
    let (mut test, id) = stuck(Script::new(&journal));
    journal.take();
    write(&mut test, id, HIGH);
    assert_eq!(journal.take(), "", "65536 is not above the mark");
    assert!(test.is_reading(id));
    write(&mut test, id, 1);
    assert_eq!(journal.take(), "pause");
    assert!(!test.is_reading(id), "reading pauses as well");
    write(&mut test, id, 1);
    test.take_at_most(id, HIGH + 2 - LOW - 1);
    assert_eq!(journal.take(), "", "one byte above the low mark");
    assert!(!test.is_reading(id));
    test.take_at_most(id, 1);
    assert_eq!(journal.take(), "resume");
    assert!(test.is_reading(id));
}

#[test]
fn pause_and_resume_alternate() {
    let journal = Journal::default();
    let (mut test, id) = stuck(Script::new(&journal).on("resume", |t, _| {
        assert!(!t.is_writing_paused());
        t.write(&vec![b'r'; HIGH])?;
        assert!(t.is_writing_paused(), "without a look at what the kernel might take");
        Ok(())
    }));
    journal.take();
    for _ in 0..5 {
        write(&mut test, id, 10_000);
    }
    write(&mut test, id, HIGH);
    assert_eq!(journal.take(), "pause");
    for _ in 0..3 {
        let queued = test.act(|cx| cx.queued_of(id)).unwrap();
        test.take_at_most(id, queued - LOW);
        assert_eq!(journal.take(), "resume pause");
    }
    test.take_at_most(id, 1_000_000);
    let all = journal.take();
    assert!(
        all.starts_with("resume") && !all.contains("pause pause") && !all.contains("resume resume resume"),
        "{all}"
    );
}

#[test]
fn input_waits_while_the_queue_is_long_and_is_read_afterwards() {
    let journal = Journal::default();
    let (mut test, id) = stuck(Script::new(&journal));
    write(&mut test, id, HIGH + 1);
    journal.take();
    test.hold(id, b"a");
    test.hold(id, b"b");
    test.eof(id);
    assert_eq!(journal.take(), "");
    test.act(|cx| assert!(cx.pause_connection(id) && cx.resume_connection(id)));
    assert_eq!(journal.take(), "reading", "one reason to pause does not undo the other");
    test.take_at_most(id, HIGH);
    assert_eq!(journal.take(), "resume data:a data:b eof");
    assert_eq!(test.output(id).len(), HIGH);
    test.take_at_most(id, 1);
    assert_eq!(journal.take(), "lost:closed by the peer");
}

#[test]
fn a_pause_of_the_protocol_outlasts_that_of_the_output() {
    let journal = Journal::default();
    let (mut test, id) = stuck(Script::new(&journal).on("pause", |t, _| {
        t.pause_reading();
        Ok(())
    }));
    write(&mut test, id, HIGH + 1);
    test.take_at_most(id, HIGH + 1);
    assert_eq!(journal.take(), "made pause resume");
    assert!(!test.is_reading(id));
    test.act(|cx| cx.resume_connection(id));
    assert!(test.is_reading(id));
}

#[test]
fn the_cap_is_exact() {
    let (journal, results) = (Journal::default(), Rc::new(Cell::new((Ok(()), Ok(())))));
    let theirs = results.clone();
    let (mut test, id) = stuck(Script::new(&journal).on("data", move |t, data| {
        if data == b"more" {
            let refused = t.write(b"x");
            theirs.set((refused, t.write(b"")));
        } else {
            t.write(&vec![0; CAP])?;
        }
        Ok(())
    }));
    test.feed(id, b"fill");
    assert_eq!((journal.take().as_str(), test.is_closing(id)), ("made data:fill pause", false));
    test.act(|cx| assert_eq!((cx.queued_of(id), cx.write_to(id, b"")), (Some(CAP), true)));
    let mut other = stuck(Script::new(&journal));
    assert!(other.0.act(|cx| cx.write_to(other.1, &vec![0; CAP])));
    assert!(!other.0.act(|cx| cx.write_to(other.1, b"x")), "one byte more");
    assert!(other.0.is_lost(other.1) && other.0.is_reset(other.1));
    journal.take();
    // The reading of the full one is paused, so it hears of it in a message's place: from another callback.
    let settings = EventLoop::new().water_marks(1, 100).max_queued(100);
    let mut small = TestLoop::with(settings).unwrap();
    let theirs = results.clone();
    let id = small.connect(Script::new(&journal).on("data", move |t, _| {
        t.write(&[0; 100])?;
        let refused = t.write(b"x");
        assert!(t.is_closing());
        theirs.set((refused, t.write(b"")));
        Ok(refused?)
    }));
    small.take_at_most(id, 0);
    small.feed(id, b"go");
    let (refused, after) = results.get();
    assert!(matches!(refused, Err(WriteError::QueueFull(QueueFull { limit: 100, .. }))), "{refused:?}");
    assert_eq!(after, Err(WriteError::Closed));
    assert_eq!(journal.take(), "made data:go lost:the output queue would exceed 100 bytes, 100 bytes unsent");
    let stats = small.reactor().server().stats();
    assert_eq!((stats.failed, stats.disconnected), (1, 0));
}

#[test]
fn a_protocol_that_heeds_the_pause_sends_any_amount_in_bounded_memory() {
    const ALL: usize = 20 << 20;
    let (journal, left, most) = (Journal::default(), Rc::new(Cell::new(ALL)), Rc::new(Cell::new(0)));
    let produce = {
        let (left, most) = (left.clone(), most.clone());
        move |t: &mut socketserver::Transport<'_>, _: &[u8]| {
            while left.get() > 0 && !t.is_writing_paused() {
                let n = left.get().min(10_000);
                t.write(&vec![b'x'; n])?;
                left.set(left.get() - n);
                most.set(most.get().max(t.queued()));
            }
            if left.get() == 0 {
                t.close();
            }
            Ok(())
        }
    };
    let script = Script::new(&Journal::default()).keep_open().on("eof", produce.clone());
    let (mut test, id) = stuck(script.on("resume", produce).at_loss({
        let journal = journal.clone();
        move |_, why| journal.add(why.to_string())
    }));
    test.eof(id);
    let mut got = 0;
    for _ in 0..1000 {
        test.take_at_most(id, 50_000);
        got += test.output(id).len();
        if test.is_lost(id) {
            break;
        }
    }
    assert_eq!((got, left.get(), journal.take().as_str()), (ALL, 0, "closed"));
    assert!(most.get() <= HIGH + 10_000, "{}", most.get());
}

#[test]
fn e5_a_peer_that_never_reads_is_cut_at_the_write_limit() {
    let journal = Journal::default();
    let (mut test, id) = stuck(Script::new(&journal).on("data", |t, data| Ok(t.write(data)?)));
    for _ in 0..100 {
        test.feed(id, &[b'x'; 10_000]);
    }
    let queued = test.act(|cx| cx.queued_of(id)).unwrap();
    assert!((HIGH..HIGH + 10_001).contains(&queued), "{queued}");
    test.advance(Duration::from_secs(30));
    assert!(test.is_lost(id) && test.is_reset(id));
    assert_eq!(test.timers(), 0);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for settings in [
        EventLoop::new().water_marks(10, 10),
        EventLoop::new().water_marks(10, 5),
        EventLoop::new().max_queued(HIGH - 1),
        EventLoop::new().slow_callback(Duration::ZERO),
    ] {
        assert!(TestLoop::with(settings).is_err(), "{settings:?}");
    }
    TestLoop::with(EventLoop::new().max_queued(HIGH)).unwrap();
}
