//! Lines: bounded, whole or not at all, the same however they arrive.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::kit::{read_all, serve, strategies};
use socketserver::connection::LingeringClose;
use socketserver::framing::LineTooLong;
use socketserver::{handler, Connection, HandlerResult, ServerBuilder};

const MAX: usize = 10;

fn conn_with(text: &[u8]) -> Connection {
    let (conn, mut client) = Connection::pair().unwrap();
    client.write_all(text).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    conn
}

/// All lines, and how it ended.
fn lines(conn: &mut Connection) -> (Vec<String>, Option<ErrorKind>) {
    let mut lines = Vec::new();
    loop {
        match conn.next_line() {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => return (lines, None),
            Err(e) => return (lines, Some(e.kind())),
        }
    }
}

#[test]
fn both_line_ends_are_stripped_once() {
    let (got, end) = lines(&mut conn_with(b"lf\ncrlf\r\n\n\r\ncr\rwithin\nthree\r\r\n"));
    assert_eq!(got, ["lf", "crlf", "", "", "cr\rwithin", "three\r"]);
    assert_eq!(end, None);
}

#[test]
fn half_a_line_at_the_end_is_no_line() {
    let mut conn = conn_with(b"whole\nrm -rf /ho");
    assert_eq!(lines(&mut conn), (vec!["whole".to_owned()], Some(ErrorKind::UnexpectedEof)));
    assert_eq!(conn.next_line().unwrap_err().kind(), ErrorKind::UnexpectedEof, "nor the second time");
    assert_eq!(read_all(&mut conn), "rm -rf /ho", "the part is still there");
}

#[test]
fn half_a_line_end_is_no_line_end() {
    let mut conn = conn_with(b"half\r");
    assert_eq!(lines(&mut conn), (vec![], Some(ErrorKind::UnexpectedEof)));
}

#[test]
fn read_line_keeps_the_end_and_returns_the_last_part() {
    let mut conn = conn_with(b"one\r\ntwo");
    let mut text = String::from("> ");
    assert_eq!(conn.read_line(&mut text).unwrap(), 5);
    assert_eq!(text, "> one\r\n");
    assert_eq!(BufRead::read_line(&mut conn, &mut text).unwrap(), 3);
    assert_eq!(text, "> one\r\ntwo");
    assert_eq!(conn.read_line(&mut text).unwrap(), 0);
}

#[test]
fn a_line_that_is_not_utf8_is_an_error_and_consumed() {
    let mut conn = conn_with(b"\xff\xfe\nnext\n");
    assert_eq!(conn.next_line().unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(lines(&mut conn), (vec!["next".to_owned()], None));
}

#[test]
fn utf8_may_be_cut_anywhere() {
    let text = "añ€😀z\n";
    for at in 0..=text.len() {
        assert_eq!(split_at(text.as_bytes(), at).0, ["añ€😀z"], "cut at {at}");
    }
}

/// The lines of a text that arrives in two parts.
fn split_at(text: &[u8], at: usize) -> (Vec<String>, Option<ErrorKind>) {
    let (mut conn, mut client) = Connection::pair().unwrap();
    if at > 0 {
        client.write_all(&text[..at]).unwrap();
        assert_eq!(conn.fill_buf().unwrap().len(), at); // so the next part comes by a second read
    }
    client.write_all(&text[at..]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    lines(&mut conn)
}

#[test]
fn the_lines_are_the_same_wherever_the_text_is_split() {
    let text = b"a\r\nbb\n\r\n\nc\rc\n\r\r\nlast, without an end\r";
    let whole = split_at(text, 0);
    assert_eq!(whole.0, ["a", "bb", "", "", "c\rc", "\r"]);
    for at in 1..=text.len() {
        assert_eq!(split_at(text, at), whole, "split at {at}");
    }
}

/// Answers each line with its length, and the errors too.
fn measure(conn: &mut Connection) -> HandlerResult {
    loop {
        match conn.next_line() {
            Ok(None) => return Ok(()),
            Ok(Some(line)) => writeln!(conn, "{}", line.len())?,
            Err(e) => {
                let inner = e.get_ref().and_then(|e| e.downcast_ref::<LineTooLong>());
                write!(conn, "{:?} {:?}", e.kind(), inner.map(|e| e.limit))?;
                return Ok(());
            }
        }
    }
}

#[test]
fn the_bound_is_exact_whatever_the_line_end() {
    let too_long = "InvalidData Some(10)";
    let x = |n| "x".repeat(n);
    let cases = [
        (x(MAX - 1) + "\n", "9\n"),
        (x(MAX) + "\n", "10\n"),
        (x(MAX + 1) + "\n", too_long),
        (x(MAX) + "\r\n", "10\n"),
        (x(MAX + 1) + "\r\n", too_long),
        (x(MAX) + "\r", "UnexpectedEof None"),
        (x(MAX) + "\rx", too_long),
        (x(MAX + 1), too_long),
        (x(100_000), too_long),
        (x(MAX) + "\n" + &x(MAX) + "\r\n" + &x(MAX + 1) + "\n", "10\n10\nInvalidData Some(10)"),
    ];
    for buffer in [1, 3, MAX, MAX + 1, MAX + 2, 8192] {
        let server =
            ServerBuilder::new().lingering_close(LingeringClose::Always).max_line_length(MAX).read_buffer(buffer);
        let server = serve(server.bind_tcp("127.0.0.1:0", handler(measure)).unwrap());
        for (text, answer) in &cases {
            assert_eq!(server.ask(text), *answer, "{text:.20?}, read buffer {buffer}");
        }
    }
}

#[test]
fn after_too_long_a_line_the_connection_still_answers_and_reads() {
    for (name, strategy) in strategies() {
        let over = handler(|conn| {
            let error = conn.next_line().err().ok_or("no error")?;
            writeln!(conn, "{error}")?;
            conn.flush()?;
            let mut rest = String::new();
            conn.read_to_string(&mut rest)?; // nothing was consumed
            Ok(writeln!(conn, "{}", rest.len())?)
        });
        let server = ServerBuilder::new().strategy(strategy).max_line_length(MAX);
        let server = serve(server.bind_tcp("127.0.0.1:0", over).unwrap());
        assert_eq!(server.ask(&"x".repeat(30_000)), "a line of more than 10 bytes\n30000\n", "{name}");
    }
}

#[test]
fn the_default_bound_is_64_kib() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let sends = std::thread::spawn(move || {
        client.write_all(&[b'x'; 65536]).unwrap();
        client.write_all(b"\r\n").unwrap();
        client.write_all(&[b'x'; 65537]).unwrap();
        client
    });
    assert_eq!(conn.next_line().unwrap().map(|l| l.len()), Some(65536));
    assert_eq!(conn.next_line().unwrap_err().kind(), ErrorKind::InvalidData);
    sends.join().unwrap();
}

#[test]
fn lines_that_arrive_byte_by_byte_are_the_same() {
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).read_buffer(1);
        let server = serve(server.bind_tcp("127.0.0.1:0", handler(measure)).unwrap());
        let mut client = server.connect();
        client.set_nodelay(true).unwrap();
        for byte in b"one\r\nthree\n\nx\r\n" {
            client.write_all(&[*byte]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), "3\n5\n0\n1\n", "{name}");
    }
}
