//! Links: a connection that forwards reads no faster than the other side takes it.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::kit::LONG;
use crate::script::{Journal, Script};
use socketserver::event_loop::{ConnId, Peer};
use socketserver::testing::TestLoop;
use socketserver::{factory, Context, EventLoop, HandlerResult, Lost, Protocol, Reactor, Transport};

const HIGH: usize = 64 << 10;
const LOW: usize = 16 << 10;
const SECOND: Duration = Duration::from_secs(1);

/// Two connections. Each copies what it hears to the other.
fn pair(test: &mut TestLoop, journal: &Journal, linked: [bool; 2]) -> [ConnId; 2] {
    let other: Rc<RefCell<Vec<ConnId>>> = Rc::default();
    let ids = [0, 1].map(|side| {
        let others = other.clone();
        let script = Script::new(journal).keep_open().on("data", move |t, data| {
            let to = others.borrow()[1 - side];
            t.write_to(to, data);
            Ok(())
        });
        let others = other.clone();
        test.connect(script.on("message", move |t, _| {
            let to = others.borrow()[1 - side];
            assert!(t.link(to) && t.link(to), "a second time changes nothing");
            Ok(())
        }))
    });
    *other.borrow_mut() = ids.to_vec();
    for side in [0, 1] {
        if linked[side] {
            test.act(|cx| cx.post(ids[side], "link"));
        }
    }
    journal.take();
    ids
}

#[test]
fn reading_pauses_at_the_other_s_high_mark_and_goes_on_at_its_low_mark() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let [a, b] = pair(&mut test, &journal, [true, false]);
    test.take_at_most(b, 0);
    test.feed(a, &[b'x'; HIGH]);
    assert!(test.is_reading(a), "65536 is not above the mark");
    test.feed(a, b"y");
    assert!(!test.is_reading(a));
    test.feed(a, b"z");
    assert_eq!(journal.count("data:z"), 0);
    test.act(|cx| assert!(cx.resume_connection(a)));
    assert!(!test.is_reading(a), "the protocol's wish does not undo it");
    test.act(|cx| assert!(cx.pause_connection(a)));
    test.take_at_most(b, HIGH + 1 - LOW);
    assert!(!test.is_reading(a), "nor does it undo the protocol's");
    test.act(|cx| assert!(cx.resume_connection(a)));
    assert!(test.is_reading(a));
    test.take_at_most(b, usize::MAX);
    assert!(test.output(b).ends_with(b"xyz"));
}

#[test]
fn one_byte_above_the_low_mark_still_waits() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let [a, b] = pair(&mut test, &journal, [true, false]);
    test.take_at_most(b, 0);
    test.feed(a, &[b'x'; HIGH]);
    test.feed(a, b"y");
    test.take_at_most(b, HIGH - LOW);
    assert!(!test.is_reading(a));
    test.take_at_most(b, 1);
    assert!(test.is_reading(a));
}

#[test]
fn both_ways_are_independent() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let [a, b] = pair(&mut test, &journal, [true, true]);
    test.take_at_most(b, 0);
    test.feed(a, &[b'x'; HIGH]);
    test.feed(a, b"y");
    assert!(!test.is_reading(a) && test.is_reading(b), "b's own long queue does not pause b");
    test.feed(b, b"back");
    assert_eq!(test.output(a), b"back");
    test.take_at_most(a, 0);
    test.feed(b, &[b'x'; HIGH]);
    test.feed(b, b"y");
    assert!(!test.is_reading(a) && !test.is_reading(b));
    test.take_at_most(b, usize::MAX);
    assert!(test.is_reading(a) && !test.is_reading(b));
    test.take_at_most(a, usize::MAX);
    assert!(test.is_reading(a) && test.is_reading(b));
}

#[test]
fn a_transfer_of_any_length_takes_bounded_memory() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let [a, b] = pair(&mut test, &journal, [true, true]);
    let (mut got, mut fed) = (0, 0);
    test.take_at_most(b, 0);
    while got < 20 << 20 {
        while fed < 20 << 20 && test.is_reading(a) {
            test.feed(a, &[b'x'; 100_000]);
            fed += 100_000;
        }
        let queued = test.act(|cx| cx.queued_of(b)).unwrap();
        assert!(queued <= 2 * HIGH, "{queued}");
        test.take_at_most(b, 50_000);
        got += test.output(b).len();
    }
}

#[test]
fn a_link_ends_with_either_connection() {
    for lost in [0, 1] {
        let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
        let ids = pair(&mut test, &journal, [true, true]);
        test.take_at_most(ids[1], 0);
        test.feed(ids[0], &[b'x'; HIGH]);
        test.feed(ids[0], b"y");
        assert!(!test.is_reading(ids[0]));
        test.act(|cx| cx.abort_connection(ids[lost]));
        assert!(test.is_lost(ids[lost]));
        let left = ids[1 - lost];
        assert_eq!(test.is_reading(left), lost == 1, "what is left of them with a long queue waits for that");
        test.take_at_most(left, usize::MAX);
        assert!(test.is_reading(left));
        test.feed(left, b"to nobody");
        assert!(!test.is_closing(left));
    }
}

