//! What readers have broken once. Each case tells what was wrong.

mod kit;
mod script;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kit::{connect, LONG};
use script::{Journal, Script};
use socketserver::testing::TestLoop;
use socketserver::{factory, ConnId, EventLoop, HandlerResult, Protocol, ServerBuilder, Transport};

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

/// A reader who takes a byte now and then could stay for ever.
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

/// epoll tells of room only when a third of the kernel's buffer is free.
#[test]
fn the_write_limit_spares_a_peer_who_takes_a_little() {
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
    let began = std::time::Instant::now();
    test.advance(SECOND);
    assert_eq!(journal.count("timer"), 20_000);
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
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
        drop(TcpListener::bind(addr).unwrap());
    }
}
