//! Waiting for the peer and for other threads at once.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::{Duration, Instant};

use socketserver::connection::{ConnectionWaker, Event};
use socketserver::framing::Netstrings;
use socketserver::{handler, Connection, HandlerResult, Limit, ServerBuilder, TlsConfig};

use crate::kit::{expect, ms, read_all, serve, strategies, AT_ONCE, LONG};
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};

fn can_be_shared<T: Clone + Send + Sync>() {}

/// Tells each line to `said`, and what the waits end for.
fn listen(conn: &mut Connection, said: &mut Vec<String>) -> std::io::Result<Event> {
    let event = conn.wait()?;
    if event == Event::Input {
        while let Some(line) = conn.try_next_line()? {
            said.push(line);
        }
    }
    Ok(event)
}

#[test]
fn a_wait_ends_for_whatever_comes_first() {
    can_be_shared::<ConnectionWaker>();
    let (mut conn, mut client) = Connection::pair().unwrap();
    let (waker, mut said) = (conn.waker().unwrap(), Vec::new());
    waker.wake();
    waker.clone().wake();
    assert_eq!(listen(&mut conn, &mut said).unwrap(), Event::Woken, "a call before the wait counts");
    assert_eq!(conn.wait_timeout(ms(5)).unwrap(), None, "two calls are one event");
    client.write_all(b"one\ntwo\nthr").unwrap();
    assert_eq!((listen(&mut conn, &mut said).unwrap(), said.join(" ")), (Event::Input, "one two".to_owned()));
    assert_eq!(conn.wait_timeout(ms(5)).unwrap(), None, "the part of a line is no news");
    waker.wake();
    assert_eq!(listen(&mut conn, &mut said).unwrap(), Event::Woken);
    client.write_all(b"ee\n").unwrap();
    assert_eq!((listen(&mut conn, &mut said).unwrap(), said.join(" ")), (Event::Input, "one two three".to_owned()));
    client.write_all(b"fo").unwrap();
    assert_eq!(listen(&mut conn, &mut said).unwrap(), Event::Input);
    client.shutdown(Shutdown::Write).unwrap();
    for _ in 0..3 {
        assert_eq!((listen(&mut conn, &mut said).unwrap(), said.len()), (Event::End, 3));
    }
    waker.wake();
    assert_eq!((conn.wait().unwrap(), conn.wait().unwrap()), (Event::Woken, Event::End));
}

#[test]
fn what_is_left_is_told_again() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"one\ntwo\n3:abc,1:d,2:x").unwrap();
    for line in ["one", "two"] {
        assert_eq!((conn.wait().unwrap(), conn.try_next_line().unwrap().as_deref()), (Event::Input, Some(line)));
    }
    let mut strings = Netstrings::new();
    for frame in [&b"abc"[..], b"d"] {
        assert_eq!((conn.wait().unwrap(), conn.try_read_frame(&mut strings).unwrap()), (Event::Input, Some(frame)));
    }
    assert_eq!((conn.wait().unwrap(), conn.try_read_frame(&mut strings).unwrap()), (Event::Input, None));
    assert_eq!(conn.wait_timeout(ms(5)).unwrap(), None);
    client.write_all(b"y,").unwrap();
    assert_eq!(conn.wait().unwrap(), Event::Input);
    assert_eq!(conn.read_frame(&mut strings).unwrap(), Some(&b"xy"[..]), "a call that may wait goes on with it");
    client.write_all(b"2:z").unwrap();
    assert_eq!((conn.wait().unwrap(), conn.try_read_frame(&mut strings).unwrap()), (Event::Input, None));
    client.write_all(b"z,1:a,").unwrap();
    assert_eq!(conn.read_frame(&mut strings).unwrap(), Some(&b"zz"[..]));
    assert_eq!(conn.wait().unwrap(), Event::Input, "what that call has left is news");
    let mut bytes = [0; 2];
    assert_eq!((conn.try_read(&mut bytes).unwrap(), conn.wait().unwrap()), (2, Event::Input), "bytes as well");
    assert_eq!((conn.nonblocking().read(&mut bytes).unwrap(), &bytes), (2, b"a,"));
    assert_eq!(conn.try_read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(client);
    assert_eq!((conn.wait().unwrap(), conn.try_read(&mut bytes).unwrap()), (Event::End, 0));
}

