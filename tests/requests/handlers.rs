//! What a handler of requests promises, whatever the strategy.

use std::sync::mpsc;

use crate::kit::{concurrent, read_all, serve, strategies, until, LONG};
use crate::{line, Talker, ANY};
use socketserver::testing::converse;
use socketserver::{
    per_request, sessions, Connection, HandlerResult, Next, ServerBuilder, Session, StreamRequestHandler,
};

#[test]
fn a_closure_answers_request_by_request_on_every_strategy() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(line)).unwrap());
        assert_eq!(server.ask("one\ntwo\nthree\n"), "one\ntwo\nthree\n", "{name}, pipelined");
        let mut client = Talker::to(&server);
        for piece in ["p", "iece", "s\n"] {
            client.say(piece);
        }
        assert_eq!(client.hear(), "pieces\n", "{name}");
        client.echo("again");
        assert_eq!(client.ask("bye"), "", "{name}");
        let report = server.stop();
        assert_eq!((report.served, report.failed), (2, 0), "{name}");
    }
}

#[test]
fn an_error_or_a_panic_ends_its_connection_only() {
    for (name, strategy) in concurrent() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(line)).unwrap());
        let mut other = Talker::to(&server);
        other.echo("first");
        for what in ["fail", "panic"] {
            let mut client = Talker::to(&server);
            client.echo("before");
            assert_eq!(client.ask(what), "", "{name}");
            other.echo("beside");
        }
        drop(other);
        let report = server.stop();
        assert_eq!((report.failed, report.panicked, report.served), (2, 1, 1), "{name}");
    }
}

/// Tells what is called.
struct Told {
    tell: mpsc::Sender<String>,
    requests: usize,
}

impl Session for Told {
    fn setup(&mut self, conn: &mut Connection) -> HandlerResult {
        conn.send_line("hello")
    }

    fn request(&mut self, conn: &mut Connection) -> HandlerResult<Next> {
        self.requests += 1;
        line(conn)
    }

    fn finish(&mut self, conn: &mut Connection) -> HandlerResult {
        self.tell.send(format!("{} requests", self.requests))?;
        conn.send_line("goodbye")
    }
}

fn told() -> (impl StreamRequestHandler, mpsc::Receiver<String>) {
    let (tell, told) = mpsc::channel();
    (sessions(move || Told { tell: tell.clone(), requests: 0 }), told)
}

#[test]
fn each_connection_has_a_session_of_its_own() {
    for (name, strategy) in strategies() {
        let (handler, told) = told();
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, handler).unwrap());
        for (last, requests) in [("bye", 3), ("fail", 3), ("panic", 3)] {
            let mut client = Talker::to(&server);
            assert_eq!(client.hear(), "hello\n", "{name}");
            client.echo("one");
            client.echo("two");
            assert_eq!(client.ask(last), "goodbye\n", "{name}: it finishes after {last}");
            assert_eq!(client.hear(), "", "{name}");
            assert_eq!(told.recv_timeout(LONG).unwrap(), format!("{requests} requests"), "{name}");
        }
        // A client that ends between two requests, and one that is idle at the stop.
        let mut client = Talker::to(&server);
        assert_eq!(client.hear(), "hello\n", "{name}");
        client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client.0), "goodbye\n", "{name}");
        let mut client = Talker::to(&server);
        assert_eq!(client.hear(), "hello\n", "{name}");
        client.echo("one");
        server.handle.shutdown();
        assert_eq!(read_all(&mut client.0), "goodbye\n", "{name}");
        server.join();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["0 requests", "1 requests"], "{name}");
    }
}

struct FailsToBegin;

impl Session for FailsToBegin {
    fn setup(&mut self, _: &mut Connection) -> HandlerResult {
        Err("not today".into())
    }

    fn request(&mut self, _: &mut Connection) -> HandlerResult<Next> {
        panic!("it has not begun");
    }

    fn finish(&mut self, _: &mut Connection) -> HandlerResult {
        panic!("it has not begun");
    }
}

#[test]
fn after_a_setup_that_fails_nothing_is_called() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).bind(ANY, sessions(|| FailsToBegin)).unwrap();
        let server = serve(server);
        assert_eq!(Talker::to(&server).hear(), "", "{name}");
        until("it has ended", || server.handle.stats().failed == 1);
        assert_eq!(server.stop().panicked, 0, "{name}");
    }
}

#[test]
fn a_handler_that_reads_nothing_is_an_error_and_no_spin() {
    for (name, strategy) in strategies() {
        let lazy = per_request(|_| Ok(Next::Request));
        let (tell, told) = mpsc::channel();
        let server = ServerBuilder::new().strategy(strategy).handle_error(move |failure| {
            let _ = tell.send(failure.to_string());
        });
        let server = serve(server.bind(ANY, lazy).unwrap());
        assert_eq!(Talker::to(&server).ask("hello"), "", "{name}");
        assert!(told.recv_timeout(LONG).unwrap().contains("has read nothing of the request"), "{name}");
        until("it has ended", || server.handle.stats().active == 0);
        assert_eq!(server.stop().failed, 1, "{name}");
    }
}

#[test]
fn it_can_be_tested_without_a_server() {
    let conversation = converse(&per_request(line), b"one\ntwo\nbye\nlate\n");
    assert_eq!(conversation.text(), "one\ntwo\n");
    conversation.result.unwrap();
    let cut_off = converse(&per_request(line), b"one\ntw");
    assert_eq!(cut_off.text(), "one\n");
    assert!(cut_off.result.is_err());
}
