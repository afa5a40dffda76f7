//! Ending one's own half of the stream: what is queued goes first, reading goes on, and the end of both halves is the
//! end.

use crate::kit;
use crate::script;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::kit::connect;
use crate::script::teller::{assert_no_spin, made, next, until_lost, News};
use crate::script::{with, Echo, Journal, Script};
use socketserver::event_loop::WriteError;
use socketserver::testing::TestLoop;
use socketserver::{factory, Group, HandlerResult, Protocol, Transport};

const SECOND: Duration = Duration::from_secs(1);
const ANY: &str = "127.0.0.1:0";

#[test]
fn what_is_queued_is_sent_before_the_end() {
    let (mut test, id, journal) = with(|t, data| {
        if data == b"end" {
            t.write(b"hello")?;
            t.send_reader(&b", world"[..])?;
            t.shutdown_write();
            t.shutdown_write();
            assert!(!t.is_closing());
            assert_eq!(t.write(b"late"), Err(WriteError::Closed));
        }
        Ok(())
    });
    test.take_at_most(id, 3);
    test.feed(id, b"end");
    assert!(!test.is_ended(id), "not while something is queued");
    test.take_at_most(id, usize::MAX);
    assert_eq!(test.output(id), b"hello, world");
    assert!(test.is_ended(id) && !test.is_closing(id) && test.is_reading(id));
    test.feed(id, b"more");
    test.act(|cx| assert!(!cx.write_to(id, b"late") && cx.connections() == 1));
    assert_eq!(journal.take(), "data:end transfer data:more");
    test.eof(id);
    assert_eq!((test.output(id), journal.take().as_str()), (vec![], "eof lost:closed by the peer"));
}

#[test]
fn when_both_halves_have_ended_so_has_the_connection() {
    // The peer first.
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).keep_open().on("eof", |t, _| {
        t.write(b"answer")?;
        t.shutdown_write();
        Ok(())
    });
    let id = test.connect(script);
    test.take_at_most(id, 0);
    test.eof(id);
    assert!(!test.is_closing(id), "the answer is still to be sent");
    test.take_at_most(id, usize::MAX);
    assert!(test.is_lost(id) && test.output(id) == b"answer");
    assert_eq!(journal.take(), "made eof lost:closed by the peer");
    // The protocol first: `Eof::KeepOpen` keeps nothing open that nobody could use.
    let script = Script::new(&journal).keep_open().on("made", |t, _| {
        t.shutdown_write();
        Ok(())
    });
    let id = test.connect(script);
    assert!(test.is_ended(id));
    test.feed(id, b"data");
    test.eof(id);
    assert_eq!(journal.take(), "made data:data eof lost:closed by the peer");
    assert_eq!(test.timers(), 0);
}

#[test]
fn a_write_that_is_refused_is_no_failure() {
    let (mut test, id, journal) = with(|t, data| {
        t.shutdown_write();
        Ok(t.write(data)?)
    });
    test.feed(id, b"a");
    test.feed(id, b"b");
    assert_eq!((journal.take().as_str(), test.is_closing(id)), ("data:a data:b", false));
    let group = Group::new();
    test.act(|cx| assert_eq!(cx.broadcast(group, b"x", None), 0));
}

#[test]
fn close_and_abort_follow_at_any_time() {
    for (letter, end) in [("c", "lost:closed"), ("a", "lost:aborted"), ("e", "lost:failed: asked to")] {
        for stuck in [false, true] {
            let (mut test, id, journal) = with(|t, data| {
                t.write(b"last")?;
                t.shutdown_write();
                match data {
                    b"c" => t.close(),
                    b"a" => t.abort(),
                    _ => return Err("asked to".into()),
                }
                Ok(())
            });
            test.take_at_most(id, if stuck { 0 } else { usize::MAX });
            test.feed(id, letter.as_bytes());
            test.take_at_most(id, usize::MAX);
            assert!(test.is_lost(id) && journal.take().contains(end), "{letter} {stuck}");
            assert_eq!(test.output(id).len(), if letter == "a" { 0 } else { 4 });
        }
    }
}

