//! What readers have broken once. Each case tells what was wrong.

use crate::script;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{connect, until, LONG};
use crate::script::{with, Journal, Script};
use socketserver::event_loop::RateLimit;
use socketserver::event_loop::{ConnId, ConnectError, Factory, Peer};
use socketserver::testing::TestLoop;
use socketserver::{factory, Addr, Context, EventLoop, HandlerResult, Protocol};
use socketserver::{ServerBuilder, Transport};

const SECOND: Duration = Duration::from_secs(1);

/// A connection whose peer takes nothing, and whose protocol fails with output queued.
fn failed_with_output() -> (TestLoop, ConnId, Journal) {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect(Script::new(&journal).on("data", |t, _| {
        t.write(b"what is queued")?;
        Err("a bad request".into())
    }));
    test.take_at_most(client, 0);
    test.feed(client, b"bad");
    assert!(test.is_closing(client) && !test.is_lost(client));
    (test, client, journal)
}

/// The first cause held, and with it the connection: the loop turned on and on.
#[test]
fn a_failed_connection_with_output_ends_by_a_reset_an_abort_or_the_write_limit() {
    let endings: [fn(&mut TestLoop, ConnId); 3] = [
        |test, client| test.reset(client),
        |test, client| assert!(test.act(|cx| cx.abort_connection(client))),
        |test, _| test.advance(30 * SECOND),
    ];
    for ending in endings {
        let (mut test, client, journal) = failed_with_output();
        ending(&mut test, client);
        assert!(test.is_lost(client));
        assert_eq!(journal.take(), "made data:bad lost:failed: a bad request, 14 bytes unsent");
        assert_eq!(test.timers(), 0);
    }
}

/// A reader that takes a byte now and then could stay for ever.
#[test]
fn the_request_limit_cuts_a_connection_whose_output_drips() {
    for closes in [false, true] {
        let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
        let client = test.connect(Script::new(&journal).on("data", move |t, _| {
            t.set_request_timeout(Some(SECOND));
            t.write(&[b'x'; 1000])?;
            if closes {
                t.close();
            }
            Ok(())
        }));
        test.take_at_most(client, 0);
        test.feed(client, b"q");
        for _ in 0..20 {
            test.take_at_most(client, 1);
            test.advance(SECOND / 10);
        }
        assert!(test.is_lost(client), "{closes}");
        assert!(journal.take().contains("lost:request limit of 1s exceeded"), "{closes}");
    }
}

/// epoll reports room only when a third of the kernel's buffer is free.
#[test]
fn the_write_limit_spares_a_peer_that_takes_a_little() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect(Script::new(&journal).on("data", |t, _| Ok(t.write(&[b'x'; 1000])?)));
    test.take_at_most(client, 0);
    test.feed(client, b"q");
    for _ in 0..5 {
        test.advance(20 * SECOND);
        test.take_at_most(client, 10);
    }
    assert!(!test.is_closing(client));
    test.take_at_most(client, 0);
    test.advance(31 * SECOND);
    assert!(test.is_lost(client));
}

/// The read limit, and the idle limit, ended a connection that had nothing to wait for.
#[test]
fn no_limit_on_input_holds_after_its_end() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal)
        .on("data", |t, _| {
            t.set_read_timeout(Some(SECOND));
            t.set_idle_timeout(Some(SECOND));
            t.set_timer(5 * SECOND);
            Ok(())
        })
        .on("timer", |t, _| {
            t.write(b"answer")?;
            t.close();
            Ok(())
        })
        .keep_open();
    let client = test.connect(script);
    test.feed(client, b"q");
    test.eof(client);
    test.advance(5 * SECOND);
    assert_eq!(test.output(client), b"answer");
    assert_eq!(journal.take(), "made data:q eof timer lost:closed");
}

/// It was dropped outside of any containment, and took the server along.
#[test]
fn a_message_that_nobody_gets_may_panic_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect(Script::new(&journal));
    test.act(|cx| {
        assert!(cx.post(client, Bomb));
        cx.abort_connection(client);
    });
    assert!(test.is_lost(client));
    assert_eq!(journal.take(), "made lost:aborted");
}

/// All timers of a connection were looked through for each that fired.
#[test]
fn a_connection_may_have_many_timers() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect(Script::new(&journal).on("data", |t, _| {
        for _ in 0..20_000 {
            t.set_timer(SECOND);
        }
        Ok(())
    }));
    test.feed(client, b"go");
    let began = Instant::now();
    test.advance(SECOND);
    assert_eq!(journal.count("timer"), 20_000);
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(test.timers(), 0);
}

