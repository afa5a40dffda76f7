//! One connection: writing, closing, aborting, pausing, and its time limits.

use std::time::Duration;

use crate::script::{with, Journal, Script};
use socketserver::event_loop::WriteError;
use socketserver::testing::TestLoop;

const SECOND: Duration = Duration::from_secs(1);

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

#[test]
fn a_turn_s_output_is_one_system_call() {
    let (mut test, id, _) = with(|t, data| {
        for byte in data {
            t.write(&[*byte])?;
            write!(t, "{}", data.len())?;
        }
        Ok(t.write(b"")?)
    });
    test.hold(id, b"ab");
    test.turn();
    assert_eq!((test.output(id), test.sends(id)), (b"a2b2".to_vec(), 1));
    let large = vec![b'x'; 300_000];
    test.act(|cx| [b"small", &large[..], &large].iter().for_each(|bytes| assert!(cx.write_to(id, bytes))));
    assert_eq!((test.output(id).len(), test.sends(id)), (600_005, 1));
    test.act(|cx| assert!(cx.write_to(id, b"")));
    assert_eq!(test.sends(id), 0, "nothing to send is no call");
}

/// A copy of it into the queue would cost more than the call.
#[test]
fn a_large_piece_with_nothing_before_it_is_sent_at_once() {
    let (mut test, id, _) = with(|t, _| {
        let large = [b'x'; 16 << 10];
        t.write(&large[1..])?;
        assert_eq!(t.queued(), large.len() - 1, "a small one waits for more");
        Ok(())
    });
    test.feed(id, b"small");
    assert_eq!((test.output(id).len(), test.sends(id)), ((16 << 10) - 1, 1));
    let large = vec![b'x'; 16 << 10];
    test.act(|cx| assert!(cx.write_to(id, &large) && cx.write_to(id, b"y") && cx.write_to(id, &large)));
    assert_eq!((test.output(id).len(), test.sends(id)), (2 * large.len() + 1, 2), "at once, then the queue");
    test.take_at_most(id, 1000);
    test.act(|cx| assert!(cx.write_to(id, &large) && cx.write_to(id, &large)));
    assert_eq!((test.output(id).len(), test.sends(id)), (1000, 1), "a kernel that is full is not asked twice");
    test.take_at_most(id, usize::MAX);
    assert_eq!(test.output(id), vec![b'x'; 2 * large.len() - 1000]);
}

#[test]
fn output_arrives_whole_and_in_order_however_little_the_peer_takes() {
    let (mut test, id, journal) = with(|t, _| {
        for n in 0..20_000u32 {
            t.write(&n.to_be_bytes())?;
        }
        t.close();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    let mut got = Vec::new();
    for n in 1..1_000 {
        test.take_at_most(id, n);
        got.extend(test.output(id));
    }
    assert!(got.chunks(4).zip(0u32..).all(|(bytes, n)| bytes == n.to_be_bytes()));
    assert_eq!((got.len(), journal.take().as_str()), (80_000, "data:go lost:closed"));
}

#[test]
fn writes_after_the_end_are_refused() {
    let (mut test, id, journal) = with(|t, data| {
        t.write(b"before")?;
        if data == b"abort" {
            t.abort();
        } else {
            t.close();
        }
        assert!(t.is_closing());
        assert_eq!(t.write(b"after"), Err(WriteError::Closed));
        let own = t.id();
        assert!(!t.write_to(own, b"after") && !t.resume_connection(own));
        t.pause_reading();
        t.resume_reading();
        Ok(())
    });
    test.feed(id, b"close");
    assert_eq!((test.output(id), journal.take().as_str()), (b"before".to_vec(), "data:close lost:closed"));
    assert!(!test.is_reset(id));
    let other = test.connect(Script::new(&journal).on("data", |t, _| {
        t.write(b"before")?;
        t.abort();
        t.abort();
        t.close();
        Ok(())
    }));
    journal.take();
    test.feed(other, b"abort");
    assert_eq!((test.output(other), journal.take().as_str()), (vec![], "data:abort lost:aborted, 6 bytes unsent"));
    assert!(test.is_reset(other), "the peer sees a reset");
}

#[test]
fn close_then_abort_gives_up_what_is_queued() {
    let (mut test, id, journal) = with(|t, _| {
        t.write(b"stuck")?;
        t.close();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.feed(id, b"x");
    assert!(test.is_closing(id) && !test.is_lost(id));
    test.act(|cx| {
        assert!(!cx.close_connection(id), "it closes already");
        assert!(cx.abort_connection(id));
    });
    assert!(test.is_lost(id) && test.is_reset(id));
    assert_eq!(journal.take(), "data:x lost:aborted, 5 bytes unsent");
}

#[test]
fn a_close_in_connection_made_reads_nothing() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        write!(t, "good bye")?;
        t.close();
        Ok(())
    }));
    test.feed(id, b"ignored");
    assert_eq!((journal.take().as_str(), test.output(id)), ("made lost:closed", b"good bye".to_vec()));
}

#[test]
fn p9_after_a_close_nothing_more_is_delivered() {
    let (mut test, id, journal) = with(|t, _| {
        t.set_timer(SECOND);
        let own = t.id();
        t.post(own, "hello");
        t.close();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.hold(id, b"a");
    test.hold(id, b"b");
    test.act(|cx| cx.write_to(id, b"stuck"));
    test.advance(2 * SECOND);
    test.take_at_most(id, 100);
    test.eof(id);
    assert_eq!(journal.take(), "data:a lost:closed");
}

#[test]
fn an_end_of_the_stream_may_leave_the_other_side_open() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let script = Script::new(&journal).keep_open().on("timer", |t, _| {
        t.write(b"an answer")?;
        t.close();
        Ok(())
    });
    let id = test.connect(script.on("eof", |t, _| {
        t.set_timer(SECOND);
        Ok(())
    }));
    test.eof(id);
    assert!(!test.is_closing(id) && !test.is_reading(id));
    test.advance(SECOND);
    assert_eq!(test.output(id), b"an answer");
    assert_eq!(journal.take(), "made eof timer lost:closed");
}

#[test]
fn pausing_and_resuming_lose_nothing() {
    let (mut test, id, journal) = with(|t, _| {
        t.pause_reading();
        assert!(t.is_reading_paused());
        Ok(())
    });
    for piece in [b"a", b"b", b"c"] {
        test.feed(id, piece);
    }
    assert_eq!(journal.take(), "data:a");
    test.act(|cx| (0..4).for_each(|_| assert!(cx.pause_connection(id) && cx.resume_connection(id))));
    assert_eq!(journal.take(), "reading data:b", "told once, and paused again");
    test.act(|cx| cx.resume_connection(id));
    test.act(|cx| cx.resume_connection(id));
    assert_eq!(journal.take(), "reading data:c reading");
    test.act(|cx| assert!(cx.resume_connection(id) && cx.pause_connection(id) && cx.resume_connection(id)));
    test.act(|cx| assert!(cx.resume_connection(id), "a second one changes nothing"));
    assert_eq!(journal.take(), "reading");
}

#[test]
fn a_reset_is_noticed_while_reading_is_paused() {
    let (mut test, id, journal) = with(|t, _| {
        t.pause_reading();
        Ok(())
    });
    test.feed(id, b"a");
    test.reset(id);
    assert_eq!(journal.take(), "data:a lost:broken: connection reset");
    assert_eq!(test.reactor().server().stats().disconnected, 1);
}
