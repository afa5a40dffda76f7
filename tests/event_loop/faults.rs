//! Errors and panics in whatever the user writes: they end the one connection, once, and are counted.

use crate::script;
use std::cell::Cell;
use std::panic::panic_any;
use std::rc::Rc;
use std::time::Duration;

use crate::script::{Journal, Script, CALLBACKS};
use socketserver::event_loop::{ConnId, Factory, Peer};
use socketserver::testing::TestLoop;
use socketserver::{Context, EventLoop, HandlerResult, Protocol, Stats, Transport};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Panic,
    /// Whose payload panics when it is dropped.
    Bomb,
    BombError,
}

struct Bomb(Rc<Cell<u32>>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        panic!("dropped");
    }
}

struct SentBomb;

impl Drop for SentBomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[derive(Debug)]
struct ErrorBomb;

impl std::fmt::Display for ErrorBomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("asked to")
    }
}

impl std::error::Error for ErrorBomb {}

impl Drop for ErrorBomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

fn fail(how: Fault) -> HandlerResult {
    match how {
        Fault::Error => Err("asked to".into()),
        Fault::Panic => panic!("asked to"),
        Fault::Bomb => panic_any(SentBomb),
        Fault::BombError => Err(ErrorBomb.into()),
    }
}

fn stats(test: &mut TestLoop) -> Stats {
    test.reactor().server().stats()
}

/// Has a connection's callback called, after 5 bytes were queued for it.
fn provoke(test: &mut TestLoop, id: ConnId, callback: &str) {
    match callback {
        "data" => test.feed(id, b"data"),
        "eof" => test.eof(id),
        "pause" | "resume" => {
            test.take_at_most(id, 0);
            test.act(|cx| cx.write_to(id, &[b'-'; 100]));
            test.take_at_most(id, usize::MAX);
        }
        "reading" => test.act(|cx| assert!(cx.pause_connection(id) && cx.resume_connection(id))),
        "timer" => test.advance(SECOND),
        "message" => test.act(|cx| assert!(cx.post(id, "message"))),
        "shutting_down" => test.act(|cx| cx.shutdown(SECOND)),
        _ => {}
    }
}

#[test]
fn e2_a_fault_in_any_callback_ends_its_connection_only_once_and_is_counted() {
    for how in [Fault::Error, Fault::Panic, Fault::Bomb, Fault::BombError] {
        for callback in CALLBACKS {
            let mut test = TestLoop::with(EventLoop::new().water_marks(10, 20)).unwrap();
            let (journal, others) = (Journal::default(), Journal::default());
            let other = test.connect(Script::new(&others));
            let script = Script::new(&journal).on("made", move |t, _| {
                t.set_timer(SECOND);
                if callback == "transfer" {
                    t.send_reader(&b"read"[..])?;
                }
                Ok(())
            });
            let id = test.connect(script.on(callback, move |t, _| {
                t.write(b"last")?;
                fail(how)
            }));
            provoke(&mut test, id, callback);
            let name = format!("{how:?} in {callback}");
            assert!(test.is_lost(id), "{name}");
            test.advance(10 * SECOND);
            let written = journal.take();
            assert_eq!(written.matches("lost:").count(), 1, "{name}: {written}");
            let reason = match how {
                Fault::Error | Fault::BombError => "lost:failed: asked to",
                Fault::Panic => "lost:panicked: asked to",
                Fault::Bomb => "lost:panicked:",
            };
            assert!(written.contains(reason) && written.find("lost:") > written.find(callback), "{name}: {written}");
            assert!(test.output(id).ends_with(b"last"), "{name}: what was written before is sent");
            let panicked = u64::from(matches!(how, Fault::Panic | Fault::Bomb));
            assert_eq!((stats(&mut test).failed, stats(&mut test).panicked), (1, panicked), "{name}");
            assert_eq!(test.is_lost(other), callback == "shutting_down", "{name}");
            assert_eq!(others.count("lost:"), usize::from(callback == "shutting_down"), "{name}");
        }
    }
}

#[test]
fn a_panic_in_connection_lost_is_contained_and_counted() {
    for bomb in [false, true] {
        let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
        let script = || {
            Script::new(&journal).at_loss(move |_, _| match bomb {
                true => panic_any(SentBomb),
                false => panic!("asked to"),
            })
        };
        let ids = [test.connect(script()), test.connect(script())];
        test.eof(ids[0]);
        test.reset(ids[1]);
        assert_eq!((test.connections(), journal.count("lost:")), (0, 2));
        assert_eq!((stats(&mut test).failed, stats(&mut test).panicked), (2, 2));
    }
}

#[test]
fn a_panic_in_the_protocol_s_drop_is_contained() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let drops = Rc::new(Cell::new(0));
    let bomb = Bomb(drops.clone());
    let id = test.connect(Script::new(&journal).at_drop(move || drop(bomb)));
    let (theirs, bomb) = (drops.clone(), Bomb(drops.clone()));
    let other = test.connect(Script::new(&journal).at_drop(move || drop(bomb)));
    test.eof(id);
    assert_eq!((theirs.get(), test.connections(), journal.count("lost:")), (1, 1, 1));
    test.feed(other, b"still here");
    assert_eq!(journal.count("data:still here"), 1);
    drop(test);
    assert_eq!((theirs.get(), journal.count("lost:")), (2, 2));
}

