//! A connection leaves its handler for a loop, and stays in the counts, under the limit and in the drain of its server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Instant;

use socketserver::connection::Detached;
use socketserver::event_loop::ReactorHandle;
use socketserver::{
    handler, per_request, Connection, HandlerResult, Next, Protocol, Reactor, ServerBuilder, ThreadPool, Threading,
    TlsConfig, Transport,
};

use crate::kit::{expect, ms, read_all, serve, strategies, until, AnyStrategy, Running, AT_ONCE, LONG};
use crate::script::{run, Echo, Looped};
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};

fn looped() -> Looped {
    run(|reactor| reactor.listen_tcp("127.0.0.1:0", socketserver::factory(|_| Echo)).unwrap())
}

/// Repeats what it hears, marks a request by `begin` and `end`, and says when it is to shut down.
struct Talker;

impl Protocol for Talker {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        match data {
            b"begin" => t.request_begins(),
            b"end" => t.request_ends(),
            b"close" => t.close(),
            b"fail" => return Err("as it was told".into()),
            _ => {}
        }
        Ok(t.write(data)?)
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        Ok(t.write(b"stopping")?)
    }
}

/// Goes on in that loop after a line.
fn upgrade(conn: &mut Connection, events: &ReactorHandle) -> HandlerResult {
    conn.next_line()?;
    conn.send_line("upgraded")?;
    let detached = conn.detach()?;
    events.call_from_thread(move |cx| _ = cx.adopt(detached, Talker))?;
    Ok(())
}

fn upgrading(builder: ServerBuilder<AnyStrategy>, events: &ReactorHandle) -> Running {
    let events = events.clone();
    serve(builder.bind_tcp("127.0.0.1:0", handler(move |conn| upgrade(conn, &events))).unwrap())
}

fn threading() -> ServerBuilder<AnyStrategy> {
    ServerBuilder::new().strategy(Box::new(Threading::new()))
}

fn upgraded(server: &Running) -> TcpStream {
    let mut client = server.connect();
    client.write_all(b"upgrade\nread ahead").unwrap();
    expect(&mut client, "upgraded\nread ahead");
    client
}

#[test]
fn a_loop_goes_on_where_the_handler_has_stopped() {
    for (name, strategy) in strategies() {
        let events = looped();
        let server = upgrading(ServerBuilder::new().strategy(strategy), &events.handle);
        let mut client = upgraded(&server);
        client.write_all(b"more").unwrap();
        expect(&mut client, "more");
        let stats = server.handle.stats();
        assert_eq!((stats.active, stats.served), (1, 0), "{name}: it is not over");
        drop(client);
        until("it is counted", || server.handle.stats().served == 1);
        until("its place is free", || server.handle.stats().active == 0);
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.failed), (1, 1, 0), "{name}: {report}");
        assert_eq!(events.shutdown(LONG).accepted, 0, "the loop counts its own only");
    }
}

#[test]
fn it_keeps_its_place_until_it_has_ended() {
    let events = looped();
    let server = upgrading(threading().max_connections(1), &events.handle);
    let mut first = upgraded(&server);
    let mut second = server.connect();
    second.write_all(b"upgrade\n").unwrap();
    first.write_all(b"still here").unwrap();
    expect(&mut first, "still here");
    assert_eq!(server.handle.stats().accepted, 1, "the second one waits in the kernel");
    first.write_all(b"fail").unwrap();
    assert_eq!(read_all(&mut first), "");
    expect(&mut second, "upgraded\n");
    drop(second);
    until("both are counted", || server.handle.stats().served == 1);
    assert_eq!(server.handle.stats().failed, 1, "an error of the protocol is one of the connection");
}

#[test]
fn a_stop_of_its_server_drains_it_in_the_loop() {
    for (name, strategy) in strategies() {
        let events = looped();
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(LONG);
        let server = upgrading(builder, &events.handle);
        let mut client = upgraded(&server);
        client.write_all(b"begin").unwrap();
        expect(&mut client, "begin");
        server.handle.shutdown();
        expect(&mut client, "stopping");
        assert!(!server.has_ended(), "{name}: it waits for the request");
        client.write_all(b"end").unwrap();
        assert_eq!(read_all(&mut client), "end", "{name}");
        let report = server.join();
        assert_eq!((report.served, report.drained), (1, 1), "{name}: {report}");
        assert!(!events.has_ended(), "the loop is not the server's");
    }
}

#[test]
fn the_drain_limit_of_its_server_cuts_it() {
    let events = looped();
    let server = upgrading(threading().drain_timeout(ms(200)), &events.handle);
    let mut client = upgraded(&server);
    client.write_all(b"begin").unwrap();
    expect(&mut client, "begin");
    let began = Instant::now();
    let report = server.stop();
    assert!(began.elapsed() < AT_ONCE);
    assert_eq!((report.failed, report.timed_out, report.forced), (1, 1, 1), "{report}");
    let _ = client.read_to_end(&mut Vec::new());
}

#[test]
fn one_that_comes_after_the_stop_is_drained_at_once() {
    let (send, receive) = mpsc::channel();
    let sends = handler(move |conn: &mut Connection| Ok(send.send(conn.detach()?)?));
    let server = serve(ServerBuilder::new().drain_timeout(LONG).bind_tcp("127.0.0.1:0", sends).unwrap());
    let mut client = server.connect();
    let detached = receive.recv_timeout(LONG).unwrap();
    server.handle.shutdown();
    let events = looped();
    events.ask(move |cx| _ = cx.adopt(detached, Talker));
    assert_eq!(read_all(&mut client), "stopping");
    assert_eq!(server.join().served, 1);
}

