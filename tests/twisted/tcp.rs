//! `test_tcp` (both of that name), `test_basic`: what a transport does.
//!
//! On a loop in memory, but where the kernel matters. Where a promise is another one on purpose, the comment says so.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use socketserver::event_loop::Eof;
use socketserver::testing::TestLoop;
use socketserver::{factory, EventLoop, HandlerResult, Protocol, Transport};

use crate::patience::uninterrupted;
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
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::event_loop::TimerId) -> HandlerResult {
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

/// Paused, so that nothing is read, a connection whose client is gone is noticed by its writes. With us, without them
/// as well: `a_reset_is_noticed_while_reading_is_paused`.
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
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::event_loop::TimerId) -> HandlerResult {
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

// HalfCloseNoNotificationAndShutdownExceptionTests, HalfCloseBuggyApplicationTests

#[test]
fn test_shutdown_exception() {
    struct Shuts;
    impl Protocol for Shuts {
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
        fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
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

// CallBackOrderTests

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
    let script = Script::new(&Journal::default()).on("made", |t, _| {
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

// A producer here is a protocol that writes until `is_writing_paused` and goes on at `resume_writing`, or a reader; there
// is none to register, so none to register twice.

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

fn abort(t: &mut Transport<'_>) -> HandlerResult {
    t.abort();
    Ok(())
}

fn abort_and_fail(t: &mut Transport<'_>) -> HandlerResult {
    t.abort();
    Err("oops".into())
}

#[test]
fn test_data_received_abort() {
    assert_aborts(abort, "data", "lost:aborted");
}

#[test]
fn test_resume_producing_abort() {
    assert_aborts(abort, "resume", "lost:aborted");
    assert_aborts(abort, "pause", "lost:aborted");
}

#[test]
fn test_resume_producing_abort_later() {
    let act = |t: &mut Transport<'_>| {
        let id = t.id();
        t.call_later(Duration::ZERO, move |cx| assert!(cx.abort_connection(id)));
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
        fn timer(&mut self, t: &mut Transport<'_>, _: socketserver::event_loop::TimerId) -> HandlerResult {
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
        uninterrupted(|| client.read(&mut [0; 1000])).map(|n| all.push(n))
    });
    let error = error.take(30_000).find_map(Result::err).expect("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// The error is the reason, also after an abort.
#[test]
fn test_data_received_throws() {
    assert_aborts(abort_and_fail, "data", "lost:failed: oops");
}

#[test]
fn test_resume_producing_throws() {
    assert_aborts(abort_and_fail, "resume", "lost:failed: oops");
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