#[test]
fn a_link_to_nobody_or_to_oneself_is_none() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let gone = test.connect(Script::new(&journal));
    test.reset(gone);
    let id = test.connect(Script::new(&journal).on("data", move |t, _| {
        let own = t.id();
        assert!(!t.link(gone) && !t.link(own));
        Ok(())
    }));
    test.feed(id, b"x");
    assert!(test.is_reading(id) && !test.is_lost(id));
}

#[test]
fn several_links_wait_for_the_slowest() {
    let (mut test, journal) = (TestLoop::with(EventLoop::new().water_marks(1, 10)).unwrap(), Journal::default());
    let to: Vec<_> = (0..2).map(|_| test.connect(Script::new(&journal))).collect();
    let theirs = to.clone();
    let script = Script::new(&journal).on("made", {
        let to = to.clone();
        move |t, _| {
            to.iter().for_each(|id| assert!(t.link(*id)));
            Ok(())
        }
    });
    let id = test.connect(script.on("data", move |t, data| {
        theirs.iter().for_each(|id| assert!(t.write_to(*id, data)));
        Ok(())
    }));
    to.iter().for_each(|id| test.take_at_most(*id, 0));
    test.feed(id, &[b'x'; 11]);
    assert!(!test.is_reading(id));
    test.take_at_most(to[0], 100);
    assert!(!test.is_reading(id));
    test.take_at_most(to[1], 100);
    assert!(test.is_reading(id));
}

#[test]
fn to_wait_for_a_link_is_no_idling() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let (to, link) = (test.connect(Script::new(&journal)), Rc::new(Cell::new(true)));
    let id = test.connect(Script::new(&journal).on("made", move |t, _| {
        t.set_idle_timeout(Some(5 * SECOND));
        link.set(t.link(to));
        Ok(())
    }));
    test.take_at_most(to, 0);
    test.act(|cx| cx.write_to(to, &[b'x'; HIGH + 1]));
    assert!(!test.is_reading(id));
    test.hold(id, b"waits");
    test.advance(20 * SECOND);
    test.act(|cx| cx.shutdown(100 * SECOND));
    assert!(!test.is_closing(id), "neither for the limit nor for the drain");
    test.take_at_most(to, usize::MAX);
    assert!(test.is_lost(id) && test.is_lost(to));
    assert!(journal.take().contains("data:waits"), "what the peer has sent before is served");
}

/// Copies what it hears to another connection, a little at a time, and notes the longest queue there.
struct Copier {
    to: Rc<Cell<Option<ConnId>>>,
    longest: Rc<Cell<usize>>,
    left: usize,
}

impl Protocol for Copier {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        match self.to.get() {
            None => self.to.set(Some(t.id())),
            Some(to) => assert!(t.link(to)),
        }
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let to = self.to.get().ok_or("nobody")?;
        data.chunks(1000).for_each(|part| assert!(t.write_to(to, part)));
        self.longest.set(self.longest.get().max(t.queued_of(to).ok_or("gone")?));
        self.left -= data.len();
        if self.left == 0 {
            t.stop();
        }
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _: &Lost) {
        cx.stop();
    }
}

/// A turn reads a connection several times. What it copies is not sent until the end of the turn.
#[test]
fn a_long_input_that_is_copied_is_read_once_in_a_turn() {
    const ALL: usize = 32 << 20;
    let (to, longest) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(0)));
    let mut reactor = Reactor::with(EventLoop::new().max_queued(2 * HIGH)).unwrap();
    let (target, longest_seen) = (Rc::clone(&to), longest.clone());
    let copier = move |_: &Peer| Copier { to: target.clone(), longest: longest.clone(), left: ALL };
    let port = reactor.listen_tcp("127.0.0.1:0", factory(copier)).unwrap();
    let addr = port.local_addr().socket_addr().unwrap();
    let mut takes = TcpStream::connect(addr).unwrap();
    while to.get().is_none() {
        assert!(reactor.turn(Some(LONG)).unwrap());
    }
    let mut sends = TcpStream::connect(addr).unwrap();
    let sends = thread::spawn(move || sends.write_all(&vec![b'x'; ALL]).map(|()| sends));
    let takes = thread::spawn(move || takes.read_to_end(&mut Vec::new()));
    reactor.run().unwrap();
    assert!(longest_seen.get() <= 2 * HIGH, "{}", longest_seen.get());
    drop(reactor);
    sends.join().unwrap().unwrap();
    takes.join().unwrap().unwrap();
}
