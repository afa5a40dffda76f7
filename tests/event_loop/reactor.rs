//! The loop as a value: runs, stops, other threads, listeners and factories, shutdown, drop.

use crate::kit;
use crate::script;
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{connect, expect, ms, read_all, LONG};
use crate::script::{Echo, Journal, Looped};
use socketserver::event_loop::{Factory, ListeningPort, Peer, ReactorGone};
use socketserver::{factory, Addr, Context, HandlerResult, Protocol, Reactor, Transport};

const ANY: &str = "127.0.0.1:0";
const SECOND: Duration = Duration::from_secs(1);

fn echo() -> Looped {
    script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap())
}

#[test]
fn calls_before_the_run_are_made_in_order_and_a_stop_ends_it() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    for text in ["a", "b", "c"] {
        let notes = journal.clone();
        reactor.call_when_running(move |_| notes.add(text));
    }
    let notes = journal.clone();
    reactor.call_when_running(move |cx| {
        cx.stop();
        cx.stop();
        notes.add("stopped");
        cx.call_later(Duration::ZERO, move |cx| {
            notes.add("later");
            cx.stop();
        });
    });
    let notes = journal.clone();
    reactor.call_when_running(move |_| notes.add("after"));
    reactor.run().unwrap();
    assert_eq!(journal.take(), "a b c stopped after", "the turn is finished");
    reactor.run().unwrap();
    assert_eq!(journal.take(), "later", "what was left is for the next run");
}

#[test]
fn a_stop_keeps_connections_and_listeners_for_the_next_run() {
    let (send, receive) = mpsc::channel();
    let (report, reports) = mpsc::channel();
    let runs = thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let port = reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap();
        send.send((port.local_addr().socket_addr().unwrap(), reactor.handle())).unwrap();
        (0..3).for_each(|_| report.send(reactor.run().unwrap().accepted).unwrap());
    });
    let (addr, handle) = receive.recv().unwrap();
    let mut client = connect(addr);
    for (text, accepted) in [("1", 1), ("2", 0), ("3", 0)] {
        client.write_all(text.as_bytes()).unwrap();
        expect(&mut client, text);
        handle.stop().unwrap(); // two in one turn would end one run
        assert_eq!(reports.recv_timeout(LONG), Ok(accepted));
    }
    runs.join().unwrap();
    assert_eq!(kit::read(&mut client, &mut [0]).unwrap(), 0, "dropped with the reactor");
    assert!(handle.stop().is_err(), "it is gone");
}

#[test]
fn calls_from_threads_keep_their_order_and_wake_the_loop() {
    let looped = echo();
    let (send, receive) = mpsc::channel();
    let senders: Vec<_> = (0..4)
        .map(|thread| {
            let (handle, send) = (looped.handle.clone(), send.clone());
            thread::spawn(move || {
                for n in 0..100 {
                    let send = send.clone();
                    handle.call_from_thread(move |_| send.send((thread, n)).unwrap()).unwrap();
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|thread| thread.join().unwrap());
    drop(send);
    let mut next = [0; 4];
    for (thread, n) in receive {
        assert_eq!(n, std::mem::replace(&mut next[thread as usize], n + 1));
    }
    assert_eq!(next, [100; 4]);
    let since = Instant::now();
    for _ in 0..100 {
        looped.ask(|_| ());
    }
    assert!(since.elapsed() < 10 * SECOND, "{:?}", since.elapsed());
}

fn requeue(cx: &mut Context<'_>, calls: Arc<AtomicUsize>) {
    calls.fetch_add(1, SeqCst);
    let handle = cx.handle();
    let _ = handle.call_from_thread(move |cx| requeue(cx, calls));
}

#[test]
fn a_call_that_queues_itself_again_leaves_room_for_all_else() {
    let (mut reactor, calls, ticks) = (Reactor::new().unwrap(), Arc::new(AtomicUsize::new(0)), Rc::new(Cell::new(0)));
    let theirs = calls.clone();
    reactor.handle().call_from_thread(move |cx| requeue(cx, theirs)).unwrap();
    let ticked = ticks.clone();
    reactor.context().call_later(ms(5), move |cx| {
        ticked.set(ticked.get() + 1);
        cx.call_later(ms(5), |cx| cx.stop());
    });
    reactor.run().unwrap();
    assert!(calls.load(SeqCst) > 1 && ticks.get() == 1);
}

#[test]
fn ids_are_sent_across_threads() {
    let (made, ids) = mpsc::channel();
    struct Tell(mpsc::Sender<socketserver::event_loop::ConnId>);
    impl Protocol for Tell {
        fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
            Ok(self.0.send(t.id())?)
        }
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
    }
    let looped = script::run(move |reactor| reactor.listen_tcp(ANY, factory(move |_| Tell(made.clone()))).unwrap());
    let mut client = connect(looped.addr);
    let id = ids.recv().unwrap();
    let handle = looped.handle.clone();
    thread::spawn(move || handle.write(id, "from a thread").unwrap()).join().unwrap();
    expect(&mut client, "from a thread");
    looped.ask(move |cx| assert!(cx.close_connection(id)));
    assert_eq!(read_all(&mut client), "");
    looped.handle.write(id, "nobody hears it").unwrap();
    looped.ask(move |cx| assert!(!cx.write_to(id, b"x")));
}

#[test]
fn a_handle_outlives_its_reactor() {
    let reactor = Reactor::new().unwrap();
    let handle = reactor.handle();
    let kept = Arc::new(());
    let theirs = kept.clone();
    handle.call_from_thread(move |_| drop(theirs)).unwrap();
    drop(reactor);
    assert_eq!(Arc::strong_count(&kept), 1, "calls that nobody made are dropped");
    let gone: ReactorGone = handle.call_from_thread(|_| ()).unwrap_err();
    assert_eq!((handle.shutdown(SECOND), gone.to_string().as_str()), (Err(gone), "the reactor has been dropped"));
}

/// Counts starts and stops.
#[derive(Clone, Default)]
struct Counting(Rc<Cell<(u32, u32)>>);

struct Shared(Rc<Counting>);

impl Factory for Shared {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Echo))
    }

    fn start_factory(&self, _: &mut Context<'_>) {
        let (starts, stops) = self.0 .0.get();
        self.0 .0.set((starts + 1, stops));
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        let (starts, stops) = self.0 .0.get();
        self.0 .0.set((starts, stops + 1));
    }
}

