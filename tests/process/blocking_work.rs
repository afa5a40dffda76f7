//! Work on the threads beside the loop, and what comes of it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{expect, ms, threads_named, until, LONG};
use crate::script::{with, Journal, Script};
use socketserver::event_loop::BlockingError;
use socketserver::testing::TestLoop;
use socketserver::Reactor;

const MOST: usize = 10;

/// What work waits for.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0 .0.lock().unwrap();
        drop(self.0 .1.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0 .0.lock().unwrap() = true;
        self.0 .1.notify_all();
    }
}

#[test]
fn what_work_returns_comes_back_to_the_loop_s_thread() {
    alone!();
    let (mut reactor, loop_thread) = (Reactor::new().unwrap(), thread::current().id());
    assert_eq!(threads_named("blocking"), 0, "none without work");
    let kept = Rc::new(Cell::new(None)); // what never leaves the loop
    let theirs = kept.clone();
    reactor.context().blocking(
        || thread::current().id(),
        move |cx, worker| {
            assert_eq!(thread::current().id(), loop_thread);
            theirs.set(Some(worker.unwrap()));
            cx.stop();
        },
    );
    assert!(kept.get().is_none(), "never within the call");
    reactor.run().unwrap();
    assert!(kept.get().is_some_and(|worker| worker != loop_thread));
}

#[test]
fn the_loop_goes_on_meanwhile_and_no_more_threads_are_started_than_the_bound() {
    alone!();
    let (mut reactor, gate, running) = (Reactor::new().unwrap(), Gate::default(), Arc::new(AtomicUsize::new(0)));
    let done = Rc::new(RefCell::new(HashSet::new()));
    for n in 0..50 {
        let (gate, running, done) = (gate.clone(), running.clone(), done.clone());
        let work = move || {
            running.fetch_add(1, SeqCst);
            gate.pass();
            n
        };
        reactor.context().blocking(work, move |cx, n| {
            done.borrow_mut().insert(n.unwrap());
            if done.borrow().len() == 50 {
                cx.stop();
            }
        });
    }
    let ticks = Rc::new(Cell::new(0));
    let ticked = ticks.clone();
    reactor.context().call_later(ms(20), move |_| ticked.set(1));
    until("a timer fires while all threads are busy", || {
        reactor.turn(Some(ms(5))).unwrap();
        ticks.get() == 1 && running.load(SeqCst) == MOST
    });
    assert_eq!((threads_named("blocking"), done.borrow().len()), (MOST, 0));
    gate.open();
    reactor.run().unwrap();
    assert_eq!(done.borrow().len(), 50, "each is told once");
    assert!(threads_named("blocking") <= MOST);
}

#[test]
fn a_panic_of_the_work_or_of_what_follows_is_contained() {
    alone!();
    let mut reactor = Reactor::new().unwrap();
    reactor.context().blocking(
        || -> u32 { panic!("asked to panic") },
        |cx, result| {
            let error = result.unwrap_err();
            assert!(matches!(&error, BlockingError::Panicked(text) if text == "asked to panic"), "{error:?}");
            assert_eq!(error.to_string(), "panicked: asked to panic");
            cx.blocking(
                || (),
                |cx, _| {
                    cx.blocking(|| (), |cx, _| cx.stop());
                    panic!("asked to panic as well");
                },
            );
        },
    );
    reactor.run().unwrap();
}

#[test]
fn a_connection_that_is_gone_is_known_by_its_id() {
    alone!();
    let (told, answers) = mpsc::channel();
    let gate = Gate::default();
    let theirs = gate.clone();
    let (mut test, id, _) = with(move |t, _| {
        let (id, told, gate) = (t.id(), told.clone(), theirs.clone());
        t.blocking(move || gate.pass(), move |cx, _| told.send(cx.write_to(id, b"answer")).unwrap());
        Ok(())
    });
    test.feed(id, b"x");
    test.reset(id);
    gate.open();
    let answered = || {
        test.turn();
        answers.try_recv().ok()
    };
    let by = Instant::now() + LONG;
    let answered = std::iter::repeat_with(answered).inspect(|_| assert!(Instant::now() < by)).find_map(|told| told);
    assert_eq!(answered, Some(false));
}

#[test]
fn a_dropped_reactor_waits_for_no_work_and_leaves_no_thread() {
    alone!();
    let (reactor, gate, begun) = (Reactor::new().unwrap(), Gate::default(), Arc::new(AtomicUsize::new(0)));
    let mut reactor = reactor;
    let (works, calls) = (Arc::new(()), Rc::new(()));
    for _ in 0..30 {
        let (gate, begun, works, calls) = (gate.clone(), begun.clone(), works.clone(), calls.clone());
        let work = move || {
            let _works = works;
            begun.fetch_add(1, SeqCst);
            gate.pass();
        };
        reactor.context().blocking(work, move |_, _| {
            let _calls = calls;
            panic!("nobody calls it");
        });
    }
    until("all threads are busy", || begun.load(SeqCst) == MOST);
    let since = Instant::now();
    drop(reactor);
    assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
    assert_eq!(Rc::strong_count(&calls), 1, "what was to be called is dropped");
    assert_eq!(Arc::strong_count(&works), 1 + MOST, "what has not begun is dropped");
    gate.open();
    until("the threads end with their work", || threads_named("blocking") == 0);
    assert_eq!((begun.load(SeqCst), Arc::strong_count(&works)), (MOST, 1));
}

#[test]
fn a_stop_does_not_wait_for_work_and_the_next_run_hears_of_it() {
    alone!();
    let (mut reactor, gate, heard) = (Reactor::new().unwrap(), Gate::default(), Rc::new(Cell::new(false)));
    let (theirs, told) = (gate.clone(), heard.clone());
    reactor.context().blocking(
        move || theirs.pass(),
        move |cx, _| {
            told.set(true);
            cx.stop();
        },
    );
    reactor.shutdown(Duration::from_secs(20));
    reactor.run().unwrap();
    assert!(!heard.get());
    gate.open();
    reactor.run().unwrap();
    assert!(heard.get());
}

/// Pausing while the work is under way bounds the queue, and keeps a drain from taking the connection for idle.
#[test]
fn a_protocol_that_pauses_reading_answers_in_order() {
    alone!();
    let looped = crate::script::run(|reactor| {
        let build = socketserver::factory(|_| {
            Script::new(&Journal::default()).on("data", |t, data| {
                let (id, data) = (t.id(), data.to_vec());
                t.pause_reading();
                t.blocking(
                    move || data.to_ascii_uppercase(),
                    move |cx, answer| {
                        cx.write_to(id, &answer.unwrap());
                        cx.resume_connection(id);
                    },
                );
                Ok(())
            })
        });
        reactor.listen_tcp("127.0.0.1:0", build).unwrap()
    });
    let mut client = crate::kit::connect(looped.addr);
    for text in ["one ", "two ", "three "] {
        std::io::Write::write_all(&mut client, text.as_bytes()).unwrap();
        expect(&mut client, &text.to_ascii_uppercase());
    }
}

#[test]
fn a_test_loop_runs_work_as_well() {
    alone!();
    let mut test = TestLoop::new().unwrap();
    let done = Rc::new(Cell::new(0));
    let told = done.clone();
    test.act(|cx| cx.blocking(|| 7, move |_, n| told.set(n.unwrap())));
    until("it is told", || {
        test.turn();
        done.get() == 7
    });
}