struct Greeter(mpsc::Sender<String>);

impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.0.send(transport.local_addr().to_string())?;
        Ok(transport.write(b"hello")?)
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        transport.server().shutdown();
        Ok(())
    }
}

/// It was the first listener's, whichever had accepted.
#[test]
fn the_local_address_is_that_of_the_listener_that_accepted() {
    let (send, told) = mpsc::channel();
    let builder = ServerBuilder::new().strategy(EventLoop::new()).listen("127.0.0.1:0");
    let mut server = builder.bind_tcp("127.0.0.1:0", factory(move |_| Greeter(send.clone()))).unwrap();
    let addrs: Vec<_> = server.local_addrs().map(|addr| addr.socket_addr().unwrap()).collect();
    let handle = server.handle();
    let serving = thread::spawn(move || server.serve_forever());
    for addr in &addrs {
        let _client = connect(*addr);
        assert_eq!(told.recv_timeout(LONG).unwrap(), addr.to_string());
    }
    handle.shutdown();
    assert_eq!(serving.join().unwrap().unwrap().accepted, 2);
}

/// The stop that came during the connection was taken for obeyed.
#[test]
fn a_stop_during_a_single_request_ends_the_next() {
    let (send, _told) = mpsc::channel();
    let builder = ServerBuilder::new().strategy(EventLoop::new());
    let mut server = builder.bind_tcp("127.0.0.1:0", factory(move |_| Greeter(send.clone()))).unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    client.write_all(b"stop").unwrap();
    assert!(server.handle_request(Some(LONG)).unwrap());
    assert!(!server.handle_request(None).unwrap());
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
}

/// A program that turns the loop itself was left with open listeners, and with a loop that could not be stopped again.
#[test]
fn a_shutdown_by_turns_closes_the_listeners_and_the_loop_may_be_used_anew() {
    let (send, told) = mpsc::channel();
    let mut reactor = socketserver::Reactor::new().unwrap();
    for _ in 0..2 {
        let send = send.clone();
        let port = reactor.listen_tcp("127.0.0.1:0", factory(move |_| Greeter(send.clone()))).unwrap();
        let addr = port.local_addr().socket_addr().unwrap();
        let mut client = connect(addr);
        client.write_all(b"stop").unwrap();
        while reactor.turn(Some(LONG)).unwrap() {}
        told.recv_timeout(LONG).unwrap();
        // A program that another test starts has it for a moment.
        until("nobody listens", || TcpListener::bind(addr).is_ok());
    }
}

/// A connection that links, and perhaps switches, to another whose queue is long.
fn linked(act: &'static str) -> (TestLoop, ConnId, ConnId, Journal) {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let behind = test.connect(Script::new(&Journal::default()));
    let next = journal.clone();
    let reader = test.connect(Script::new(&journal).on("data", move |t, _| {
        t.link(behind);
        if act == "switch" {
            t.switch_protocol(Script::new(&next), b"left over");
        }
        Ok(())
    }));
    test.take_at_most(behind, 0);
    assert!(test.act(|cx| cx.write_to(behind, &[0; 100_000])));
    test.feed(reader, b"q");
    assert!(!test.is_reading(reader), "the other is behind");
    (test, reader, behind, journal)
}

/// That the queue was long before the link was forgotten, and so its fall was no news.
#[test]
fn a_link_to_one_that_is_behind_already_ends_its_pause() {
    let (mut test, reader, behind, journal) = linked("link");
    test.take_at_most(behind, usize::MAX);
    assert!(test.is_reading(reader));
    test.feed(reader, b"more");
    assert_eq!(journal.take(), "made data:q data:more");
}

/// What was to be handed over was looked at only when nothing at all was against reading.
#[test]
fn a_protocol_that_takes_over_a_linked_connection_is_given_what_was_left() {
    let endings: [fn(&mut TestLoop, ConnId); 2] =
        [|test, behind| test.take_at_most(behind, usize::MAX), |test, behind| test.reset(behind)];
    for ending in endings {
        let (mut test, reader, behind, journal) = linked("switch");
        ending(&mut test, behind);
        test.feed(reader, b"more");
        assert_eq!(journal.take(), "made data:q made data:left over data:more");
    }
}