#[test]
fn a_factory_hears_of_its_start_and_of_its_end_once() {
    let mut reactor = Reactor::new().unwrap();
    let counting = Rc::new(Counting::default());
    let port = reactor.listen_tcp(ANY, Shared(counting.clone())).unwrap();
    assert_eq!(counting.0.get(), (1, 0));
    reactor.context().stop_listening(&port);
    reactor.context().stop_listening(&port);
    assert!(reactor.turn(None).unwrap());
    assert_eq!(counting.0.get(), (1, 1));
    let again = reactor.listen_tcp(port.local_addr().socket_addr().unwrap(), Shared(counting.clone())).unwrap();
    assert_eq!(again.local_addr(), port.local_addr(), "the port is free at once");
    reactor.context().stop_listening(&again);
    let last = reactor.listen_tcp(ANY, Shared(counting.clone())).unwrap();
    assert_eq!(counting.0.get(), (3, 2), "the end comes before the next beginning");
    reactor.context().stop_listening(&last);
    drop(reactor);
    assert_eq!(counting.0.get(), (3, 3), "and with the reactor at the latest");
}

#[test]
fn a_listener_that_is_closed_leaves_its_connections() {
    let (send, ports) = mpsc::channel::<ListeningPort>();
    let looped = script::run(move |reactor| {
        let port = reactor.listen_tcp(ANY, factory(|_| Local)).unwrap();
        send.send(port.clone()).unwrap();
        port
    });
    let mut client = connect(looped.addr);
    client.write_all(b"x").unwrap();
    expect(&mut client, &looped.addr.to_string());
    let port = ports.recv().unwrap();
    looped.ask(move |cx| cx.stop_listening(&port));
    kit::until("nobody listens", || std::net::TcpStream::connect(looped.addr).is_err()); // a program that another test starts has it for a moment
    client.write_all(b"x").unwrap();
    expect(&mut client, &looped.addr.to_string());
    let again = std::net::TcpListener::bind(looped.addr).unwrap();
    drop(again);
}

/// Tells its own address.
struct Local;

impl Protocol for Local {
    fn data_received(&mut self, t: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        let (addr, peer) = (t.local_addr(), t.peer_addr());
        assert!(matches!(peer, Addr::Ip(_)), "{peer:?}");
        Ok(write!(t, "{addr}")?)
    }
}

#[test]
fn several_reactors_share_a_process() {
    let all: Vec<_> = (0..4).map(|_| echo()).collect();
    let asks: Vec<_> = all
        .iter()
        .map(|looped| {
            let addr = looped.addr;
            thread::spawn(move || (0..50).for_each(|n| assert_eq!(kit::ask(addr, &n.to_string()), n.to_string())))
        })
        .collect();
    asks.into_iter().for_each(|thread| thread.join().unwrap());
    all.into_iter().for_each(|looped| assert_eq!(looped.shutdown(SECOND).served, 50));
    // And a thread.
    let (mut a, mut b) = (Reactor::new().unwrap(), Reactor::new().unwrap());
    let ran = Rc::new(Cell::new(0));
    for reactor in [&mut a, &mut b] {
        let ran = ran.clone();
        reactor.context().call_later(ms(1), move |_| ran.set(ran.get() + 1));
    }
    let since = Instant::now();
    while ran.get() < 2 {
        assert!(a.turn(Some(ms(1))).unwrap() && b.turn(Some(ms(1))).unwrap());
        assert!(since.elapsed() < 10 * SECOND);
    }
}
