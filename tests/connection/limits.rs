//! Time limits: each one ends the wait it is for, by its name, on every strategy, and leaves the connection usable.

use crate::kit;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Instant;
use std::{thread, time::Duration};

use crate::kit::{expect, ms, read_all, serve, strategies, AnyStrategy, LONG};
use socketserver::{handler, Connection, Limit, ServerBuilder};

type Outcome = (Option<Limit>, Duration);

/// What limit a handler meets, and when, with a client that does this.
fn met(
    server: ServerBuilder<AnyStrategy>,
    client: fn(TcpStream),
    handle: fn(&mut Connection) -> io::Result<()>,
) -> Outcome {
    let (tell, told) = mpsc::channel();
    let handler = handler(move |conn| {
        let since = Instant::now();
        let error = handle(conn).expect_err("a limit");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        Ok(tell.send((Limit::of(&error), since.elapsed()))?)
    });
    let server = serve(server.bind_tcp("127.0.0.1:0", handler).unwrap());
    let stream = server.connect();
    let client = thread::spawn(move || client(stream));
    let outcome = told.recv_timeout(LONG).unwrap();
    client.join().unwrap();
    outcome
}

/// Waits, saying nothing, until the server closes.
fn silent(mut client: TcpStream) {
    let _ = kit::read(&mut client, &mut [0]);
}

/// Half a line, then silence.
fn half(mut client: TcpStream) {
    client.write_all(b"half").unwrap();
    silent(client);
}

/// Reads nothing until the server cuts it, which is a reset.
fn mute(client: TcpStream) {
    kit::until("it is cut", || client.take_error().unwrap().is_some());
}

/// A byte now and then, until the server has ended its side. It may read on for long, in a lingering close.
fn trickle(mut client: TcpStream) {
    client.set_read_timeout(Some(ms(5))).unwrap();
    let is_open =
        |client: &mut TcpStream| kit::read(client, &mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
    while client.write_all(b"x").is_ok() && is_open(&mut client) {}
}

fn read_line(conn: &mut Connection) -> io::Result<()> {
    conn.next_line().map(drop)
}

fn write_on(conn: &mut Connection) -> io::Result<()> {
    loop {
        conn.write_all(&[0; 65536])?;
    }
}

fn assert_met(limit: Limit, at: Duration, outcome: Outcome, name: &str) {
    assert_eq!(outcome.0, Some(limit), "{name}");
    assert!(outcome.1 >= at, "{name}: {limit} limit of {at:?} after {:?}", outcome.1);
    assert!(outcome.1 < at * 10 + ms(1000), "{name}: {limit} limit of {at:?} after {:?}", outcome.1);
}

#[test]
fn each_limit_ends_its_wait_by_its_name() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().idle_timeout(ms(100)).read_timeout(LONG).strategy(strategy);
        assert_met(Limit::Idle, ms(100), met(server, silent, read_line), name);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().read_timeout(ms(100)).idle_timeout(LONG).strategy(strategy);
        assert_met(Limit::Read, ms(100), met(server, half, read_line), name);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().request_timeout(ms(200)).read_timeout(LONG).strategy(strategy);
        assert_met(Limit::Request, ms(200), met(server, trickle, read_line), name);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().write_timeout(ms(100)).strategy(strategy);
        assert_met(Limit::Write, ms(100), met(server, mute, write_on), name);
    }
}

#[test]
fn a_limit_set_on_the_connection_overrides_the_servers() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().idle_timeout(LONG).strategy(strategy);
        let shorter = |conn: &mut Connection| {
            conn.set_idle_timeout(Some(ms(100)));
            conn.next_request().map(drop)
        };
        assert_met(Limit::Idle, ms(100), met(server, silent, shorter), name);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy);
        let whole = |conn: &mut Connection| {
            conn.set_request_timeout(Some(ms(200)));
            conn.next_line().map(drop)
        };
        assert_met(Limit::Request, ms(200), met(server, trickle, whole), name);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy);
        let read = |conn: &mut Connection| {
            conn.set_read_timeout(Some(ms(100)));
            conn.next_line().map(drop)
        };
        assert_met(Limit::Read, ms(100), met(server, half, read), name);
    }
}

