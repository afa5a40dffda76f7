//! Lines and frames are requests: a wait before one is idle, unless the handler says by `next_request` what a request is.

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::kit::{expect, ms, read_all, serve, strategies, LONG};
use socketserver::framing::LineDecoder;
use socketserver::{handler, Connection, Limit, ServerBuilder};

/// A way to read lines, and only that: it calls the function for each.
type Reader = fn(&mut Connection, &mut dyn FnMut()) -> io::Result<()>;

fn next_line(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    while conn.next_line()?.is_some() {
        told();
    }
    Ok(())
}

fn read_line(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    let mut line = String::new();
    while BufRead::read_line(conn, &mut line)? > 0 {
        told();
        line.clear();
    }
    Ok(())
}

fn lines(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    BufRead::lines(conn).try_for_each(|line| line.map(|_| told()))
}

fn read_frame(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    let mut decoder = LineDecoder::default();
    while conn.read_frame(&mut decoder)?.is_some() {
        told();
    }
    Ok(())
}

fn half(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    let (mut input, _) = conn.halves();
    while input.next_line()?.is_some() {
        told();
    }
    Ok(())
}

fn read_until(conn: &mut Connection, told: &mut dyn FnMut()) -> io::Result<()> {
    let mut line = Vec::new();
    while conn.read_until(b'\n', &mut line)? > 0 {
        told();
        line.clear();
    }
    Ok(())
}

const READERS: [(&str, Reader); 6] = [
    ("next_line", next_line),
    ("read_line", read_line),
    ("lines", lines),
    ("read_frame", read_frame),
    ("halves", half),
    ("read_until", read_until),
];

#[test]
fn a_stop_ends_a_stream_of_lines_at_once_and_it_counts_as_served() {
    for (reader, read) in READERS {
        for (name, strategy) in strategies() {
            let (tell, told) = mpsc::channel();
            let sink = handler(move |conn| Ok(read(conn, &mut || tell.send(()).unwrap())?));
            let server = ServerBuilder::new().strategy(strategy).drain_timeout(LONG);
            let server = serve(server.bind_tcp("127.0.0.1:0", sink).unwrap());
            let mut client = server.connect();
            client.write_all(b"one\ntwo\n").unwrap();
            (0..2).for_each(|_| told.recv_timeout(LONG).unwrap());
            let began = Instant::now();
            let report = server.stop();
            assert!(began.elapsed() < LONG / 3, "{reader}, {name}: {:?}", began.elapsed());
            assert_eq!((report.served, report.failed, report.forced), (1, 0, 0), "{reader}, {name}: {report}");
            assert_eq!(read_all(&mut client), "", "{reader}, {name}");
        }
    }
}

#[test]
fn the_idle_limit_ends_a_stream_of_lines_that_is_silent() {
    for (reader, read) in READERS {
        for (name, strategy) in strategies() {
            let (tell, told) = mpsc::channel();
            let sink = handler(move |conn| {
                let error = read(conn, &mut || {}).expect_err("a limit");
                Ok(tell.send(Limit::of(&error))?)
            });
            let server = ServerBuilder::new().strategy(strategy).idle_timeout(ms(50)).read_timeout(LONG);
            let server = serve(server.bind_tcp("127.0.0.1:0", sink).unwrap());
            let mut client = server.connect();
            client.write_all(b"one\n").unwrap();
            assert_eq!(told.recv_timeout(LONG), Ok(Some(Limit::Idle)), "{reader}, {name}");
        }
    }
}

#[test]
fn the_request_limit_leaves_a_healthy_stream_of_lines_alone() {
    for (reader, read) in READERS {
        for (name, strategy) in strategies() {
            let (tell, told) = mpsc::channel();
            let sink = handler(move |conn| Ok(read(conn, &mut || tell.send(()).unwrap())?));
            let server = ServerBuilder::new().strategy(strategy).request_timeout(ms(60));
            let server = serve(server.bind_tcp("127.0.0.1:0", sink).unwrap());
            let mut client = server.connect();
            for _ in 0..4 {
                thread::sleep(ms(30)); // in all, twice the limit
                client.write_all(b"one\n").unwrap();
                told.recv_timeout(LONG).unwrap();
            }
            drop(client);
            crate::kit::until("its end is counted", || server.handle.stats().active == 0);
            assert_eq!(server.stop().served, 1, "{reader}, {name}");
        }
    }
}

/// A request of two lines.
fn add(conn: &mut Connection) -> io::Result<()> {
    while conn.next_request()? {
        let (Some(a), Some(b)) = (conn.next_line()?, conn.next_line()?) else { break };
        writeln!(conn, "{a}{b}")?;
    }
    Ok(())
}

#[test]
fn a_handler_that_marks_its_requests_has_requests_of_several_lines() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let adder = handler(move |conn| {
            let result = add(conn);
            tell.send(result.as_ref().err().and_then(Limit::of))?;
            Ok(result?)
        });
        let server = ServerBuilder::new().strategy(strategy).idle_timeout(ms(200)).drain_timeout(LONG);
        let server = serve(server.bind_tcp("127.0.0.1:0", adder).unwrap());
        let mut client = server.connect();
        client.write_all(b"1\n2\n3\n").unwrap();
        expect(&mut client, "12\n"); // a request has begun, and its second line is waited for
        thread::sleep(ms(400)); // twice the idle limit
        server.handle.shutdown();
        client.write_all(b"4\n").unwrap();
        assert_eq!(read_all(&mut client), "34\n", "{name}");
        assert_eq!(told.recv_timeout(LONG), Ok(None), "{name}");
        assert_eq!(server.join().served, 1, "{name}");
    }
}
