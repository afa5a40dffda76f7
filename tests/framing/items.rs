//! Parsers that give items, for connections, buffers and receivers.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use socketserver::connection::Event;
use socketserver::event_loop::{items, Eof, FramedTransport, ItemReceiver};
use socketserver::framing::{FrameBuffer, FrameError, Parser};
use socketserver::testing::TestLoop;
use socketserver::{Connection, HandlerResult};

/// `KEY VALUE;`, of 16 bytes at most.
#[derive(Default)]
struct Pairs {
    calls: usize,
}

impl Parser for Pairs {
    type Item = (String, String);

    fn parse(&mut self, unread: &[u8]) -> Result<Option<(Self::Item, usize)>, FrameError> {
        assert!(!unread.is_empty(), "nothing is no front");
        self.calls += 1;
        let Some(end) = unread.iter().position(|byte| *byte == b';') else {
            let (limit, len) = (16, unread.len());
            return if len > limit { Err(FrameError::TooLong { limit, len }) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&unread[..end]);
        let (key, value) = text.split_once(' ').ok_or(FrameError::Malformed("no pair"))?;
        Ok(Some(((key.to_owned(), value.to_owned()), end + 1)))
    }
}

fn pair(key: &str, value: &str) -> Option<(String, String)> {
    Some((key.to_owned(), value.to_owned()))
}

#[test]
fn a_connection_reads_items() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let mut pairs = Pairs::default();
    client.write_all(b"a 1;b 2;c").unwrap();
    assert_eq!(conn.read_item(&mut pairs).unwrap(), pair("a", "1"));
    assert_eq!(conn.wait().unwrap(), Event::Input);
    assert_eq!(conn.try_read_item(&mut pairs).unwrap(), pair("b", "2"));
    assert_eq!(conn.try_read_item(&mut pairs).unwrap(), None);
    client.write_all(b" 3;no-pair;").unwrap();
    assert_eq!((conn.wait().unwrap(), conn.halves().0.read_item(&mut pairs).unwrap()), (Event::Input, pair("c", "3")));
    for _ in 0..2 {
        let e = conn.read_item(&mut pairs).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidData);
        assert!(e.get_ref().is_some_and(|e| e.is::<FrameError>()), "{e:?}");
    }
    assert_eq!(conn.try_next_line().unwrap(), None);
    assert_eq!(conn.try_read(&mut [0; 8]).unwrap(), 8, "nothing was consumed");
    client.write_all(b"half a").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(conn.read_item(&mut pairs).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    conn.try_read(&mut [0; 8]).unwrap();
    assert_eq!(conn.read_item(&mut pairs).unwrap(), None);
}

/// A length beyond what is there is a mistake of the parser, and no panic of the library.
struct Wild;

impl Parser for Wild {
    type Item = u8;

    fn parse(&mut self, unread: &[u8]) -> Result<Option<(u8, usize)>, FrameError> {
        Ok(Some((unread[0], usize::MAX)))
    }
}

impl ItemReceiver<Wild> for Log {
    fn item_received(&mut self, t: &mut FramedTransport<'_, Wild>, item: u8) -> HandlerResult {
        Ok(t.write(&[item])?)
    }
}

#[test]
fn a_length_beyond_the_input_takes_it_all() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"xyz").unwrap();
    assert_eq!(conn.read_item(&mut Wild).unwrap(), Some(b'x'));
    assert_eq!(conn.try_read_item(&mut Wild).unwrap(), None);
    let mut buffer = FrameBuffer::new(9);
    buffer.push(b"xyz").unwrap();
    assert_eq!((buffer.next_item(&mut Wild), buffer.next_item(&mut Wild)), (Ok(Some(b'x')), Ok(None)));
    let mut test = TestLoop::new().unwrap();
    let id = test.connect(items(Wild, Log));
    test.feed(id, b"xyz");
    assert_eq!(test.output(id), b"x");
}

/// Writes what it is called for.
struct Log;

impl ItemReceiver<Pairs> for Log {
    fn connection_made(&mut self, t: &mut FramedTransport<'_, Pairs>) -> HandlerResult {
        t.send_line("made")
    }

    fn item_received(&mut self, t: &mut FramedTransport<'_, Pairs>, (key, value): (String, String)) -> HandlerResult {
        if key == "pause" {
            t.pause_reading();
        }
        t.send_line(format!("{key}={value}"))
    }

    fn malformed(&mut self, t: &mut FramedTransport<'_, Pairs>, why: &FrameError) -> HandlerResult {
        t.send_line(why.to_string())
    }

    fn eof_received(&mut self, t: &mut FramedTransport<'_, Pairs>, partial: &[u8]) -> HandlerResult<Eof> {
        t.send_line(format!("eof {}", partial.len()))?;
        Ok(Eof::Close)
    }

    fn message(&mut self, t: &mut FramedTransport<'_, Pairs>, _: Box<dyn std::any::Any>) -> HandlerResult {
        t.resume_reading();
        Ok(())
    }
}

#[test]
fn a_receiver_gets_items_however_the_bytes_come() {
    let text = b"a 1;b 2;long-key value;";
    for piece in 1..text.len() {
        let mut test = TestLoop::new().unwrap();
        let id = test.connect(items(Pairs::default(), Log));
        let fed: Vec<_> = text.chunks(piece).collect();
        fed.iter().for_each(|chunk| test.feed(id, chunk));
        test.feed(id, b"rest");
        test.eof(id);
        assert_eq!(test.output(id), b"made\na=1\nb=2\nlong-key=value\neof 4\n", "pieces of {piece}");
    }
}

#[test]
fn a_pause_keeps_items_back_and_what_is_malformed_ends_the_connection() {
    let mut test = TestLoop::new().unwrap();
    let id = test.connect(items(Pairs::default(), Log));
    test.feed(id, b"pause 1;b 2;");
    assert_eq!(test.output(id), b"made\npause=1\n");
    test.act(move |cx| assert!(cx.post(id, ())));
    assert_eq!(test.output(id), b"b=2\n");
    test.feed(id, b"bad;c 3;");
    let output = String::from_utf8(test.output(id)).unwrap();
    assert!(output.ends_with("no pair\n"), "{output}");
    let id = test.connect(items(Pairs::default(), Log));
    test.feed(id, &[b'x'; 17]);
    let output = String::from_utf8(test.output(id)).unwrap();
    assert!(output.contains("16 are allowed"), "{output}");
}