#[test]
fn an_idle_limit_of_none_lifts_the_read_limit_for_idle_waits() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().read_timeout(ms(100)).idle_timeout(None).strategy(strategy);
        let late = |mut client: TcpStream| {
            thread::sleep(ms(300)); // three times the read limit
            half(client.try_clone().unwrap());
            client.write_all(b"x").ok();
        };
        let outcome = met(server, late, read_line);
        assert_met(Limit::Read, ms(300), outcome, name); // that of the half line
    }
}

#[test]
fn a_limit_can_be_lifted_again() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.set_idle_timeout(Some(ms(20)));
    assert_eq!(conn.next_request().err().as_ref().and_then(Limit::of), Some(Limit::Idle));
    conn.set_idle_timeout(None);
    let late = thread::spawn(move || {
        thread::sleep(ms(200)); // ten times the limit that no longer holds
        client.write_all(b"late\n").unwrap();
        client
    });
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("late"));
    late.join().unwrap();
}

#[test]
fn a_reader_that_timed_out_stays_usable() {
    for (name, strategy) in strategies() {
        let patient = handler(|conn| {
            while let Err(e) = conn.next_request() {
                assert_eq!(Limit::of(&e), Some(Limit::Idle));
                write!(conn, "?")?;
            }
            let line = conn.next_line()?;
            Ok(writeln!(conn, "{line:?}")?)
        });
        let server = ServerBuilder::new().idle_timeout(ms(20)).strategy(strategy);
        let server = serve(server.bind_tcp("127.0.0.1:0", patient).unwrap());
        let mut client = server.connect();
        expect(&mut client, "??");
        client.write_all(b"here\n").unwrap();
        let rest = read_all(&mut client);
        assert!(rest.trim_start_matches('?') == "Some(\"here\")\n", "{name}: {rest:?}");
    }
}

#[test]
fn half_a_line_survives_a_limit() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.set_read_timeout(Some(ms(20)));
    client.write_all(b"half").unwrap();
    assert_eq!(conn.next_line().err().as_ref().and_then(Limit::of), Some(Limit::Read));
    client.write_all(b" and half\n").unwrap();
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("half and half"));
}

#[test]
fn the_wait_between_requests_is_not_part_of_one() {
    for (name, strategy) in strategies() {
        let echo = handler(|conn| {
            while conn.next_request()? {
                if let Some(line) = conn.next_line()? {
                    writeln!(conn, "{line}")?;
                }
            }
            Ok(())
        });
        let server = ServerBuilder::new().request_timeout(ms(100)).read_timeout(LONG).strategy(strategy);
        let server = serve(server.bind_tcp("127.0.0.1:0", echo).unwrap());
        let mut client = server.connect();
        for _ in 0..3 {
            thread::sleep(ms(200)); // twice the limit of a request
            client.write_all(b"whole\n").unwrap();
            expect(&mut client, "whole\n");
        }
        client.write_all(b"half").unwrap();
        assert_eq!(read_all(&mut client), "", "{name}: cut at the limit");
        assert_eq!(server.stop().failed, 1, "{name}");
    }
}

#[test]
fn the_request_limit_holds_while_writing_too() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().request_timeout(ms(200)).write_timeout(LONG).strategy(strategy);
        assert_met(Limit::Request, ms(200), met(server, mute, write_on), name);
    }
}

#[test]
fn a_slow_reader_that_makes_progress_is_no_stalled_one() {
    let size = 4 << 20;
    let server = ServerBuilder::new().write_timeout(ms(1000));
    let server =
        serve(server.bind_tcp("127.0.0.1:0", handler(move |conn| Ok(conn.write_all(&vec![1; size])?))).unwrap());
    let mut client = server.connect();
    let (mut part, mut got) = (vec![0; 256 << 10], 0);
    loop {
        thread::sleep(ms(100)); // the whole takes longer than the limit, no wait for progress does
        match kit::read(&mut client, &mut part).unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, size);
    assert_eq!(server.stop().served, 1);
}

#[test]
fn an_exceeded_limit_is_counted() {
    let server =
        ServerBuilder::new().idle_timeout(ms(20)).bind_tcp("127.0.0.1:0", handler(|conn| Ok(read_line(conn)?)));
    let server = serve(server.unwrap());
    assert_eq!(read_all(&mut server.connect()), "");
    kit::until("it is counted", || server.handle.stats().timed_out == 1);
    assert_eq!(server.stop().failed, 1);
}
