//! Frames of a connection.

use crate::kit;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use crate::kit::frames::text;
use crate::kit::{ms, LONG};
use socketserver::framing::{Decoder, LengthPrefixed, LineDecoder, LineEnd, Netstrings, OverLong, Raw};
use socketserver::{Connection, Limit};

fn pair_with(bytes: &[u8]) -> Connection {
    let (conn, mut client) = Connection::pair().unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    conn
}

fn frame<D: Decoder>(conn: &mut Connection, decoder: &mut D) -> Result<Option<String>, ErrorKind> {
    conn.read_frame(decoder).map(|frame| frame.map(text)).map_err(|e| e.kind())
}

#[test]
fn p5_a_connection_that_ends_within_a_frame() {
    let mut conn = pair_with(b"3:abc,5:he");
    let mut strings = Netstrings::new();
    assert_eq!(frame(&mut conn, &mut strings), Ok(Some("abc".to_owned())));
    assert_eq!(frame(&mut conn, &mut strings), Err(ErrorKind::UnexpectedEof));
    assert_eq!(frame(&mut conn, &mut strings), Err(ErrorKind::UnexpectedEof));
    assert_eq!(kit::read_all(&mut conn), "5:he", "the part is still there");

    let mut lines = LineDecoder::default();
    lines.set_raw_mode(Raw::Bytes(5));
    let mut conn = pair_with(b"abc");
    assert_eq!(frame(&mut conn, &mut lines), Ok(Some("abc".to_owned())));
    assert_eq!(frame(&mut conn, &mut lines), Err(ErrorKind::UnexpectedEof), "5 bytes were announced");
    assert_eq!(frame(&mut pair_with(b""), &mut Netstrings::new()), Ok(None));
}

#[test]
fn a_connection_reads_lines_and_frames_in_turn() {
    let mut conn = pair_with(b"one\r\n3:abc,two\nthree\r\n\0\x01zrest");
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("one"));
    assert_eq!(frame(&mut conn, &mut Netstrings::new()), Ok(Some("abc".to_owned())));
    assert_eq!(frame(&mut conn, &mut LineDecoder::new(LineEnd::CrLf)), Ok(Some("two\\nthree".to_owned())));
    let mut input = conn.halves().0;
    assert_eq!(input.read_frame(&mut LengthPrefixed::u16()).unwrap(), Some(&b"z"[..]));
    assert_eq!(frame(&mut conn, &mut LengthPrefixed::u8()), Err(ErrorKind::UnexpectedEof));
    assert_eq!(kit::read_all(&mut conn), "rest");
}

#[test]
fn a_frame_goes_on_after_a_time_limit() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.set_idle_timeout(Some(ms(20)));
    conn.set_read_timeout(Some(ms(20)));
    let mut strings = Netstrings::new();
    for part in ["1", "2:hell", "o wor", "ld"] {
        client.write_all(part.as_bytes()).unwrap();
        assert!(Limit::of(&conn.read_frame(&mut strings).unwrap_err()).is_some(), "{part}");
    }
    client.write_all(b"!,").unwrap();
    conn.set_read_timeout(Some(LONG));
    assert_eq!(frame(&mut conn, &mut strings), Ok(Some("hello world!".to_owned())));
}

#[test]
fn p3_a_connection_skips_a_line_that_is_too_long() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let sends = std::thread::spawn(move || {
        client.write_all(&vec![b'x'; 1 << 20]).unwrap();
        client.write_all(b"\r\nnext\r\n").unwrap();
    });
    let mut lines = LineDecoder::new(LineEnd::CrLf).max_length(100).over_long(OverLong::Discard);
    assert_eq!(frame(&mut conn, &mut lines), Err(ErrorKind::InvalidData));
    assert_eq!(frame(&mut conn, &mut lines), Ok(Some("next".to_owned())));
    assert_eq!(frame(&mut conn, &mut lines), Ok(None));
    sends.join().unwrap();
}

#[test]
fn a_frame_larger_than_the_read_buffer() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let sends = std::thread::spawn(move || {
        for len in [60_000_u16, 3, 0, 65_535] {
            client.write_all(&len.to_be_bytes()).unwrap();
            client.write_all(&vec![b'x'; len.into()]).unwrap();
        }
        client.write_all(b"rest").unwrap();
    });
    let mut strings = LengthPrefixed::u16();
    for len in [60_000, 3, 0, 65_535] {
        assert_eq!(conn.read_frame(&mut strings).unwrap().map(<[u8]>::len), Some(len));
    }
    let mut rest = String::new();
    conn.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "rest");
    sends.join().unwrap();
}
