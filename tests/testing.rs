//! What the crate gives to tests, tested: a `TestServer` that names what is left open, and conversations in memory.

mod kit;

/// How users do it: its own tests run here as well. (With `test = true` in Cargo.toml, `cargo test` would build the
/// example as a test only, and no longer as the program that other tests start.)
#[allow(dead_code)] // its `main`
#[path = "../examples/testing_a_handler.rs"]
mod example;

use std::io::{BufRead, Read, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::time::Instant;

use kit::{descriptors, ms, strategies, threads_named, until, Lines, AT_ONCE, LONG};
use nix::sys::socket::{getsockopt, sockopt::ReceiveTimeout};
use socketserver::framing::{LineTooLong, Netstrings};
use socketserver::testing::{converse, Panicked, TestClient, TestServer};
use socketserver::{
    factory, handler, Addr, Address, AtLimit, Connection, Error, EventLoop, Forking, HandlerResult, Protocol,
    Sequential, ServerBuilder, StreamRequestHandler, Transport,
};

/// What a call that shall fail a test says.
fn failure_of(act: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("it shall fail the test");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

/// Waits within a request, so that a stop has to cut it.
struct Stuck(Arc<AtomicUsize>);

impl StreamRequestHandler for Stuck {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.next_request()?;
        conn.next_line()?;
        self.0.fetch_add(1, SeqCst);
        Ok(conn.read_exact(&mut [0; 100])?)
    }
}

/// A client that is in the middle of its request.
fn begin(server: &TestServer, begun: &AtomicUsize) -> TestClient {
    let before = begun.load(SeqCst);
    let mut client = server.connect();
    client.send("go\n");
    until("the request has begun", || begun.load(SeqCst) > before);
    client
}

/// Says that it has begun, and heeds nothing until it is released.
fn deaf(released: &Arc<AtomicBool>) -> impl StreamRequestHandler {
    let released = released.clone();
    handler(move |conn| {
        writeln!(conn, "begun")?;
        conn.flush()?;
        until("released", || released.load(SeqCst));
        Ok(())
    })
}

// The server.

#[test]
fn a_test_server_serves_with_every_strategy_and_accounts() {
    for (name, strategy) in strategies() {
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), Lines);
        let mut client = server.connect();
        assert_eq!((client.ask("one"), client.ask("two")), ("one".into(), "two".into()), "{name}");
        client.send("quit\n");
        assert_eq!(client.rest(), b"", "{name}");
        let report = server.stop();
        assert_eq!((report.accepted, report.served), (1, 1), "{name}: {report}");
    }
}

#[test]
fn a_test_server_runs_protocols_too() {
    let server = TestServer::with(ServerBuilder::new().strategy(EventLoop::new()), factory(|_| Echo));
    let mut client = server.connect();
    assert_eq!(client.ask("hello"), "hello");
    client.send("half a line");
    assert_eq!(client.exactly(4), b"half");
    client.end();
    assert_eq!(client.rest(), b" a line");
    assert_eq!(server.stop().served, 1);
}

#[test]
fn idle_connections_are_nothing_that_is_left() {
    for (name, strategy) in strategies() {
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), Lines);
        let mut idle = server.connect();
        assert_eq!(idle.ask("hello"), "hello");
        let since = Instant::now();
        assert_eq!(server.stop().drained, 1, "{name}");
        assert!(since.elapsed() < AT_ONCE, "{name}: not at the drain limit");
        assert_eq!(idle.rest(), b"");
    }
}

#[test]
fn connections_that_had_to_be_cut_are_named_and_no_others() {
    for (name, strategy) in kit::concurrent() {
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(ms(50));
        let begun = Arc::default();
        let server = TestServer::with(builder, Stuck(Arc::clone(&begun)));
        let mut done = begin(&server, &begun);
        done.send([b'x'; 100]);
        assert_eq!(done.rest(), b"");
        let (one, two) = (begin(&server, &begun), begin(&server, &begun));
        let names = [&one, &two].map(|c| format!("\n  {} was cut at the drain limit, open for ", c.local_addr()));
        let told = failure_of(|| _ = server.stop());
        assert!(names.iter().all(|name| told.contains(name)), "{name}: {told}");
        assert_eq!(told.lines().count(), 3, "{name}: {told}");
    }
}

