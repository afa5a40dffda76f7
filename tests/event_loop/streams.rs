//! A transport as a stream of the standard library; one message to a group.

use std::io::{self, ErrorKind, Read, Write};

use crate::kit::loops::Rig;
use crate::kit::{expect, until};
use crate::script::{Journal, Script};
use socketserver::event_loop::{TransportStream, WriteError};
use socketserver::testing::TestLoop;
use socketserver::{EventLoop, EventLoops, Group, HandlerResult, Protocol, ServerBuilder, Transport};

#[test]
fn a_transport_is_a_writer_of_the_standard_library() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("data", |t, data| {
        io::copy(&mut &data[..], t)?;
        t.write_all(b" copied")?;
        t.flush()?;
        Ok(())
    });
    let id = test.connect(script);
    test.feed(id, b"all of it");
    assert_eq!((test.output(id).as_slice(), test.sends(id)), (&b"all of it copied"[..], 1));
}

#[test]
fn a_stream_reads_what_was_lent_and_then_would_block() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("data", |t, data| {
        let mut stream: TransportStream<'_> = t.stream(data);
        let mut two = [0; 2];
        stream.read_exact(&mut two)?;
        stream.write_all(stream.unread())?;
        let mut rest = Vec::new();
        let e = stream.read_to_end(&mut rest).unwrap_err();
        assert_eq!((&two, rest.as_slice(), e.kind()), (b"ab", &b"cd"[..], ErrorKind::WouldBlock));
        assert_eq!(stream.read(&mut []).unwrap(), 0, "nothing was asked for");
        stream.transport().close();
        Ok(())
    });
    let id = test.connect(script);
    test.feed(id, b"abcd");
    assert_eq!((test.output(id).as_slice(), journal.take().as_str()), (&b"cd"[..], "made data:abcd lost:closed"));
}

/// An error of a crate that writes, with what it was told inside.
#[derive(Debug)]
struct Wrapped(io::Error);

impl std::fmt::Display for Wrapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wrapped")
    }
}

impl std::error::Error for Wrapped {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_refused_write_is_no_failure_however_deep() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let late = |t: &mut Transport<'_>| {
        t.close();
        let e = Write::write(t, b"late").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::BrokenPipe);
        e
    };
    for wraps in [false, true] {
        let script = Script::new(&journal).on("data", move |t, _| {
            let e = late(t);
            Err(if wraps { Wrapped(e).into() } else { e.into() })
        });
        let id = test.connect(script);
        test.feed(id, b"x");
        assert_eq!(journal.take(), "made data:x lost:closed");
    }
    let script = Script::new(&journal).on("data", move |t, _| {
        late(t);
        Err(Wrapped(ErrorKind::BrokenPipe.into()).into())
    });
    let id = test.connect(script);
    test.feed(id, b"x");
    assert_ne!(journal.take(), "made data:x lost:closed", "the write of another stream");
}

#[test]
fn a_queue_that_is_full_is_an_error_of_the_stream() {
    let mut test = TestLoop::with(EventLoop::new().water_marks(1, 2).max_queued(10)).unwrap();
    let script = Script::new(&Journal::default()).on("data", |t, data| {
        let e = t.stream(data).write_all(&[0; 11]).unwrap_err();
        let inside = e.get_ref().and_then(|e| e.downcast_ref::<WriteError>());
        assert!(matches!(inside, Some(WriteError::QueueFull(_))), "{e:?}");
        Ok(())
    });
    let id = test.connect(script);
    test.feed(id, b"x");
}

/// Joins a group, and writes the numbers that it is told.
struct Told(Group);

impl Protocol for Told {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.join(self.0);
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let me = t.id();
        let reached = t.post_to_group(self.0, data.len(), Some(me));
        Ok(writeln!(t, "reached {reached}")?)
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn std::any::Any>) -> HandlerResult {
        let n = message.downcast::<usize>().map_err(|_| "no number")?;
        Ok(writeln!(t, "told {n}")?)
    }
}

#[test]
fn a_message_reaches_each_member_of_a_group_once() {
    let (mut test, group) = (TestLoop::new().unwrap(), Group::new());
    let all = [0; 3].map(|_| test.connect(Told(group)));
    let other = test.connect(Told(Group::new()));
    test.feed(all[1], b"abc");
    let outputs = all.map(|id| String::from_utf8(test.output(id)).unwrap());
    assert_eq!(outputs, ["told 3\n", "reached 2\n", "told 3\n"]);
    assert_eq!(test.output(other), b"");
    test.act(move |cx| {
        cx.close_connection(all[0]);
        assert_eq!(cx.post_to_group(group, 1_usize, None), 2, "one is closing");
        assert_eq!(cx.post_to_group(Group::new(), 1_usize, None), 0);
    });
}

#[test]
fn each_member_gets_a_copy_in_the_order_of_the_joins() {
    let (mut test, group, journal) = (TestLoop::new().unwrap(), Group::new(), Journal::default());
    for n in 0..3 {
        let notes = journal.clone();
        let script = Script::new(&Journal::default()).on("made", move |t, _| {
            t.join(group);
            Ok(())
        });
        test.connect(script.on("message", move |_, _| {
            notes.add(n.to_string());
            Ok(())
        }));
    }
    let counted = std::sync::Arc::new(());
    let theirs = counted.clone();
    test.act(move |cx| assert_eq!(cx.post_to_group(group, theirs, None), 3));
    assert_eq!((journal.take().as_str(), std::sync::Arc::strong_count(&counted)), ("0 1 2", 1));
}

#[test]
fn a_message_to_a_group_crosses_loops() {
    let rig = Rig::new(ServerBuilder::new().strategy(EventLoops::new(2)));
    let mut clients = rig.one_in_each(2);
    let (room, here, me) = (rig.room, clients[0].place, clients[0].id);
    until("only these two are left", || rig.ask(here, move |cx| cx.members(room)) == 2);
    assert_eq!(rig.ask(here, move |cx| cx.post_to_group(room, "to the other", Some(me))), 1);
    assert_eq!(rig.ask(here, move |cx| cx.post_to_group(room, "to all", None)), 2);
    expect(&mut clients[0].socket, "to all");
    expect(&mut clients[1].socket, "to the otherto all");
}