#[test]
fn a_panic_in_a_timer_s_call_ends_nothing() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal));
    let (called, notes) = (Rc::new(Cell::new(0)), journal.clone());
    let drops = called.clone();
    test.act(move |cx| {
        let bomb = Bomb(drops);
        cx.call_later(SECOND, |_| panic!("asked to"));
        cx.call_later(SECOND, |_| panic_any(SentBomb));
        cx.call_later(SECOND, move |_| drop(bomb));
        cx.call_later(SECOND, move |_| notes.add("after"));
    });
    let notes = journal.clone();
    test.reactor().call_when_running(|_| panic!("asked to"));
    test.reactor().call_when_running(move |_| notes.add("second"));
    test.settle();
    test.advance(SECOND);
    assert_eq!(journal.take(), "made second after");
    assert_eq!((called.get(), test.is_lost(id)), (1, false));
}

#[test]
fn a_panic_in_a_call_from_a_thread_ends_nothing() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal));
    let handle = test.reactor().handle();
    handle.call_from_thread(|_| panic!("asked to")).unwrap();
    handle.call_from_thread(|_| panic_any(SentBomb)).unwrap();
    handle.call_from_thread(move |cx| assert!(cx.post(id, "after"))).unwrap();
    test.settle();
    assert_eq!(journal.take(), "made message");
}

#[test]
fn a_message_that_nobody_gets_may_panic_when_it_is_dropped() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let (id, other) = (test.connect(Script::new(&journal)), test.connect(Script::new(&journal)));
    test.act(|cx| {
        assert!(cx.post(id, SentBomb));
        cx.post(other, "hello");
        cx.abort_connection(id);
    });
    assert_eq!(journal.take(), "made made message lost:aborted");
}

#[test]
fn an_error_whose_output_is_stuck_ends_all_the_same() {
    type Ending = fn(&mut TestLoop, ConnId);
    let endings: [(&str, Ending); 3] = [
        ("the peer resets", |test, id| test.reset(id)),
        ("another one aborts it", |test, id| test.act(|cx| assert!(cx.abort_connection(id)))),
        ("the write limit", |test, _| test.advance(30 * SECOND)),
    ];
    for (name, ending) in endings {
        for how in [Fault::Error, Fault::Panic] {
            let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
            let id = test.connect(Script::new(&journal).on("data", move |t, _| {
                t.write(b"stuck")?;
                fail(how)
            }));
            test.take_at_most(id, 0);
            test.feed(id, b"x");
            assert!(test.is_closing(id) && !test.is_lost(id));
            ending(&mut test, id);
            assert!(test.is_lost(id), "{name}");
            let reason = if how == Fault::Error { "failed" } else { "panicked" };
            assert_eq!(journal.take(), format!("made data:x lost:{reason}: asked to, 5 bytes unsent"), "{name}");
            assert_eq!((stats(&mut test).failed, test.timers()), (1, 0), "{name}");
        }
    }
}

#[test]
fn a_fault_after_a_close_or_an_abort_is_counted() {
    let ways: [fn(&mut Transport<'_>); 2] = [|t| t.close(), |t| t.abort()];
    for way in ways {
        for how in [Fault::Error, Fault::Panic] {
            let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
            let id = test.connect(Script::new(&journal).on("data", move |t, _| {
                way(t);
                fail(how)
            }));
            test.feed(id, b"x");
            let reason = if how == Fault::Error { "failed" } else { "panicked" };
            assert_eq!(journal.take(), format!("made data:x lost:{reason}: asked to"));
            assert_eq!(stats(&mut test).failed, 1);
        }
    }
}

#[test]
fn a_write_that_is_refused_is_no_failure() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("data", |t, _| {
        t.close();
        Ok(t.write(b"too late")?)
    }));
    test.feed(id, b"x");
    assert_eq!(journal.take(), "made data:x lost:closed");
    assert_eq!((stats(&mut test).served, stats(&mut test).failed), (1, 0));
}

/// Panics where it is told to.
struct Broken(&'static str);

impl Factory for Broken {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        assert_ne!(self.0, "build", "asked to");
        (self.0 != "none").then(|| Box::new(script::Echo) as _)
    }

    fn start_factory(&self, _: &mut Context<'_>) {
        assert_ne!(self.0, "start", "asked to");
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        assert_ne!(self.0, "stop", "asked to");
    }
}

#[test]
fn a_panic_of_a_factory_ends_nothing_but_that_connection() {
    for (fault, counts) in [("start", (1, 0, 0)), ("build", (0, 1, 0)), ("none", (0, 0, 1)), ("stop", (1, 0, 0))] {
        let looped = script::run(move |reactor| reactor.listen_tcp("127.0.0.1:0", Broken(fault)).unwrap());
        let client = std::net::TcpStream::connect(looped.addr).unwrap();
        client.set_read_timeout(Some(30 * SECOND)).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(std::io::read_to_string(client).unwrap(), "", "{fault}");
        assert!(looped.ask(|cx| cx.connections()) == 0, "{fault}");
        let report = looped.shutdown(30 * SECOND);
        assert_eq!((report.served, report.failed, report.refused), counts, "{fault}: {report}");
    }
}