#[test]
fn a_protocol_s_connection_that_had_to_be_cut_is_named() {
    let builder = ServerBuilder::new().strategy(EventLoop::new()).drain_timeout(ms(50));
    struct Busy;
    impl Protocol for Busy {
        fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            transport.request_begins();
            Ok(transport.write(data)?)
        }
    }
    let server = TestServer::with(builder, factory(|_| Busy));
    let mut client = server.connect();
    assert_eq!(client.ask("hello"), "hello");
    let told = failure_of(|| _ = server.stop());
    assert!(told.contains(&format!("\n  {} was cut", client.local_addr())), "{told}");
}

#[test]
fn a_handler_that_never_returns_is_named_in_time() {
    let released = Arc::new(AtomicBool::new(false));
    let server = TestServer::with(ServerBuilder::new().drain_timeout(ms(50)), deaf(&released));
    let mut client = server.connect();
    assert_eq!(client.line(), "begun");
    let since = Instant::now();
    let told = failure_of(|| _ = server.stop());
    released.store(true, SeqCst);
    assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
    let line = format!("\n  {} is still being served, open for ", client.local_addr());
    assert!(told.contains(&line), "{told}");
}

#[test]
fn a_handler_that_holds_the_server_s_own_thread_is_named_in_time() {
    let released = Arc::new(AtomicBool::new(false));
    let builder = ServerBuilder::new().strategy(Sequential).drain_timeout(ms(50));
    let server = TestServer::with(builder, deaf(&released));
    let mut client = server.connect();
    assert_eq!(client.line(), "begun");
    let since = Instant::now();
    let told = failure_of(|| drop(server));
    released.store(true, SeqCst);
    assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
    assert!(told.starts_with("the test server has not ended within 5.05s:"), "{told}");
    assert!(told.contains(&format!("\n  {} is still being served", client.local_addr())), "{told}");
}

#[test]
fn dropping_it_fails_as_a_stop_does() {
    let begun = Arc::default();
    let server = TestServer::with(ServerBuilder::new().drain_timeout(ms(50)), Stuck(Arc::clone(&begun)));
    let client = begin(&server, &begun);
    let told = failure_of(|| drop(server));
    assert!(told.contains(&format!("{} was cut", client.local_addr())), "{told}");
}

#[test]
fn in_a_test_that_fails_already_it_only_stops() {
    let mut client = None;
    let told = failure_of(|| {
        let begun = Arc::default();
        let server = TestServer::start(Stuck(Arc::clone(&begun)));
        client = Some(begin(&server, &begun));
        panic!("the test's own failure");
    });
    assert_eq!(told, "the test's own failure");
    assert_eq!(client.unwrap().rest(), b"", "its connections have been cut");
}

#[test]
fn what_the_test_cuts_itself_is_not_held_against_it() {
    for (name, strategy) in strategies() {
        let begun = Arc::default();
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), Stuck(Arc::clone(&begun)));
        let _client = begin(&server, &begun);
        server.handle().shutdown_now();
        assert_eq!(server.stop().forced, 1, "{name}");
    }
}

#[test]
fn a_refused_connection_does_not_count_as_left_open() {
    let builder = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(b"busy\n".to_vec()));
    let server = TestServer::with(builder, Lines);
    let mut first = server.connect();
    assert_eq!(first.ask("hello"), "hello");
    assert_eq!(server.connect().rest(), b"busy\n");
    assert_eq!(server.stop().refused, 1);
}

#[test]
fn failures_of_handlers_are_counted_and_left_to_the_test() {
    let server = TestServer::start(Lines);
    let mut client = server.connect();
    client.send("fail\n");
    assert_eq!(client.rest(), b"");
    let mut client = server.connect();
    client.send("panic\n");
    assert_eq!(client.rest(), b"");
    let report = server.stop();
    assert_eq!((report.failed, report.panicked), (2, 1));
}

#[test]
fn a_server_that_ends_by_itself_is_joined() {
    let server = TestServer::start(Lines);
    server.connect().send("stop\n");
    assert_eq!(server.join().unwrap().served, 1);
}

