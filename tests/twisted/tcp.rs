//! `test_tcp` (both of that name), `test_basic`: what a transport does.
//!
//! On a loop in memory, but where the kernel matters. Where a promise is another one on purpose, the comment says so.

use std::cell::{Cell, RefCell};
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use socketserver::testing::TestLoop;
use socketserver::{factory, Eof, EventLoop, HandlerResult, Protocol, Transport, WriteError};

use crate::script::{self, with, Journal, Script};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const ANY: &str = "127.0.0.1:0";

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

fn connect(looped: &script::Looped) -> TcpStream {
    let client = TcpStream::connect(looped.addr).unwrap();
    client.set_read_timeout(Some(30 * SECOND)).unwrap();
    client.set_write_timeout(Some(30 * SECOND)).unwrap();
    client
}

/// A connection that does this at its beginning.
fn made(act: impl FnMut(&mut Transport<'_>, &[u8]) -> HandlerResult + 'static) -> Script {
    Script::new(&Journal::default()).on("made", act)
}

// LargeBufferTests, WriteDataTests

/// 60 MB, a byte a millisecond later, and the end. With us no more than 8 MiB are queued at once, so it is a reader.
#[test]
fn test_writer_of_a_large_buffer() {
    const ALL: usize = 60_000_000;
    struct Writes;
    impl Protocol for Writes {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.set_timer(MS);
            Ok(t.send_reader(std::io::repeat(b'X').take(ALL as u64))?)
        }
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::TimerId) -> HandlerResult {
            t.write(b"Y")?;
            t.close();
            Ok(())
        }
    }
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Writes)).unwrap());
    let mut got = Vec::new();
    connect(&looped).read_to_end(&mut got).unwrap();
    assert!(got.len() == ALL + 1 && got.ends_with(b"XY"), "{}", got.len());
}

#[test]
fn test_writer_of_many_small_pieces() {
    let mut test = test_loop();
    let id = test.connect(made(|t, _| {
        (0..100_000u32).try_for_each(|n| t.write(&n.to_be_bytes()))?;
        t.close();
        Ok(())
    }));
    assert!(test.is_lost(id));
    let got = test.output(id);
    assert!(got.len() == 400_000 && got.chunks(4).zip(0u32..).all(|(bytes, n)| bytes == n.to_be_bytes()));
}

/// After the end: a no-op there, refused here. Neither is an error of the connection.
#[test]
fn test_write_after_the_connection_is_lost() {
    let (mut test, id, journal) = with(|t, _| {
        t.close();
        assert_eq!(t.write(b"x"), Err(WriteError::Closed));
        Ok(t.write_vectored(&[IoSlice::new(b"x")])?)
    });
    test.feed(id, b"go");
    assert!(!test.act(|cx| cx.write_to(id, b"x")));
    assert_eq!((test.output(id), journal.take().as_str()), (vec![], "data:go lost:closed"));
}

/// Paused, so that nothing is read, a connection whose client is gone is noticed by its writes. With us, without them
/// as well: see `test_connection_lost_after_paused_transport`.
#[test]
fn test_write_after_shutdown_without_reading() {
    struct Unreading(mpsc::Sender<String>);
    impl Protocol for Unreading {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.pause_reading();
            t.set_timer(MS);
            Ok(())
        }
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Err("it is paused".into())
        }
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::TimerId) -> HandlerResult {
            t.set_timer(MS);
            Ok(t.write(b"x")?)
        }
        fn connection_lost(&mut self, _: &mut socketserver::Context<'_>, why: &socketserver::Lost) {
            let _ = self.0.send(why.to_string());
        }
    }
    let (lost, told) = mpsc::channel();
    let build = factory(move |_| Unreading(lost.clone()));
    let looped = script::run(move |reactor| reactor.listen_tcp(ANY, build).unwrap());
    drop(connect(&looped));
    let why = told.recv_timeout(30 * SECOND).unwrap();
    assert!(why.starts_with("broken: "), "{why}");
}

// HalfCloseTests

#[test]
fn test_close_write_closer() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("data", |t, _| {
        t.write(b"hello")?;
        t.shutdown_write();
        assert_eq!(t.write(b"refused"), Err(WriteError::Closed), "a no-op there");
        Ok(())
    }));
    test.feed(id, b"go");
    assert_eq!(test.output(id), b"hello");
    assert!(test.is_ended(id) && !test.is_closing(id));
    test.feed(id, b"the other direction goes on");
    test.eof(id);
    assert_eq!(journal.take(), "made data:go data:the other direction goes on eof lost:closed by the peer");
}