type Act = fn(&mut Transport<'_>);

#[test]
fn a_peer_that_never_ends_its_half_is_bounded() {
    let ending: [(Act, &str); 2] = [
        (|t| t.set_idle_timeout(Some(5 * SECOND)), "lost:idle limit of 5s exceeded"),
        (|t| t.set_total_timeout(Some(5 * SECOND)), "lost:total limit of 5s exceeded"),
    ];
    for (set, end) in ending {
        let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
        let id = test.connect(Script::new(&journal).on("made", move |t, _| {
            set(t);
            t.shutdown_write();
            Ok(())
        }));
        test.advance(5 * SECOND - Duration::from_millis(1));
        assert!(!test.is_closing(id));
        test.advance(Duration::from_millis(1));
        assert!(journal.take().ends_with(end), "{end}");
    }
    let (mut test, id, journal) = with(|t, _| {
        t.write(b"stuck")?;
        t.shutdown_write();
        Ok(())
    });
    test.take_at_most(id, 0);
    test.feed(id, b"go");
    test.advance(30 * SECOND);
    assert_eq!(journal.take(), "data:go lost:write limit of 30s exceeded, 5 bytes unsent");
    let (mut test, id, journal) = with(|t, _| {
        t.shutdown_write();
        Ok(())
    });
    test.feed(id, b"go");
    test.act(|cx| cx.shutdown(SECOND));
    assert_eq!(journal.take(), "data:go shutting_down lost:the server stops", "it is idle");
}

/// Sends a greeting, ends its half, and tells what it hears.
struct Half(script::teller::Teller);

impl Protocol for Half {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.0.connection_made(t)?;
        t.write(b"hello")?;
        t.shutdown_write();
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.0.data_received(t, data)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<socketserver::event_loop::Eof> {
        self.0.eof_received(t)
    }

    fn connection_lost(&mut self, cx: &mut socketserver::Context<'_>, why: &socketserver::Lost) {
        self.0.connection_lost(cx, why);
    }
}

/// Over TCP and over a Unix socket, with the reading paused when the client leaves: both halves have ended then, which
/// epoll tells as a hang-up.
#[test]
fn data_that_came_before_the_client_left_is_not_lost() {
    let folder = kit::Folder::new();
    let path = folder.path("socket");
    let (news, told) = std::sync::mpsc::channel();
    let theirs = path.clone();
    let looped = script::run(move |reactor| {
        let build = move |news: std::sync::mpsc::Sender<News>| {
            factory(move |_| Half(script::teller::Teller { news: news.clone(), left: 0 }))
        };
        reactor.listen_unix(theirs, build(news.clone())).unwrap();
        reactor.listen_tcp(ANY, build(news)).unwrap()
    });
    let dialogue = |mut client: Box<dyn ReadWrite>| {
        let id = made(&told);
        client.write_all(b"p").unwrap();
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting, b"hello");
        assert_eq!(next(&told), News::Data(b"p".to_vec()));
        client.write_all(b"last words").unwrap();
        drop(client);
        assert_no_spin(&looped, "paused, both halves ended");
        assert!(looped.ask(move |cx| cx.resume_connection(id)), "{:?}", told.try_recv());
        assert_eq!(next(&told), News::Data(b"last words".to_vec()));
        assert_eq!((next(&told), until_lost(&told).as_str()), (News::Eof, "closed by the peer"));
    };
    dialogue(Box::new(connect(looped.addr)));
    dialogue(Box::new(UnixStream::connect(&path).unwrap()));
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn p10_a_client_that_half_closes_gets_all_of_a_long_answer() {
    struct Answers;
    impl Protocol for Answers {
        fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(t.write(&vec![b'x'; 7 << 20])?)
        }
        fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<socketserver::event_loop::Eof> {
            t.write(b"end")?;
            t.shutdown_write();
            Ok(socketserver::event_loop::Eof::KeepOpen)
        }
    }
    let looped = script::run(|reactor| {
        reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap();
        reactor.listen_tcp(ANY, factory(|_| Answers)).unwrap()
    });
    let mut client = connect(looped.addr);
    client.write_all(b"go").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got.len() == (7 << 20) + 3 && got.ends_with(b"end"));
    kit::until("it is gone", || looped.ask(|cx| cx.connections()) == 0);
}
