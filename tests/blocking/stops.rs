//! The server's stop, and the protocol's own.

use std::time::Instant;

use socketserver::{Blocking, ServerBuilder};

use crate::doer::Journal;
use crate::kit::{expect, ms, read_all, serve, AT_ONCE};
use crate::{all, doers, greeted, say, say_last, taken, ANY};

#[test]
fn a_stop_ends_idle_connections_at_once() {
    let (heard, journal, report) = same!("a stop", |server| {
        let mut client = greeted(server);
        let began = Instant::now();
        server.handle.shutdown();
        let rest = read_all(&mut client);
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        rest
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made shutting_down lost: the server stops"));
    assert!(report.contains("served 1") && report.ends_with("drained 1"), "{report}");

    // A timer that is set for ever again is no request.
    let (_, journal, report) = same!("a stop among ticks", |server| {
        let mut client = greeted(server);
        taken(&mut client, "tick");
        server.handle.shutdown();
        read_all(&mut client)
    });
    assert_eq!(journal, "made tick lost: the server stops");
    assert!(report.ends_with("drained 1"), "{report}");
}

#[test]
fn a_stop_lets_a_request_finish() {
    let (heard, journal, report) = same!("a stop within a request", |server| {
        let mut client = greeted(server);
        taken(&mut client, "begin");
        server.handle.shutdown();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("done", "made begin shutting_down timer lost: the server stops"));
    assert!(report.contains("served 1") && report.ends_with("drained 1"), "{report}");

    let (heard, journal, report) = same!("a stop from within", |server| say_last(server, "shutdown"));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made shutdown shutting_down lost: the server stops"));
    assert!(report.ends_with("drained 1"), "{report}");
}

#[test]
fn the_drain_limit_cuts_what_is_left() {
    for (name, strategy) in all() {
        let journal = Journal::default();
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(ms(100));
        let server = serve(builder.bind(ANY, Blocking(doers(&journal))).unwrap());
        let mut client = greeted(&server);
        taken(&mut client, "stay");
        server.handle.shutdown();
        assert_eq!(read_all(&mut client), "!", "{name}");
        let report = server.join();
        let heard = journal.lock().unwrap().join(" ");
        assert_eq!(heard, "made stay shutting_down lost: drain limit of 100ms exceeded", "{name}");
        // The connection may notice the limit just before the server does, and then counts as drained.
        let counts = (report.failed, report.timed_out, report.drained + report.forced);
        assert_eq!(counts, (1, 1, 1), "{name}: {report}");
    }
}

#[test]
fn a_stop_may_be_hastened() {
    let (_, journal, report) = same!("shutdown_now", |server| {
        let mut client = greeted(server);
        taken(&mut client, "stay");
        server.handle.shutdown();
        expect(&mut client, "!"); // told of it
        let began = Instant::now();
        server.handle.shutdown_now();
        let rest = read_all(&mut client);
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        rest
    });
    assert_eq!(journal, "made stay shutting_down lost: drain limit of 10s exceeded");
    assert!(report.ends_with("forced 1"), "{report}");
}

#[test]
fn a_protocol_may_end_its_loop_or_the_server() {
    for (name, strategy) in all() {
        let journal = Journal::default();
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Blocking(doers(&journal))).unwrap());
        assert_eq!(say_last(&server, "stop"), "", "{name}");
        assert_eq!(say_last(&server, "quit"), "bye", "{name}: the server goes on");
        let mut client = greeted(&server);
        say(&client, "grace");
        assert_eq!(read_all(&mut client), "", "{name}");
        let report = server.join(); // it was stopped as a whole
        assert_eq!((report.served, report.failed, report.forced), (3, 0, 0), "{name}");
        let journal = journal.lock().unwrap().join(" ");
        assert!(journal.starts_with("made stop lost: the server stops made quit lost: closed"), "{name}: {journal}");
        assert!(journal.ends_with("made grace shutting_down lost: the server stops"), "{name}: {journal}");
    }
}

/// The time that a protocol gives itself at a stop is its own: others have the server's.
#[test]
fn an_own_grace_cuts_nobody_else() {
    let journal = Journal::default();
    let server = serve(ServerBuilder::new().bind(ANY, Blocking(doers(&journal))).unwrap());
    let mut slow = greeted(&server);
    taken(&mut slow, "begin"); // 300 ms
    assert_eq!(say_last(&server, "overstay"), "");
    assert_eq!(read_all(&mut slow), "done");
    let report = server.join();
    assert_eq!((report.served, report.timed_out, report.drained, report.forced), (1, 1, 2, 0));
    let journal = journal.lock().unwrap().join(" ");
    assert!(journal.contains("lost: drain limit of 50ms exceeded"), "{journal}");
}