/// There a callback tells that the half is closed. Here the protocol knows, since it has asked; the peer's end, which
/// it cannot know, is told. And when both have ended, so has the connection, without another call.
#[test]
fn test_write_close_notification() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).keep_open().on("made", |t, _| {
        t.shutdown_write();
        Ok(())
    }));
    assert!(test.is_ended(id));
    test.eof(id);
    assert_eq!((journal.take().as_str(), test.is_lost(id)), ("made eof lost:closed by the peer", true));
}

// HalfCloseNoNotificationAndShutdownExceptionTests

/// A protocol that does not care for half-closes: the data arrives, then the end. There what is queued is dropped;
/// here it is sent first.
#[test]
fn test_no_notification() {
    let (mut test, id, journal) = with(|t, data| Ok(t.write(data)?));
    test.take_at_most(id, 0);
    test.hold(id, b"hello");
    test.eof(id);
    assert!(!test.is_lost(id));
    test.take_at_most(id, usize::MAX);
    assert_eq!(
        (test.output(id), journal.take().as_str()),
        (b"hello".to_vec(), "data:hello eof lost:closed by the peer")
    );
}

#[test]
fn test_shutdown_exception() {
    struct Shuts;
    impl Protocol for Shuts {
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
        fn eof_received(&mut self, t: &mut Transport<'_>) -> Result<Eof, socketserver::BoxError> {
            t.shutdown_write(); // of a connection whose client is gone
            Ok(Eof::KeepOpen)
        }
    }
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Shuts)).unwrap());
    for _ in 0..10 {
        drop(connect(&looped));
    }
    let mut asks = 0;
    while looped.handle.server().stats().accepted < 10 || looped.ask(|cx| cx.connections()) > 0 {
        asks += 1;
        assert!(asks < 30_000);
        std::thread::sleep(MS);
    }
    assert_eq!(looped.handle.server().stats().failed, 0, "silent");
}

// HalfCloseBuggyApplicationTests

#[test]
fn test_read_notification_raises() {
    for how in ["error", "panic"] {
        let (mut test, journal) = (test_loop(), Journal::default());
        let id = test.connect(Script::new(&journal).keep_open().on("eof", move |_, _| match how {
            "error" => Err("oops".into()),
            _ => panic!("oops"),
        }));
        test.eof(id);
        assert!(test.is_lost(id) && journal.take().ends_with("ed: oops"), "{how}");
        assert_eq!(test.reactor().server().stats().failed, 1, "counted and told, not only logged");
    }
}

/// There is no callback for the write half; the nearest is that for what was sent before.
#[test]
fn test_write_notification_raises() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let script = Script::new(&journal).on("made", |t, _| {
        t.send_reader(&b"hello"[..])?;
        t.shutdown_write();
        Ok(())
    });
    let id = test.connect(script.on("transfer", |_, _| Err("oops".into())));
    assert_eq!((test.output(id), journal.take().as_str()), (b"hello".to_vec(), "made transfer lost:failed: oops"));
}

// PauseProducingTests, CallBackOrderTests

#[test]
fn test_pause_producing_in_connection_made() {
    let journal = Journal::default();
    let mut test = test_loop();
    let id = test.connect(Script::new(&journal).on("made", |t, _| {
        t.pause_reading();
        Ok(())
    }));
    test.feed(id, b"waits");
    assert_eq!((journal.take().as_str(), test.is_reading(id)), ("made", false));
}

#[test]
fn test_lose_order() {
    let (mut test, journal, notes) = (test_loop(), Journal::default(), Rc::new(RefCell::new(Vec::new())));
    let theirs = notes.clone();
    let script = Script::new(&journal).at_drop(move || theirs.borrow_mut().push("dropped"));
    let theirs = notes.clone();
    let id = test.connect(script.at_loss(move |cx, why| {
        assert!(cx.peer_of(why.id).is_none(), "it is gone already");
        theirs.borrow_mut().push("lost");
    }));
    test.hold(id, b"last");
    test.eof(id);
    assert_eq!(journal.take(), "made data:last eof lost:closed by the peer");
    assert_eq!(*notes.borrow(), ["lost", "dropped"]);
}

// TCPConnectionTests

#[test]
fn test_stop_start_reading() {
    let (mut test, got) = (test_loop(), Rc::new(RefCell::new(Vec::new())));
    let heard = got.clone();
    let script = made(|t, _| {
        (0..4).for_each(|_| {
            t.pause_reading();
            t.resume_reading();
        });
        Ok(())
    });
    let id = test.connect(script.on("data", move |_, data| {
        heard.borrow_mut().extend_from_slice(data);
        Ok(())
    }));
    let all = [[b'x'; 8192], [b'y'; 8192]].concat();
    test.feed(id, &all);
    assert_eq!(*got.borrow(), all);
}