/// What readers give was not counted as progress. epoll reports room when a third of the buffer is free. A slow
/// client needs longer than the limit for that.
#[test]
fn the_write_limit_spares_a_slow_client_of_a_file() {
    let looped = script::run(|reactor| {
        let serve = |_: &_| {
            Script::new(&Journal::default()).on("made", |t, _| {
                t.set_write_timeout(Some(SECOND));
                Ok(t.send_reader(std::io::repeat(b'x').take(64 << 20))?)
            })
        };
        reactor.listen_tcp("127.0.0.1:0", factory(serve)).unwrap()
    });
    let mut client = connect(looped.addr);
    let began = Instant::now();
    while began.elapsed() < 4 * SECOND {
        client.read_exact(&mut [0; 16 << 10]).unwrap();
        thread::sleep(SECOND / 20); // the slowness
    }
}

/// They counted for nothing: a peer that read nothing had the loop open a file for each byte.
#[test]
fn readers_that_are_queued_pause_the_connection() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect(Script::new(&journal).on("data", |t, _| {
        t.send_reader(std::io::repeat(b'x').take(100_000))?;
        Ok(())
    }));
    test.take_at_most(client, 0);
    test.feed(client, b"1");
    assert!(test.is_reading(client), "one is no reason");
    (0..9).for_each(|_| test.hold(client, b"2"));
    test.settle();
    assert!(!test.is_reading(client));
    assert!(journal.take().contains("pause"));
    test.take_at_most(client, usize::MAX);
    assert!(test.is_reading(client) && journal.take().contains("resume"));
    let limit = 8 << 20 >> 16;
    let piled = test.act(|cx| cx.write_to(client, b""));
    assert!(piled && test.output(client).len() % 100_000 == 0);
    test.take_at_most(client, 0);
    let journal = Journal::default();
    let client = test.connect(Script::new(&journal).on("made", move |t, _| {
        for n in 0..=limit + 1 {
            assert_eq!(t.send_reader(std::io::repeat(b'x').take(1)).is_err(), n > limit, "{n}");
        }
        Ok(())
    }));
    assert!(test.is_lost(client), "the hard limit holds");
}

/// Asks for another attempt whenever one has failed.
struct Stubborn {
    failures: Rc<Cell<u32>>,
    running: Rc<Cell<i32>>,
}

impl Factory for Stubborn {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        None
    }

    fn start_factory(&self, _cx: &mut Context<'_>) {
        self.running.set(self.running.get() + 1);
    }

    fn stop_factory(&self, _cx: &mut Context<'_>) {
        self.running.set(self.running.get() - 1);
    }

    fn connection_failed(&self, cx: &mut Context<'_>, _error: &ConnectError) {
        self.failures.set(self.failures.get() + 1);
        cx.connect_tcp("127.0.0.1:1", Self { failures: self.failures.clone(), running: self.running.clone() });
    }
}

/// It was told of the stop in each turn, for as long as the drain lasted.
#[test]
fn a_client_that_always_connects_again_does_not_hold_up_a_drain() {
    let (failures, running) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let stubborn = || Stubborn { failures: failures.clone(), running: running.clone() };
    let mut test = TestLoop::new().unwrap();
    test.answer_connects([]);
    let busy = test.connect(Script::new(&Journal::default()).on("made", |t, _| {
        t.request_begins();
        Ok(())
    }));
    test.reactor().context().connect_tcp("127.0.0.1:1", stubborn());
    test.act(|cx| cx.shutdown(10 * SECOND));
    (0..1000).for_each(|_| test.turn());
    assert_eq!((failures.get(), test.is_lost(busy)), (1, false));
    (0..10).for_each(|_| test.advance(SECOND / 10));
    assert!((2..=11).contains(&failures.get()), "{}", failures.get());
    test.act(|cx| cx.abort_connection(busy));
    assert_eq!(running.get(), 0, "each factory that was started was stopped");
    let mut test = TestLoop::new().unwrap();
    test.reactor().context().connect_tcp("127.0.0.1:1", stubborn());
    drop(test);
    assert_eq!(running.get(), 0);
}

/// That nothing can be written any more was taken for a failure that has ended the connection.
#[test]
fn a_write_after_the_own_half_has_ended_still_closes_in_order() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("made", |t, _| {
        t.shutdown_write();
        Ok(())
    });
    let client = test.connect(script.on("eof", |t, _| Ok(t.write(b"bye")?)));
    test.eof(client);
    assert!(test.is_lost(client));
    assert_eq!(journal.take(), "made eof lost:closed by the peer");
}