#[test]
fn the_end_of_the_loop_ends_it() {
    let events = looped();
    let server = upgrading(threading(), &events.handle);
    let mut client = upgraded(&server);
    events.shutdown(LONG);
    assert_eq!(read_all(&mut client), "stopping");
    until("its place is free", || server.handle.stats().active == 0);
    // A loop that is dropped without a run.
    let (send, receive) = mpsc::channel();
    let sends = handler(move |conn: &mut Connection| Ok(send.send(conn.detach()?)?));
    let server = serve(ServerBuilder::new().bind_tcp("127.0.0.1:0", sends).unwrap());
    let mut client = server.connect();
    let (detached, mut reactor) = (receive.recv_timeout(LONG).unwrap(), Reactor::new().unwrap());
    reactor.call_when_running(move |cx| _ = cx.adopt(detached, Talker));
    reactor.turn(Some(ms(0))).unwrap();
    assert_eq!(server.handle.stats().active, 1);
    drop(reactor);
    let _ = client.read_to_end(&mut Vec::new());
    assert_eq!(server.stop().served, 1);
}

#[test]
fn time_limits_go_along() {
    let events = looped();
    let server = upgrading(threading().idle_timeout(ms(100)), &events.handle);
    let mut client = upgraded(&server);
    assert_eq!(read_all(&mut client), "");
    until("it is counted", || server.handle.stats().timed_out == 1);
}

#[test]
fn tls_goes_along() {
    let Some(pki) = Pki::make() else { return };
    let (events, tls) = (looped(), TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap());
    let theirs = events.handle.clone();
    let handles = handler(move |conn: &mut Connection| {
        if conn.next_line()?.as_deref() != Some("raw") {
            conn.send_line("upgraded")?;
            let detached = conn.detach()?;
            theirs.call_from_thread(move |cx| _ = cx.adopt(detached, Talker))?;
            return Ok(());
        }
        let refused = conn.detach()?.into_socket();
        assert!(refused.is_err(), "without its session nobody can go on");
        Ok(())
    });
    let server = serve(ServerBuilder::new().tls(tls).read_buffer(512).bind("127.0.0.1:0", handles).unwrap());
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    client.say(format!("upgrade\n{}", "ahead".repeat(1000))); // some in the buffer, some in the session
    client.expect(&format!("upgraded\n{}", "ahead".repeat(1000)));
    client.say("more");
    client.expect("more");
    client.say("close");
    assert_eq!(client.read_all(), "", "with close_notify");
    let mut client = TlsClient::connect(server.addr(), trust(&pki));
    client.say("raw\n");
    let _ = client.read_to_end(&mut Vec::new());
    assert_eq!(server.stop().served, 2);
}

#[test]
fn the_thread_is_free_for_other_requests() {
    let events = looped();
    let theirs = events.handle.clone();
    let requests = per_request(move |conn: &mut Connection| {
        if conn.next_line()?.as_deref() == Some("upgrade") {
            conn.send_line("upgraded")?;
            let detached = conn.detach()?;
            theirs.call_from_thread(move |cx| _ = cx.adopt(detached, Talker))?;
        } else {
            conn.send_line("answered")?;
        }
        Ok(Next::Request)
    });
    let builder = ServerBuilder::new().strategy(ThreadPool::new(1)).max_connections(100);
    let server = serve(builder.bind("127.0.0.1:0", requests).unwrap());
    let mut upgraded: Vec<_> = (0..8).map(|_| upgraded(&server)).collect();
    let mut plain = server.connect();
    for client in &mut upgraded {
        plain.write_all(b"a request\n").unwrap();
        expect(&mut plain, "answered\n");
        client.write_all(b"a message").unwrap();
        expect(client, "a message");
    }
    drop((upgraded, plain));
    until("all are counted", || server.handle.stats().served == 9);
}

#[test]
fn what_nobody_adopts_closes_and_counts() {
    let taken = handler(|conn: &mut Connection| {
        match conn.next_line()?.as_deref() {
            Some("drop") => drop(conn.detach()?),
            Some("fail") => {
                drop(conn.detach()?);
                return Err("after it has left".into());
            }
            _ => {
                let detached = conn.detach()?;
                assert_eq!(detached.peer_addr(), &conn.peer_addr());
                assert_eq!(detached.unread(), b"read ahead");
                let (socket, unread) = detached.into_socket().map_err(|_| "under TLS?")?;
                let mut stream = TcpStream::from(socket);
                assert_eq!((stream.read_timeout()?, stream.write_timeout()?), (None, None));
                stream.write_all(&unread)?;
                assert_eq!(conn.detach().unwrap_err().kind(), ErrorKind::NotConnected, "once is enough");
                assert!(conn.next_line().is_err() && conn.wait().is_err());
                let written = conn.write_all(b"x").and_then(|()| conn.flush());
                assert!(written.is_err());
            }
        }
        Ok(())
    });
    let server = serve(ServerBuilder::new().idle_timeout(LONG).bind_tcp("127.0.0.1:0", taken).unwrap());
    assert_eq!(server.ask("drop\n"), "");
    assert_eq!(server.ask("fail\n"), "");
    assert_eq!(server.ask("take\nread ahead"), "read ahead");
    let report = server.stop();
    assert_eq!((report.served, report.failed), (3, 0), "{report}");
}

#[test]
fn a_socket_of_the_program_is_adopted_too() {
    let events = looped();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    events.ask(move |cx| _ = cx.adopt(Detached::from(ours).with_unread(b"before"), Talker));
    expect(&mut theirs, "before");
    theirs.write_all(b"close").unwrap();
    assert_eq!(read_all(&mut theirs), "");
    let report = events.shutdown(LONG);
    assert_eq!((report.accepted, report.served), (0, 0), "it is in no counter");
}