#[test]
fn test_resume_producing() {
    let (mut test, id, _) = with(|_, _| Ok(()));
    test.act(|cx| cx.pause_connection(id));
    assert!(!test.is_reading(id));
    test.act(|cx| cx.resume_connection(id));
    assert!(test.is_reading(id));
}

#[test]
fn test_resume_producing_while_disconnecting() {
    let (mut test, id, journal) = with(|t, _| {
        t.write(b"stuck")?;
        t.close();
        t.resume_reading();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.feed(id, b"a");
    test.act(|cx| assert!(!cx.resume_connection(id)));
    test.feed(id, b"b");
    assert_eq!((journal.take().as_str(), test.is_reading(id)), ("data:a", false));
}

#[test]
fn test_resume_producing_while_disconnected() {
    let (mut test, id, journal) = with(|_, _| Ok(()));
    test.reset(id);
    test.act(|cx| assert!(!cx.resume_connection(id)));
    assert_eq!((test.is_reading(id), journal.take().as_str()), (false, "lost:broken: connection reset"));
}

#[test]
fn test_connection_lost_after_paused_transport() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let script = Script::new(&journal).on("data", |t, _| {
        t.pause_reading();
        t.set_timer(Duration::ZERO);
        Ok(())
    });
    let id = test.connect(script.on("timer", |t, _| {
        t.resume_reading();
        Ok(())
    }));
    test.hold(id, b"bytes");
    test.eof(id);
    assert_eq!(journal.take(), "made data:bytes timer reading eof lost:closed by the peer");
    let (mut test, id, journal) = with(|t, _| {
        t.pause_reading();
        Ok(())
    });
    test.feed(id, b"bytes");
    test.reset(id);
    assert_eq!(journal.take(), "data:bytes lost:broken: connection reset", "noticed although it is paused");
}

/// Twisted's #3037.
#[test]
fn test_double_half_close() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).keep_open().on("eof", |t, _| {
        t.shutdown_write();
        t.close();
        Ok(())
    }));
    test.eof(id);
    assert_eq!((test.is_lost(id), journal.take().as_str()), (true, "made eof lost:closed"));
}

// WriteSequenceTests

#[test]
fn test_write_sequence_without_write() {
    let mut test = test_loop();
    let id = test.connect(made(|t, _| {
        t.write_vectored(&[b"Some ", b"bytes ", b"split"].map(|part: &[u8]| IoSlice::new(part)))?;
        t.close();
        Ok(())
    }));
    assert_eq!((test.output(id), test.sends(id)), (b"Some bytes split".to_vec(), 1));
}

// A producer here is a protocol that writes until `is_writing_paused` and goes on at `resume_writing`, or a reader; there
// is none to register, so none to register twice.

/// Producers that push: paused above the mark, resumed at the low one, and each pair anew (#811).
#[test]
fn test_streaming_producer() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("resume", |t, _| Ok(t.write(&[b'x'; 100_000])?)));
    test.take_at_most(id, 0);
    test.act(|cx| cx.write_to(id, &[b'x'; 65_536]));
    assert_eq!(journal.take(), "made", "65536 is not above it");
    test.act(|cx| cx.write_to(id, b"x"));
    assert_eq!(journal.take(), "pause");
    test.act(|cx| cx.write_to(id, b"x"));
    assert_eq!(journal.take(), "", "told once, not at every further write");
    for _ in 0..3 {
        let queued = test.act(|cx| cx.queued_of(id)).unwrap();
        test.take_at_most(id, queued);
        assert_eq!(journal.take(), "resume pause");
    }
}

/// Producers that are pulled: asked at once, and again when what they gave is sent; never paused.
#[test]
fn test_non_streaming_producer() {
    struct Pulled(Rc<Cell<usize>>);
    impl Read for Pulled {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.set(self.0.get() + 1);
            buffer[..1].fill(b'x');
            Ok(usize::from(self.0.get() <= 3))
        }
    }
    let (mut test, pulls) = (test_loop(), Rc::new(Cell::new(0)));
    let theirs = pulls.clone();
    let id = test.connect(Script::new(&Journal::default()).on("data", move |t, _| {
        t.send_reader(Pulled(theirs.clone()))?;
        t.close();
        Ok(())
    }));
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    assert_eq!(pulls.get(), 1);
    test.take_at_most(id, 1);
    assert_eq!(pulls.get(), 2);
    test.take_at_most(id, 1);
    test.take_at_most(id, 1);
    assert_eq!((pulls.get(), test.output(id), test.is_lost(id)), (4, b"xxx".to_vec(), true), "closed when it ends");
}

// AbortConnectionTests

