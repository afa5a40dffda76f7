//! `test_policies`: limits on rates, times and numbers.
//!
//! There they are factories around factories; here settings of a server or of a connection. Where a promise is another
//! one on purpose, the comment says so.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use socketserver::event_loop::{ConnId, Eof, RateLimit};
use socketserver::testing::TestLoop;
use socketserver::{Context, HandlerResult, Lost, Protocol, Transport};

use crate::script::{limited_reader, Journal, Script};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn test_loop() -> TestLoop {
    TestLoop::new().unwrap()
}

// WrapperTests

/// A protocol around another: it sees all that comes, and the other has the transport with everything it can do.
struct Wrapper<P> {
    inner: P,
    seen: Rc<RefCell<Vec<u8>>>,
}

impl<P: Protocol> Protocol for Wrapper<P> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.inner.connection_made(t)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.seen.borrow_mut().extend_from_slice(data);
        self.inner.data_received(t, data)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.inner.eof_received(t)
    }

    fn transfer_complete(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.inner.transfer_complete(t)
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.inner.connection_lost(cx, why);
    }
}

/// `getHost`, `getPeer` and the producers of a wrapper: one transport, so the same.
#[test]
fn test_transport_interfaces() {
    let (mut test, journal, seen) = (test_loop(), Journal::default(), Rc::new(RefCell::new(Vec::new())));
    let inner = Script::new(&journal).on("data", |t, data| {
        assert_eq!((t.peer_addr().to_string(), t.queued()), (socketserver::Addr::Unnamed.to_string(), 0));
        Ok(t.send_reader(std::io::Cursor::new(data.to_vec()))?)
    });
    let id = test.connect(Wrapper { inner, seen: seen.clone() });
    test.feed(id, b"hello");
    test.eof(id);
    assert_eq!((test.output(id), seen.take()), (b"hello".to_vec(), b"hello".to_vec()));
    assert_eq!(journal.take(), "made data:hello transfer eof lost:closed by the peer");
}

// ThrottlingTests

#[test]
fn test_write_sequence() {
    let (mut test, limit) = (test_loop(), RateLimit::new(10));
    let id = test.connect(Script::new(&Journal::default()).on("made", move |t, _| {
        t.limit_writing(&limit);
        Ok(t.write_vectored(&[IoSlice::new(b"bytes"); 4])?)
    }));
    assert_eq!(test.output(id), b"bytesbytes", "they count, as what `write` is given");
    test.advance(SECOND);
    assert_eq!(test.output(id), b"bytesbytes");
}

/// 20 bytes at a limit of 10 a second. There all pass, then producers are paused for a second; what is no producer
/// passes without a limit. Here a second's worth passes, the rest at the rate, whichever side writes; producers pause only
/// when that comes to the high-water mark.
#[test]
fn test_write_limit() {
    let (mut test, journal, limit) = (test_loop(), Journal::default(), RateLimit::new(10));
    let script = Script::new(&journal).on("made", move |t, _| {
        t.limit_writing(&limit);
        Ok(())
    });
    let id = test.connect(script.on("data", |t, data| Ok(t.write(data)?)));
    test.feed(id, b"0123456789");
    test.feed(id, b"abcdefghij");
    assert_eq!(test.output(id), b"0123456789");
    test.advance(Duration::from_millis(500));
    assert_eq!(test.output(id), b"abcde");
    test.advance(Duration::from_millis(550));
    assert_eq!(test.output(id), b"fghij");
    assert_eq!(journal.take(), "made data:0123456789 data:abcdefghij");
}

/// The same for reading, twice in a row. There 20 bytes pass at once, each time, and a connection that has paused itself
/// is resumed as well.
#[test]
fn test_read_limit() {
    let mut test = test_loop();
    let (id, got) = limited_reader(&mut test, &RateLimit::new(10));
    for before in [0, 20] {
        test.feed(id, b"0123456789");
        test.feed(id, b"abcdefghij");
        assert_eq!((got.get(), test.is_reading(id)), (before + 10, false));
        test.advance(Duration::from_millis(1050));
        assert_eq!(got.get(), before + 20);
        test.advance(Duration::from_millis(1050));
        assert!(test.is_reading(id));
    }
    test.feed(id, b"0123456789abcdefghij");
    test.act(|cx| cx.pause_connection(id));
    test.advance(10 * SECOND);
    assert!(!test.is_reading(id), "paused by itself");
}

// TimeoutFactoryTests: 3 s without anything end a connection.

fn with_timeout(limit: Duration) -> (TestLoop, ConnId) {
    let mut test = test_loop();
    let id = test.connect(Script::new(&Journal::default()).on("made", move |t, _| {
        t.set_idle_timeout(Some(limit));
        Ok(())
    }));
    (test, id)
}

#[test]
fn test_timeout() {
    let (mut test, id) = with_timeout(3 * SECOND);
    for step in [0, 500, 1000, 1000, 400] {
        test.advance(step * MS);
        assert!(!test.is_closing(id));
    }
    test.advance(200 * MS);
    assert!(test.is_lost(id));
}

/// There what is queued counts; here what is sent, so that a peer that takes nothing is no reason to wait.
#[test]
fn test_send_avoids_timeout() {
    let (mut test, id) = with_timeout(3 * SECOND);
    test.advance(2 * SECOND);
    test.act(|cx| cx.write_to(id, b"bytes bytes bytes"));
    test.advance(2 * SECOND);
    assert!(!test.is_closing(id));
    test.advance(SECOND);
    assert!(test.is_lost(id));
}

// TimeoutProtocolTests, TimeoutMixinTests: a limit is set anew at any time; nothing is left to cancel at the end, and no
// cancel can be one too many.

#[test]
fn test_cancel_timeout() {
    for again in [None, Some(10 * SECOND)] {
        let (mut test, journal) = (test_loop(), Journal::default());
        let id = test.connect(Script::new(&journal).on("data", move |t, data| {
            t.set_idle_timeout(if data == b"set" { Some(5 * SECOND) } else { again });
            Ok(())
        }));
        test.feed(id, b"set");
        test.feed(id, b"cancel");
        test.feed(id, b"cancel");
        test.advance(9 * SECOND);
        assert!(!test.is_closing(id));
        test.advance(SECOND);
        assert_eq!((test.is_lost(id), test.timers()), (again.is_some(), 0));
    }
}

/// A time for the connection in all, which nothing resets: an addition.
#[test]
fn a_total_timeout_counts_from_the_beginning() {
    let (mut test, journal) = (test_loop(), Journal::default());
    let id = test.connect(Script::new(&journal).on("data", |t, data| {
        t.set_total_timeout(Some(3 * SECOND));
        Ok(t.write(data)?)
    }));
    for _ in 0..29 {
        test.feed(id, b"x");
        test.advance(100 * MS);
    }
    assert!(!test.is_closing(id), "it counts from the beginning, and not from when it was set");
    test.advance(100 * MS);
    assert!(test.is_lost(id) && journal.take().ends_with("lost:total limit of 3s exceeded"));
    assert_eq!((test.output(id).len(), test.timers(), test.reactor().server().stats().timed_out), (29, 0, 1));
    // What the peer does not take at once is given up.
    let id = test.connect(Script::new(&journal).on("data", |t, _| {
        t.set_total_timeout(Some(3 * SECOND));
        Ok(t.write(&[0; 100])?)
    }));
    test.take_at_most(id, 0);
    test.feed(id, b"x");
    test.advance(3 * SECOND);
    assert!(test.is_lost(id) && journal.take().ends_with("lost:total limit of 3s exceeded, 100 bytes unsent"));
}