#[test]
fn a_connect_to_a_server_that_has_ended_says_so() {
    let server = TestServer::with(ServerBuilder::new().listen("127.0.1.3:0"), Lines); // not another test's port
    server.handle().shutdown();
    until("it has ended", || server.has_ended());
    let told = failure_of(|| drop(server.connect()));
    assert!(told.contains("the server has ended") && told.contains(&server.addr().to_string()), "{told}");
}

#[test]
fn forking_is_refused_with_the_way_out() {
    let told = failure_of(|| drop(TestServer::with(ServerBuilder::new().strategy(Forking::new()), Lines)));
    assert!(told.contains("several threads") && told.contains("testing::converse"), "{told}");
    // Behind a box it is not seen, and the server itself refuses.
    let boxed: kit::AnyStrategy = Box::new(Forking::new());
    let server = TestServer::with(ServerBuilder::new().strategy(boxed), Lines);
    assert!(matches!(server.join(), Err(Error::Threads { .. })));
}

#[test]
fn it_listens_where_the_builder_says() {
    let name = format!("unix:@socketserver-test-{}", std::process::id());
    let server = TestServer::with(ServerBuilder::new().listen(name.as_str()), Lines);
    assert_eq!(Address::from(name.as_str()).to_string(), server.local_addr().to_string());
    assert_eq!(server.connect().ask("hello"), "hello");
    let bound = ServerBuilder::new().bind("127.0.0.1:0", Lines).unwrap();
    let addr = bound.local_addr().clone();
    let server = TestServer::of(bound);
    assert_eq!(*server.local_addr(), addr);
    assert_eq!(server.connect().ask("hello"), "hello");
}

#[test]
fn a_unix_server_has_a_folder_of_its_own_that_goes_with_it() {
    let servers = [TestServer::unix(ServerBuilder::new(), Lines), TestServer::unix(ServerBuilder::new(), Lines)];
    let folders = servers.each_ref().map(|server| {
        assert_eq!(server.connect().ask("hello"), "hello");
        let Addr::Unix(path) = server.local_addr() else { panic!("{:?}", server.local_addr()) };
        path.parent().unwrap().to_owned()
    });
    assert!(folders[0] != folders[1] && folders[0].exists() && folders[1].exists());
    drop(servers);
    assert!(!folders[0].exists() && !folders[1].exists());
}

#[test]
fn a_client_never_waits_for_ever() {
    for server in [TestServer::start(Lines), TestServer::unix(ServerBuilder::new(), Lines)] {
        let limit = getsockopt(&server.connect(), ReceiveTimeout).unwrap();
        assert_eq!(limit.tv_sec(), 30);
    }
}

#[test]
fn a_client_says_what_it_missed() {
    let server = TestServer::start(handler(|conn| Ok(conn.write_all(b"half a line")?)));
    assert!(failure_of(|| drop(server.connect().line())).contains("within a line, after \"half a line\""));
    let mut client = server.connect();
    client.rest();
    assert!(failure_of(|| drop(client.line())).contains("has ended the stream"));
    assert!(failure_of(|| drop(server.connect().exactly(12))).starts_with("not 12 bytes"));
}

