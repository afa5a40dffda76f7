//! Another protocol takes a connection over, with what the one before it had not consumed.

use crate::script;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::script::{Journal, Script};
use socketserver::event_loop::{strings, ConnId, Eof, FramedTransport, StringReceiver};
use socketserver::framing::{Encoder, LengthPrefixed, Raw};
use socketserver::testing::TestLoop;
use socketserver::{lines, Group, HandlerResult, LineReceiver, Protocol, Transport};

const SECOND: Duration = Duration::from_secs(1);
const MAX_READ: usize = 64 << 10;

/// Gives its connection to this protocol when the callback is called, with `leftover`.
fn switching(journal: &Journal, at: &'static str, next: Script, leftover: &'static [u8]) -> Script {
    let next = Cell::new(Some(next));
    Script::new(journal).on(at, move |t, _| {
        t.switch_protocol(next.take().ok_or("called twice")?, leftover);
        Ok(())
    })
}

#[test]
fn the_next_protocol_has_the_connection_once_the_callback_returns() {
    let (mut test, old, new) = (TestLoop::new().unwrap(), Journal::default(), Journal::default());
    let dropped = Rc::new(Cell::new(false));
    let theirs = dropped.clone();
    let next = Script::new(&new).on("data", |t, data| Ok(t.write(data)?));
    let script = switching(&old, "data", next, b"left").at_drop(move || theirs.set(true));
    let id = test.connect(script);
    test.hold(id, b"go");
    test.hold(id, b"more");
    test.eof(id);
    assert_eq!(old.take(), "made data:go", "no connection_lost");
    assert!(dropped.get());
    assert_eq!(new.take(), "made data:left data:more eof lost:closed by the peer");
    assert_eq!(test.output(id), b"leftmore");
}

#[test]
fn every_callback_may_switch() {
    for at in script::CALLBACKS {
        let (mut test, old, new) = (TestLoop::new().unwrap(), Journal::default(), Journal::default());
        let script = switching(&old, at, Script::new(&new).keep_open(), b"x").keep_open();
        let id = if at == "made" {
            test.connect(script)
        } else {
            test.connect(script.on("made", |t, _| {
                t.set_timer(SECOND);
                Ok(t.send_reader(&b"read"[..])?)
            }))
        };
        test.take_at_most(id, 0);
        test.act(|cx| cx.write_to(id, &[0; 100_000]));
        test.take_at_most(id, usize::MAX);
        test.feed(id, b"data");
        test.act(|cx| cx.pause_connection(id));
        test.act(|cx| cx.resume_connection(id));
        test.act(|cx| cx.post(id, "message"));
        test.advance(SECOND);
        test.eof(id);
        test.act(|cx| cx.shutdown(SECOND));
        test.advance(SECOND);
        let (old, new) = (old.take(), new.take());
        assert!(
            old.rsplit(' ').next().is_some_and(|last| last.starts_with(at)) && !old.contains("lost"),
            "{at}: {old}"
        );
        assert!(new.starts_with("made") && new.matches("data:x").count() == 1, "{at}: {new}");
        let in_order = new.find("data:data").map_or(true, |data| new.find("data:x") < Some(data));
        assert_eq!((in_order, new.matches("eof").count()), (true, 1), "{at}: {new}");
        assert_eq!((new.matches("lost:").count(), test.timers()), (1, 0), "{at}: {new}");
    }
}

#[test]
fn the_end_of_the_stream_is_told_to_the_next_one_whose_answer_counts() {
    for answer in [Eof::Close, Eof::KeepOpen] {
        let (mut test, old, new) = (TestLoop::new().unwrap(), Journal::default(), Journal::default());
        let next = Script::new(&new).on("timer", |t, _| {
            t.close();
            Ok(())
        });
        let next = if answer == Eof::KeepOpen { next.keep_open() } else { next };
        let next = next.on("made", |t, _| {
            t.set_timer(SECOND);
            Ok(())
        });
        let id = test.connect(switching(&old, "eof", next, b""));
        test.eof(id);
        assert_eq!(test.is_closing(id), answer == Eof::Close);
        test.advance(SECOND);
        let end = if answer == Eof::Close { "lost:closed by the peer" } else { "timer lost:closed" };
        assert_eq!(new.take(), format!("made eof {end}"));
    }
}

#[test]
fn a_pause_holds_what_was_left_over() {
    let (mut test, old, new) = (TestLoop::new().unwrap(), Journal::default(), Journal::default());
    let id = test.connect(switching(&old, "data", Script::new(&new), b"left").on("made", |t, _| {
        t.pause_reading();
        Ok(())
    }));
    test.act(|cx| cx.resume_connection(id));
    test.feed(id, b"go");
    assert_eq!(new.take(), "made data:left");
    let next = Script::new(&new).on("made", |t, _| {
        t.pause_reading();
        Ok(())
    });
    let id = test.connect(switching(&old, "data", next, b"left"));
    test.hold(id, b"go");
    test.hold(id, b"more");
    test.eof(id);
    assert_eq!(new.take(), "made");
    test.advance(100 * SECOND);
    assert!(!test.is_reading(id) && !test.is_closing(id));
    test.act(|cx| cx.resume_connection(id));
    assert_eq!(new.take(), "reading data:left data:more eof lost:closed by the peer");
}

