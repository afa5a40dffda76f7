//! [`Next::More`]: requests that arrive in pieces.

use std::io::BufRead;
use std::sync::mpsc;

use crate::kit::{ms, serve, strategies, until, LONG};
use crate::{Talker, ANY};
use socketserver::{per_request, Connection, HandlerResult, Next, ServerBuilder};

/// Answers a line once all of it has arrived, and never waits.
pub fn whole_line(conn: &mut Connection) -> HandlerResult<Next> {
    if !conn.fill_buf()?.contains(&b'\n') {
        return Ok(Next::More);
    }
    crate::line(conn)
}

#[test]
fn a_request_in_pieces_is_answered_when_it_is_whole() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(whole_line)).unwrap());
        let mut client = Talker::to(&server);
        for word in ["slow", "again", "and again"] {
            word.split("").for_each(|byte| client.say(byte));
            assert_eq!(client.ask(""), format!("{word}\n"), "{name}");
        }
        client.say("one\ntwo\nthr");
        assert_eq!((client.hear(), client.hear()), ("one\n".into(), "two\n".into()), "{name}");
        assert_eq!(client.ask("ee"), "three\n", "{name}");
        drop(client);
        let report = server.stop();
        assert_eq!((report.served, report.failed), (1, 0), "{name}");
    }
}

#[test]
fn an_end_within_a_request_is_a_lost_peer() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(whole_line)).unwrap());
        assert_eq!(server.ask("one\nhal"), "one\n", "{name}");
        let report = server.stop();
        assert_eq!((report.disconnected, report.failed), (1, 0), "{name}");
    }
}

#[test]
fn a_request_that_never_ends_is_refused_at_its_limit() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let builder = ServerBuilder::new().strategy(strategy).max_request_length(1000).handle_error(move |failure| {
            let _ = tell.send(failure.to_string());
        });
        let server = serve(builder.bind(ANY, per_request(whole_line)).unwrap());
        let mut client = Talker::to(&server);
        let longest = "x".repeat(999);
        client.say(&longest);
        assert_eq!(client.ask(""), longest + "\n", "{name}");
        client.say(&"x".repeat(1000));
        assert_eq!(client.hear(), "", "{name}");
        assert!(told.recv_timeout(LONG).unwrap().contains("max_request_length"), "{name}");
        let report = server.stop();
        assert_eq!((report.failed, report.peer_faults), (1, 1), "{name}");
    }
}

#[test]
fn the_request_limit_cuts_a_request_in_pieces() {
    for (name, strategy) in strategies() {
        let builder = ServerBuilder::new().strategy(strategy).request_timeout(ms(300));
        let server = serve(builder.bind(ANY, per_request(whole_line)).unwrap());
        let mut client = Talker::to(&server);
        client.echo("in time");
        client.say("never whole");
        assert_eq!(client.hear(), "", "{name}");
        until("it is counted", || server.handle.stats().timed_out == 1);
        server.stop();
    }
}