#[test]
fn a_client_reads_and_writes_as_any_stream() {
    let server = TestServer::start(Lines);
    let mut client = server.connect();
    client.write_all(b"one\ntwo\n").unwrap();
    client.end();
    assert_eq!(client.lines().map(Result::unwrap).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn a_test_server_leaves_nothing_behind() {
    let run = || {
        let server = TestServer::unix(ServerBuilder::new(), Lines);
        assert_eq!(server.connect().ask("hello"), "hello");
        server.stop();
    };
    (0..200).for_each(|_| run());
    // Other tests of this process come and go: their descriptors and threads too.
    assert!(descriptors() < 200, "{} descriptors after 200 servers", descriptors());
    until("the threads of all servers are gone", || threads_named("test-server") < 30);
}

// Conversations.

#[test]
fn a_conversation_has_what_the_client_read_and_what_the_handler_returned() {
    let conversation = converse(&Lines, b"one\ntwo\nfail\nthree\n");
    assert_eq!(conversation.text(), "one\ntwo\n");
    assert_eq!(conversation.result.unwrap_err().to_string(), "asked to fail");
    assert!(converse(&Lines, b"one\nquit\n").result.is_ok());
    assert!(converse(&Lines, b"").result.is_ok());
}

#[test]
fn a_handler_s_panic_is_a_result_after_what_it_had_written() {
    let conversation = converse(&Lines, b"one\npanic\n");
    assert_eq!((conversation.text(), conversation.panic()), ("one\n", Some("asked to panic")));
    let error = conversation.result.unwrap_err();
    assert_eq!(error.downcast_ref::<Panicked>().unwrap().message, "asked to panic");
    assert_eq!(error.to_string(), "the handler panicked: asked to panic");
    assert_eq!(converse(&Lines, b"fail\n").panic(), None);
}

const MUCH: usize = 16 << 20;

#[test]
fn neither_side_s_size_matters() {
    let much = vec![b'x'; MUCH];
    let copy = handler(|conn| {
        let (mut input, mut output) = conn.halves();
        std::io::copy(&mut input, &mut output)?;
        Ok(())
    });
    let copied = converse(&copy, &much);
    assert!(copied.result.is_ok() && copied.output == much, "read and written in turns");
    let first = handler(|conn| {
        let mut input = Vec::new();
        conn.read_to_end(&mut input)?;
        Ok(conn.write_all(&input)?)
    });
    assert_eq!(converse(&first, &much).output.len(), MUCH, "read, and then written");
    let last = handler(|conn| {
        conn.write_all(&vec![b'y'; MUCH])?;
        conn.flush()?;
        Ok(conn.read_to_end(&mut Vec::new()).map(drop)?)
    });
    assert_eq!(converse(&last, &much).output.len(), MUCH, "written, and then read");
}

#[test]
fn a_handler_may_leave_its_input_unread() {
    let much = vec![b'x'; MUCH];
    let rude = converse(&handler(|conn| Ok(conn.write_all(b"no, thanks\n")?)), &much);
    assert_eq!(rude.text(), "no, thanks\n");
    assert!(rude.result.is_ok());
    assert_eq!(converse(&handler(|_| Ok(())), &much).output, b"");
}

#[test]
fn what_a_connection_can_do_works_in_a_conversation() {
    let strings = converse(
        &handler(|conn| {
            let mut strings = Netstrings::new();
            while let Some(text) = conn.read_frame(&mut strings)? {
                let text = text.to_vec();
                conn.write_all(&text)?;
            }
            Ok(())
        }),
        b"5:hello,0:,2:!\n,",
    );
    assert_eq!(strings.text(), "hello!\n");
    let long = converse(&Lines, &vec![b'x'; 100_000]);
    let error = long.result.unwrap_err();
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    assert!(inner.is_some_and(|e| e.is::<LineTooLong>()), "{error}");
    let written = converse(
        &handler(|conn| {
            let writer = conn.writer()?;
            std::thread::spawn(move || writer.send(b"from a thread\n".to_vec())).join().unwrap()?;
            Ok(())
        }),
        b"",
    );
    assert_eq!(written.text(), "from a thread\n");
    let waits = converse(&handler(|conn| Ok(conn.server().wait(None).map(drop)?)), b"");
    assert!(matches!(waits.result.unwrap_err().downcast_ref(), Some(Error::WaitInHandler)));
}

#[test]
fn setup_and_finish_are_part_of_a_conversation() {
    struct Steps(mpsc::Sender<&'static str>);
    impl StreamRequestHandler for Steps {
        fn setup(&self, conn: &mut Connection) -> HandlerResult {
            Ok(conn.write_all(b"welcome\n")?)
        }

        fn handle(&self, _: &mut Connection) -> HandlerResult {
            Err("in the middle".into())
        }

        fn finish(&self, conn: &mut Connection) -> HandlerResult {
            self.0.send("finish")?;
            Ok(conn.write_all(b"good bye\n")?)
        }
    }
    let (tell, told) = mpsc::channel();
    let conversation = converse(&Steps(tell), b"");
    assert_eq!(conversation.text(), "welcome\ngood bye\n");
    assert_eq!(conversation.result.unwrap_err().to_string(), "in the middle");
    assert_eq!(told.recv(), Ok("finish"));
}