#[test]
fn more_than_a_read_brings_is_given_in_parts() {
    let (mut test, journal, sizes) = (TestLoop::new().unwrap(), Journal::default(), Rc::new(RefCell::new(Vec::new())));
    let theirs = sizes.clone();
    let next = Cell::new(Some(Script::new(&Journal::default()).on("data", move |_, data| {
        theirs.borrow_mut().push(data.len());
        Ok(())
    })));
    let id = test.connect(Script::new(&journal).on("data", move |t, _| {
        t.switch_protocol(next.take().ok_or("once")?, &[b'x'; 150_000]);
        Ok(())
    }));
    test.feed(id, b"go");
    assert_eq!(*sizes.borrow(), [MAX_READ, MAX_READ, 150_000 - 2 * MAX_READ]);
}

#[test]
fn a_callback_that_fails_or_closes_keeps_the_connection() {
    for how in ["fail", "panic", "close", "abort"] {
        let (mut test, old, new) = (TestLoop::new().unwrap(), Journal::default(), Journal::default());
        let next = Cell::new(Some(Script::new(&new)));
        let id = test.connect(Script::new(&old).on("data", move |t, _| {
            t.switch_protocol(next.take().ok_or("once")?, b"left");
            match how {
                "fail" => return Err("asked to".into()),
                "panic" => panic!("asked to"),
                "close" => t.close(),
                _ => t.abort(),
            }
            Ok(())
        }));
        test.feed(id, b"go");
        assert!(test.is_lost(id));
        assert_eq!((old.count("lost:"), new.take().as_str()), (1, ""), "{how}");
    }
}

#[test]
fn of_two_switches_in_a_callback_the_second_counts() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let (a, b) = (Cell::new(Some(Script::new(&Journal::default()))), Cell::new(Some(Script::new(&journal))));
    let id = test.connect(Script::new(&Journal::default()).on("data", move |t, _| {
        t.switch_protocol(a.take().ok_or("once")?, b"a");
        t.switch_protocol(b.take().ok_or("once")?, b"b");
        Ok(())
    }));
    test.feed(id, b"go");
    assert_eq!(journal.take(), "made data:b");
}

/// Takes one byte, and gives the rest to another of its kind: no depth of the stack, whatever the length.
struct OneByte(Rc<RefCell<Vec<u8>>>);

impl Protocol for OneByte {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.0.borrow_mut().push(data[0]);
        t.switch_protocol(Self(self.0.clone()), &data[1..]);
        Ok(())
    }
}

#[test]
fn a_switch_for_each_byte_loses_none_and_keeps_the_order() {
    let (mut test, heard) = (TestLoop::new().unwrap(), Rc::new(RefCell::new(Vec::new())));
    let id = test.connect(OneByte(heard.clone()));
    let text: Vec<u8> = (0..600u32).map(|n| n as u8).collect();
    test.feed(id, &text);
    test.feed(id, b"more");
    assert_eq!(*heard.borrow(), [&text[..], b"more"].concat());
}

#[test]
fn timers_and_requests_of_the_old_one_are_none_of_the_next_one_s_and_the_rest_stays() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let group = Group::new();
    let next = Cell::new(Some(Script::new(&journal)));
    let id = test.connect(Script::new(&Journal::default()).on("data", move |t, _| {
        t.set_timer(SECOND);
        t.request_begins();
        t.set_total_timeout(Some(9 * SECOND));
        t.join(group);
        t.write(b"queued")?;
        let own = t.id();
        t.post(own, "for the next one");
        t.switch_protocol(next.take().ok_or("once")?, b"");
        Ok(())
    }));
    test.feed(id, b"go");
    assert_eq!((journal.take().as_str(), test.output(id)), ("made message", b"queued".to_vec()));
    assert_eq!((test.timers(), test.request_age(id)), (1, None), "the total limit's timer");
    test.act(|cx| assert_eq!(cx.broadcast(group, b"x", None), 1));
    test.advance(8 * SECOND);
    assert_eq!(journal.take(), "");
    test.advance(SECOND);
    assert_eq!(journal.take(), "lost:total limit of 9s exceeded");
}

/// Switches at the line `switch`, or at any other event that it is told of by the line before.
struct Upgrade {
    next: Cell<Option<Script>>,
    pauses: bool,
    raw: bool,
}

