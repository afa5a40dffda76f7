//! Limits of sources in the process of the test: what counts, what is told, and what goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use crate::kit::{expect, serve, until, Lines, LONG};
use socketserver::{
    factory, handler, per_request, Blocking, Closed, ConnectionOutcome, Error, EventLoop, Failure, HandlerResult, Next,
    Observer, PerSource, Protocol, Sequential, ServerBuilder, SourceRefusal, ThreadPool, Threading, Transport,
};

fn one_at_once() -> ServerBuilder {
    ServerBuilder::new().per_source(PerSource::new().at_once(1))
}

/// The end of a connection that was refused: nothing came before it.
fn is_refused(mut client: TcpStream) -> bool {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).is_ok_and(|_| heard.is_empty()) || heard.is_empty()
}

/// Between two requests it has no thread, and counts all the same.
#[test]
fn a_parked_connection_counts_for_its_source() {
    let echo = per_request(|conn| {
        let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
        conn.send_line(line).map(|()| Next::Request)
    });
    let limits = PerSource::new().at_once(3);
    let server =
        serve(ServerBuilder::new().strategy(ThreadPool::new(2)).per_source(limits).bind("127.0.0.1:0", echo).unwrap());
    let mut parked: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for client in &mut parked {
        client.write_all(b"a\n").unwrap();
        expect(client, "a\n");
    }
    assert!(is_refused(server.connect()));
    parked.pop();
    until("its place is free", || {
        let mut client = server.connect();
        let _ = client.write_all(b"b\n");
        matches!(client.read(&mut [0; 2]), Ok(1..))
    });
    parked[0].write_all(b"c\n").unwrap();
    expect(&mut parked[0], "c\n");
    assert!(server.stop().sources.at_once >= 1);
}

struct Reasons(Arc<Mutex<Vec<(ConnectionOutcome, String)>>>);

impl Observer for Reasons {
    fn closed(&self, closed: &Closed<'_>) {
        let reason = closed.reason.unwrap_or_default().to_owned();
        self.0.lock().unwrap().push((closed.outcome, reason));
    }
}

struct Silent;

impl Protocol for Silent {
    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn hooks_and_observers_are_told_why() {
    for in_a_loop in [false, true] {
        let (told, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let tells = told.clone();
        let builder = one_at_once().observer(Arc::new(Reasons(closed.clone()))).handle_error(move |failure| {
            let Failure::Refused { error, .. } = failure else { return };
            let why = error.get_ref().and_then(|inside| inside.downcast_ref::<SourceRefusal>());
            tells.lock().unwrap().extend(why.copied());
        });
        let server = match in_a_loop {
            true => serve(builder.strategy(EventLoop::new()).bind("127.0.0.1:0", factory(|_| Silent)).unwrap()),
            false => serve(builder.bind("127.0.0.1:0", Lines).unwrap()),
        };
        let held = server.connect();
        until("it is served", || server.handle.stats().active == 1);
        assert!(is_refused(server.connect()));
        until("it is counted", || server.handle.stats().sources.at_once == 1);
        drop(held);
        let report = server.stop();
        assert_eq!((report.refused, report.sources.refused()), (1, 1));
        assert_eq!(*told.lock().unwrap(), [SourceRefusal::AtOnce]);
        let refused = (ConnectionOutcome::Refused, SourceRefusal::AtOnce.to_string());
        assert!(closed.lock().unwrap().contains(&refused), "{closed:?}");
    }
}

#[test]
fn a_single_request_is_one_that_is_served() {
    let (free, frees) = mpsc::channel();
    let frees = Mutex::new(frees);
    let waits = handler(move |conn| {
        conn.send_line("in")?;
        conn.flush()?;
        Ok(frees.lock().unwrap().recv_timeout(LONG)?)
    });
    let mut server = one_at_once().bind("127.0.0.1:0", waits).unwrap();
    let address = server.local_addr().socket_addr().unwrap();
    let connect = || crate::kit::connect(address);
    let mut first = connect();
    assert!(server.handle_request(None).unwrap());
    expect(&mut first, "in\n");
    let (second, third) = (connect(), connect());
    assert!(!server.handle_request(Some(Duration::from_millis(50))).unwrap(), "they are refused, and nobody is left");
    assert!(is_refused(second) && is_refused(third));
    free.send(()).unwrap();
    expect(&mut first, "");
    until("its place is free", || server.handle().stats().active == 0);
    free.send(()).unwrap();
    let mut fourth = connect();
    assert!(server.handle_request(Some(LONG)).unwrap());
    expect(&mut fourth, "in\n");
}

/// The queue at a stop has many connections of a source, and they hold up nobody.
#[test]
fn at_a_stop_a_queue_of_one_source_is_gone_through() {
    let echo = || {
        per_request(|conn| {
            let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
            conn.send_line(line).map(|()| Next::Request)
        })
    };
    for parks in [false, true] {
        let bound = |builder: ServerBuilder<Threading>| match parks {
            true => serve(builder.strategy(ThreadPool::new(2)).bind("127.0.0.1:0", echo()).unwrap()),
            false => serve(builder.strategy(ThreadPool::new(2)).bind("127.0.0.1:0", Lines).unwrap()),
        };
        let hourly = PerSource::new().rate(1, Duration::from_secs(3600));
        let server = bound(ServerBuilder::new().per_source(hourly));
        server.handle.pause();
        let crowd: Vec<_> = (0..20).map(|_| server.connect()).collect();
        let mut last = server.connect();
        last.write_all(b"a\n").unwrap();
        server.handle.resume();
        server.handle.shutdown();
        let report = server.join();
        assert_eq!((report.accepted, report.sources.rate, report.refused), (21, 20, 20), "{report}");
        drop(crowd);
    }
}

#[test]
fn limits_that_make_no_sense_are_errors_of_the_bind() {
    let bind = |limits| ServerBuilder::new().per_source(limits).bind("127.0.0.1:0", Lines).map(drop);
    for limits in [PerSource::new(), PerSource::new().at_once(0), PerSource::new().at_once(1).memory(1)] {
        let error = bind(limits).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(error.to_string().contains("per_source") && !error.to_string().contains('\n'), "{error}");
    }
    assert!(bind(PerSource::new().at_once(1)).is_ok());
    let other = one_at_once().strategy(Sequential).bind("127.0.0.1:0", Blocking(factory(|_| Silent)));
    assert!(other.is_ok());
}