/// Whatever follows an abort: the reset, one `connection_lost` outside of the callback, and nothing left behind.
fn assert_aborts(act: fn(&mut Transport<'_>) -> HandlerResult, at: &'static str, reason: &str) {
    let mut test = TestLoop::with(EventLoop::new().water_marks(1, 100)).unwrap();
    let (journal, inside) = (Journal::default(), Rc::default());
    let script = Script::new(&journal).never_inside(&inside).on(at, move |t, _| act(t));
    let id = test.connect(script);
    if at != "data" {
        test.take_at_most(id, 0);
        test.act(|cx| cx.write_to(id, &[b'x'; 1000]));
        test.take_at_most(id, 999);
    }
    test.feed(id, b"go");
    assert!(test.is_lost(id), "{at}: {}", journal.take());
    assert_eq!((test.is_reset(id), test.timers(), journal.count("lost:")), (true, 0, 1), "{at}");
    assert!(journal.take().contains(reason));
}

#[test]
fn test_data_received_abort() {
    assert_aborts(|t| Ok(t.abort()), "data", "lost:aborted");
}

#[test]
fn test_client_aborts_connection_twice() {
    assert_aborts(|t| Ok([(); 2].into_iter().for_each(|()| t.abort())), "data", "lost:aborted");
}

#[test]
fn test_client_aborts_connection_then_loses_connection() {
    let act = |t: &mut Transport<'_>| {
        t.abort();
        t.close();
        Ok(())
    };
    assert_aborts(act, "data", "lost:aborted");
}

#[test]
fn test_resume_producing_abort() {
    assert_aborts(|t| Ok(t.abort()), "resume", "lost:aborted");
    assert_aborts(|t| Ok(t.abort()), "pause", "lost:aborted");
}

#[test]
fn test_resume_producing_abort_later() {
    let act = |t: &mut Transport<'_>| {
        let id = t.id();
        t.call_later(Duration::ZERO, move |cx| drop(cx.abort_connection(id)));
        Ok(())
    };
    assert_aborts(act, "resume", "lost:aborted");
}

#[test]
fn test_full_write_buffer() {
    let (mut test, id, journal) = with(|t, _| {
        t.write(&vec![b'x'; 4 << 20])?;
        t.send_reader(std::io::repeat(b'x'))?;
        t.abort();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    assert_eq!(journal.take(), "data:go lost:aborted, 4194304 bytes unsent");
    assert!(test.is_reset(id) && test.output(id).is_empty() && test.timers() == 0);
}

#[test]
fn test_full_write_buffer_after_byte_exchange() {
    struct Floods;
    impl Protocol for Floods {
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            match data {
                b"a" => t.abort(),
                _ => t.write(&vec![b'x'; 7 << 20])?,
            }
            Ok(())
        }
        fn pause_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            t.set_timer(50 * MS);
            Ok(())
        }
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::TimerId) -> HandlerResult {
            t.abort();
            Ok(())
        }
    }
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Floods)).unwrap());
    let mut client = connect(&looped);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let mut all = Vec::new();
    let error = std::iter::repeat_with(|| {
        std::thread::sleep(MS); // slower than the flood, so that it is cut
        client.read(&mut [0; 1000]).map(|n| all.push(n))
    });
    let error = error.take(30_000).find_map(Result::err).expect("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// The error is the reason, also after an abort.
#[test]
fn test_data_received_throws() {
    let act = |t: &mut Transport<'_>| {
        t.abort();
        Err("oops".into())
    };
    assert_aborts(act, "data", "lost:failed: oops");
}

#[test]
fn test_resume_producing_throws() {
    let act = |t: &mut Transport<'_>| {
        t.abort();
        Err("oops".into())
    };
    assert_aborts(act, "resume", "lost:failed: oops");
}

// FileSenderTests (test_basic)

/// What is given in chunks arrives as one, and the end is told. Its transform is a reader around a reader.
#[test]
fn test_transfer_multiple_chunks() {
    struct Upper<R>(R);
    impl<R: Read> Read for Upper<R> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.read(&mut buffer[..4])?;
            buffer[..n].make_ascii_uppercase();
            Ok(n)
        }
    }
    let (mut test, id, journal) = with(|t, _| Ok(t.send_reader(Upper(&b"Test content"[..]))?));
    test.feed(id, b"go");
    assert_eq!((test.output(id), test.sends(id)), (b"TEST CONTENT".to_vec(), 3));
    assert_eq!(journal.take(), "data:go transfer", "once all is sent");
}

#[test]
fn test_aborted_transfer() {
    let (mut test, id, journal) = with(|t, _| Ok(t.send_reader(&b"Test content"[..])?));
    test.take_at_most(id, 4);
    test.feed(id, b"go");
    test.act(|cx| cx.abort_connection(id));
    assert_eq!((test.output(id), journal.take().as_str()), (b"Test".to_vec(), "data:go lost:aborted"));
}

// PortforwardingTests (test_protocols): tests/port_forward.rs, through processes.