#[test]
fn a_wait_sends_first_and_writers_are_served_meanwhile() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let (writer, waker) = (conn.writer().unwrap(), conn.waker().unwrap());
    let (tell, told) = mpsc::channel();
    let serving = thread::spawn(move || {
        conn.write_all(b"hello\n").unwrap();
        (0..2).for_each(|_| tell.send(conn.wait().unwrap()).unwrap());
        conn
    });
    expect(&mut client, "hello\n");
    writer.send_line("news").unwrap();
    expect(&mut client, "news\n");
    waker.wake();
    assert_eq!(told.recv_timeout(LONG), Ok(Event::Woken));
    writer.send_line("last").unwrap();
    writer.close();
    assert_eq!(told.recv_timeout(LONG), Ok(Event::End));
    drop(serving.join().unwrap());
    assert_eq!(read_all(&mut client), "last\n");
}

#[test]
fn no_message_is_left_without_an_event() {
    const EACH: usize = 5_000;
    let (mut conn, _client) = Connection::pair().unwrap();
    let (sent, seen) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (waker, sent) = (conn.waker().unwrap(), sent.clone());
            thread::spawn(move || {
                for _ in 0..EACH {
                    sent.fetch_add(1, SeqCst);
                    waker.wake();
                }
            })
        })
        .collect();
    while seen.load(SeqCst) < 4 * EACH {
        assert_eq!(conn.wait_timeout(LONG).unwrap(), Some(Event::Woken), "a message waits, and nothing wakes");
        seen.store(sent.load(SeqCst), SeqCst);
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn neither_input_nor_wake_ups_starve_the_other() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let waker = conn.waker().unwrap();
    client.write_all(&[b'x'; 64]).unwrap();
    let events: Vec<_> = (0..6)
        .map(|_| {
            waker.wake();
            let event = conn.wait().unwrap();
            if event == Event::Input {
                conn.try_read(&mut [0]).unwrap();
            }
            event
        })
        .collect();
    let in_turns = [Event::Woken, Event::Input, Event::Woken, Event::Input, Event::Woken, Event::Input];
    assert_eq!(events, in_turns);
}

/// What a client that says nothing more is cut for, and when, while wake-ups come all the time.
fn cut_while_woken(builder: ServerBuilder, said: &str, within: Duration) -> (Option<Limit>, Duration) {
    let (tell, told) = mpsc::channel();
    let serving = handler(move |conn: &mut Connection| -> HandlerResult {
        let (waker, began) = (conn.waker()?, Instant::now());
        let end = loop {
            waker.wake();
            match listen(conn, &mut Vec::new()) {
                Ok(_) if began.elapsed() < within => {}
                Ok(_) => break None,
                Err(e) => break Limit::of(&e),
            }
        };
        Ok(tell.send((end, began.elapsed()))?)
    });
    let server = serve(builder.bind("127.0.0.1:0", serving).unwrap());
    let mut client = server.connect();
    client.write_all(said.as_bytes()).unwrap();
    told.recv_timeout(LONG * 2).unwrap()
}

#[test]
fn wake_ups_prolong_no_limit() {
    let idle = || ServerBuilder::new().idle_timeout(ms(100));
    let (limit, after) = cut_while_woken(idle(), "", LONG);
    assert_eq!(limit, Some(Limit::Idle), "after {after:?}");
    assert!(after >= ms(100));
    let (limit, after) = cut_while_woken(idle().request_timeout(ms(200)), "half a line", LONG);
    assert_eq!(limit, Some(Limit::Request), "after {after:?}: a line that has begun is no idle wait");
    assert!(after >= ms(200));
}

#[test]
fn a_wait_between_requests_meets_no_request_limit() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.set_request_timeout(Some(ms(20)));
    assert_eq!(conn.wait_timeout(ms(60)).unwrap(), None);
    client.write_all(b"one\n").unwrap();
    assert_eq!((conn.wait().unwrap(), conn.try_next_line().unwrap().as_deref()), (Event::Input, Some("one")));
    assert_eq!(conn.wait_timeout(ms(60)).unwrap(), None);
    conn.set_idle_timeout(Some(ms(20)));
    for _ in 0..2 {
        assert_eq!(Limit::of(&conn.wait().unwrap_err()), Some(Limit::Idle), "each counts anew");
    }
}