impl LineReceiver for Upgrade {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        match line {
            b"switch" => t.switch_protocol(self.next.take().ok_or("once")?, b"<"),
            b"pause" => t.pause_reading(),
            b"raw" => {
                self.raw = true;
                t.set_raw_mode(Raw::UntilSwitched);
            }
            _ => t.send_line(line)?,
        }
        if self.pauses {
            t.pause_reading();
        }
        Ok(())
    }

    fn raw_data_received(&mut self, t: &mut FramedTransport<'_>, data: &[u8]) -> HandlerResult<usize> {
        if data.len() > 1 {
            t.switch_protocol(self.next.take().ok_or("once")?, b"<");
            return Ok(1);
        }
        Ok(0)
    }

    fn message(&mut self, t: &mut FramedTransport<'_>, _: Box<dyn std::any::Any>) -> HandlerResult {
        t.switch_protocol(self.next.take().ok_or("once")?, b"<");
        Ok(())
    }
}

fn upgrade(pauses: bool) -> (TestLoop, ConnId, Journal, Rc<RefCell<Vec<u8>>>) {
    let (mut test, journal, heard) = (TestLoop::new().unwrap(), Journal::default(), Rc::new(RefCell::new(Vec::new())));
    let theirs = heard.clone();
    let next = Script::new(&journal).on("data", move |_, data| {
        theirs.borrow_mut().extend_from_slice(data);
        Ok(())
    });
    let id = test.connect(lines(Upgrade { next: Cell::new(Some(next)), pauses, raw: false }));
    (test, id, journal, heard)
}

#[test]
fn what_lines_have_kept_follows_wherever_the_stream_is_cut() {
    let text = b"a\nswitch\nmore\nlines";
    for cut in 0..text.len() {
        let (mut test, id, journal, heard) = upgrade(false);
        test.feed(id, &text[..cut]);
        test.feed(id, &text[cut..]);
        test.eof(id);
        assert_eq!(*heard.borrow(), b"<more\nlines", "{cut}");
        assert_eq!(test.output(id), b"a\n");
        let journal = journal.take();
        assert!(journal.starts_with("made data:<") && journal.ends_with("eof lost:closed by the peer"), "{journal}");
    }
    let (mut test, id, _, heard) = upgrade(false);
    test.feed_bytewise(id, text);
    assert_eq!(*heard.borrow(), b"<more\nlines");
}

#[test]
fn what_a_pause_has_kept_and_an_end_of_the_stream_that_waits_follow_as_well() {
    let (mut test, id, journal, heard) = upgrade(false);
    test.hold(id, b"pause\nkept\npart");
    test.eof(id);
    test.act(|cx| cx.post(id, "switch"));
    assert_eq!(journal.take(), "made", "still paused");
    test.act(|cx| cx.resume_connection(id));
    assert_eq!(*heard.borrow(), b"<kept\npart");
    assert_eq!(journal.take(), "reading data:<kept\npart eof lost:closed by the peer");
    // A pause and the switch in one callback.
    let (mut test, id, _, heard) = upgrade(true);
    test.hold(id, b"switch\nmore");
    test.eof(id);
    assert_eq!(*heard.borrow(), b"");
    test.act(|cx| cx.resume_connection(id));
    assert_eq!(*heard.borrow(), b"<more");
    // In the part that is parsed at the end of the stream.
    let (mut test, id, journal, heard) = upgrade(false);
    test.hold(id, b"pause\nswitch\nmore");
    test.eof(id);
    test.act(|cx| cx.resume_connection(id));
    assert_eq!(*heard.borrow(), b"<more");
    assert!(journal.take().ends_with("eof lost:closed by the peer"));
}

#[test]
fn raw_bytes_that_were_not_taken_follow() {
    let (mut test, id, _, heard) = upgrade(false);
    test.feed(id, b"raw\n");
    test.feed(id, b"1");
    test.feed(id, b"23\n4");
    assert_eq!(*heard.borrow(), b"<23\n4");
}

struct Strings(Cell<Option<Script>>);

impl StringReceiver for Strings {
    fn string_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, string: &[u8]) -> HandlerResult {
        if string == b"switch" {
            t.switch_protocol(self.0.take().ok_or("once")?, b"");
        }
        Ok(())
    }
}

#[test]
fn what_strings_have_kept_follows() {
    let text = b"\x00\x02no\x00\x06switch\x00\x04rest";
    for cut in 0..text.len() {
        let (mut test, journal, heard) = (TestLoop::new().unwrap(), Journal::default(), Rc::new(RefCell::new(vec![])));
        let theirs = heard.clone();
        let next = Script::new(&journal).on("data", move |_, data| {
            theirs.borrow_mut().extend_from_slice(data);
            Ok(())
        });
        let id = test.connect(strings(LengthPrefixed::u16(), Strings(Cell::new(Some(next)))));
        test.feed(id, &text[..cut]);
        test.feed(id, &text[cut..]);
        assert_eq!(*heard.borrow(), b"\x00\x04rest", "{cut}");
    }
}