/// Names were resolved by the threads that do blocking work.
#[test]
fn a_name_is_resolved_while_all_blocking_work_stands_still() {
    let (listener, mut reactor) = (TcpListener::bind("127.0.0.1:0").unwrap(), socketserver::Reactor::new().unwrap());
    let (release, wait) = mpsc::channel::<()>();
    let wait = Arc::new(Mutex::new(wait));
    for _ in 0..10 {
        let wait = wait.clone();
        reactor.context().blocking(move || wait.lock().unwrap().recv().is_ok(), |_, _| ());
    }
    let journal = Journal::default();
    let told = journal.clone();
    let factory = factory(move |_: &Peer| {
        Script::new(&told).on("made", |t, _| {
            t.stop();
            Ok(())
        })
    });
    reactor.context().connect_tcp(format!("localhost:{}", listener.local_addr().unwrap().port()), factory);
    reactor.context().call_later(LONG, |cx| cx.stop());
    reactor.run().unwrap();
    assert_eq!(journal.take(), "made");
    drop(release);
}

/// The kernel says that they are empty.
#[test]
fn a_file_of_proc_is_sent() {
    let (mut test, client, _) = with(|t, _| Ok(t.send_file(File::open("/proc/version")?, ..)?));
    test.feed(client, b"q");
    assert_eq!(test.output(client), std::fs::read("/proc/version").unwrap());
}

struct ClosesAtOnce(Journal);

impl Factory for ClosesAtOnce {
    fn build_protocol(&self, cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>> {
        cx.close_connection(peer.id());
        Some(Box::new(Script::new(&self.0)))
    }
}

/// It was told of a connection that could not be used any more.
#[test]
fn a_connection_that_its_factory_closes_is_told_to_nobody() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let client = test.connect_to(&ClosesAtOnce(journal.clone()), Addr::Unnamed);
    test.settle();
    assert!(client.map_or(true, |client| test.is_lost(client)));
    assert_eq!((journal.take().as_str(), test.connections()), ("", 0));
}

/// A rate limit sent before the rise of the queue was noted, and so its fall was no news.
#[test]
fn a_producer_hears_that_the_queue_is_short_although_a_rate_limit_lets_go_in_the_same_turn() {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("made", |t, _| {
        t.limit_writing(&RateLimit::new(1_000_000).burst(10_000));
        t.set_timer(SECOND / 100);
        Ok(t.write(&[b'x'; 60_000])?)
    });
    let client = test.connect(script.on("timer", |t, _| {
        t.write(&[b'x'; 20_000])?;
        assert!(t.is_writing_paused());
        Ok(())
    }));
    test.advance(SECOND);
    assert_eq!((test.output(client).len(), journal.take().as_str()), (80_000, "made timer pause resume"));
}

/// A large piece that is sent at once, and cannot be, was in no account.
#[test]
fn what_cannot_be_sent_is_told_however_large_it_is() {
    for size in [10_000, 100_000] {
        let (mut reactor, journal) = (socketserver::Reactor::new().unwrap(), Journal::default());
        let told = journal.clone();
        let serve = factory(move |_: &Peer| {
            let script = Script::new(&told).on("made", move |t, _| Ok(t.write(&vec![b'x'; size])?));
            script.at_loss(|cx, _| cx.stop())
        });
        let port = reactor.listen_tcp("127.0.0.1:0", serve).unwrap();
        let client = connect(port.local_addr().socket_addr().unwrap());
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
        drop(client);
        reactor.run().unwrap();
        let told = journal.take();
        assert!(told.starts_with("made lost:broken: ") && told.ends_with(&format!("{size} bytes unsent")), "{told}");
    }
}

/// The end of a pipe's last writer was a reset.
#[test]
fn a_pipe_whose_writer_is_gone_stays_open_while_it_is_wanted() {
    let (mut reactor, journal) = (socketserver::Reactor::new().unwrap(), Journal::default());
    let script = Script::new(&journal).on("eof", |t, _| {
        t.set_timer(SECOND / 20);
        Ok(())
    });
    let script = script.on("timer", |t, _| {
        t.close();
        Ok(())
    });
    let (read, write) = nix::unistd::pipe().unwrap();
    let mut write = File::from(write);
    write.write_all(b"all").unwrap();
    drop(write);
    let script = script.keep_open().at_loss(|cx, _| cx.stop());
    reactor.call_when_running(move |cx| drop(cx.read_from(read, script)));
    reactor.run().unwrap();
    assert_eq!(journal.take(), "made data:all eof timer lost:closed");
}