#[test]
fn a_stop_ends_a_wait_at_once_and_is_told_once() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let waits = handler(move |conn| {
            conn.send_line("hello")?;
            let first = conn.wait()?;
            conn.send_line("bye")?;
            let then = conn.wait()?; // as a close handshake does
            Ok(tell.send((first, then, conn.try_next_line()?, conn.wait()?))?)
        });
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(LONG);
        let server = serve(builder.bind_tcp("127.0.0.1:0", waits).unwrap());
        let mut client = server.connect();
        expect(&mut client, "hello\n");
        let began = Instant::now();
        server.handle.shutdown();
        expect(&mut client, "bye\n");
        assert!(began.elapsed() < AT_ONCE, "{name}");
        client.write_all(b"bye\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), "", "{name}");
        let expected = (Event::Stopping, Event::Input, Some("bye".to_owned()), Event::End);
        assert_eq!(told.recv_timeout(LONG).unwrap(), expected, "{name}");
        let report = server.join();
        assert_eq!((report.served, report.drained), (1, 1), "{name}: {report}");
    }
}

#[test]
fn a_wait_after_the_stop_ends_at_the_drain_limit() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let waits = handler(move |conn| {
            conn.send_line("hello")?;
            conn.wait()?;
            Ok(tell.send(conn.wait().map_err(|e| Limit::of(&e)))?)
        });
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(ms(100));
        let server = serve(builder.bind_tcp("127.0.0.1:0", waits).unwrap());
        let mut client = server.connect();
        expect(&mut client, "hello\n");
        server.stop();
        assert_eq!(told.recv_timeout(LONG).unwrap(), Err(Some(Limit::Drain)), "{name}");
    }
}

/// One record of TLS brings more than the buffer takes: the rest is in the session, and the kernel has nothing.
#[test]
fn decrypted_input_that_waits_is_input() {
    let Some(pki) = Pki::make() else { return };
    for (name, strategy) in strategies() {
        let tls = TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap();
        let count = handler(|conn: &mut Connection| {
            let (waker, mut lines) = (conn.waker()?, Vec::new());
            conn.send_line("hello")?;
            while lines.len() < 1000 {
                if conn.wait()? != Event::Input {
                    return Err("nothing but input comes".into());
                }
                lines.extend(conn.try_next_line()?);
            }
            waker.wake();
            let (woken, nothing) = (conn.wait()?, conn.wait_timeout(ms(5))?);
            conn.send_line(format!("{} {woken:?} {nothing:?}", lines.len()))?;
            let event = conn.wait()?;
            conn.send_line(format!("{event:?}"))
        });
        let builder = ServerBuilder::new().strategy(strategy).tls(tls).read_buffer(512);
        let server = serve(builder.bind("127.0.0.1:0", count).unwrap());
        let mut client = TlsClient::connect(server.addr(), trust(&pki));
        client.expect("hello\n");
        client.say("0123456789\n".repeat(1000));
        client.expect("1000 Woken None\n");
        server.handle.shutdown();
        client.expect("Stopping\n");
        assert_eq!(client.read_all(), "", "{name}");
    }
}

#[test]
fn a_line_over_the_limit_is_an_error_without_a_wait_too() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let long = thread::spawn(move || client.write_all(&[b'x'; 70_000]).map(|()| client));
    let mut seen = Vec::new();
    let e = loop {
        match listen(&mut conn, &mut seen) {
            Ok(event) => assert_eq!(event, Event::Input),
            Err(e) => break e,
        }
    };
    assert_eq!(e.kind(), ErrorKind::InvalidData);
    conn.read_exact(&mut [0; 70_000]).unwrap();
    drop(long.join().unwrap());
}

#[test]
fn only_a_process_of_its_own_may_become_a_program() {
    let (mut conn, _client) = Connection::pair().unwrap();
    assert_eq!(conn.exec(&mut std::process::Command::new("true")).kind(), ErrorKind::Unsupported);
}
