//! Receivers of strings, in each framing.

use std::any::Any;

use crate::receiving::{Log, Loop};
use socketserver::event_loop::{strings, Eof, FramedTransport, StringReceiver};
use socketserver::framing::{
    Decoded, Decoder, Encoder, FrameError, LengthPrefixed, LineDecoder, LineEnd, Netstrings, OverLong,
};
use socketserver::HandlerResult;

/// Writes down what it is told, and does what strings say.
struct Talker(Log);

impl Talker {
    fn note(&self, what: &str, bytes: &[u8]) {
        self.0.borrow_mut().push(format!("{what}{}", bytes.escape_ascii()));
    }

    fn obey(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, order: &[u8]) -> HandlerResult {
        match order {
            b"p" => t.pause_reading(),
            b"pr" => {
                t.pause_reading();
                t.resume_reading();
            }
            b"r" => t.resume_reading(),
            b"stop" => t.close(),
            b"say" => t.send_string("hello")?,
            b"long" => t.send_string([0; 256])?,
            _ => {}
        }
        Ok(())
    }
}

impl StringReceiver for Talker {
    fn string_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, string: &[u8]) -> HandlerResult {
        self.note("", string);
        self.obey(t, string)
    }

    fn length_limit_exceeded(&mut self, _: &mut FramedTransport<'_, dyn Encoder>, len: usize) -> HandlerResult {
        self.note("limit ", len.to_string().as_bytes());
        Ok(())
    }

    fn malformed(&mut self, _: &mut FramedTransport<'_, dyn Encoder>, why: &FrameError) -> HandlerResult {
        assert!(matches!(why, FrameError::Malformed(_)));
        self.note("malformed", b"");
        Ok(())
    }

    fn eof_received(&mut self, _: &mut FramedTransport<'_, dyn Encoder>, partial: &[u8]) -> HandlerResult<Eof> {
        self.note("eof ", partial);
        Ok(Eof::Close)
    }

    fn message(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, message: Box<dyn Any>) -> HandlerResult {
        self.obey(t, message.downcast_ref::<&str>().ok_or("not text")?.as_bytes())
    }
}

fn fed<D: Decoder + Encoder + 'static>(framing: D, parts: &[&[u8]]) -> (Loop, Log) {
    let log = Log::default();
    let mut receiver = Loop::new(strings(framing, Talker(Log::clone(&log))));
    parts.iter().for_each(|part| receiver.feed(part));
    (receiver, log)
}

fn told(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.borrow_mut())
}

/// Makes a receiver, and feeds it.
type Feed = Box<dyn Fn(&[&[u8]]) -> (Loop, Log)>;
type Check = fn(Feed, &[u8]);

/// The strings in each framing, one after the other.
fn each_framing(given: &[&str], check: Check) {
    fn run<D: Decoder + Encoder + Clone + 'static>(framing: D, given: &[&str], check: Check) {
        let mut stream = Vec::new();
        given.iter().for_each(|string| framing.encode(string.as_bytes(), &mut stream).unwrap());
        check(Box::new(move |parts: &[&[u8]]| fed(framing.clone(), parts)), &stream);
    }
    run(Netstrings::new(), given, check);
    run(LengthPrefixed::u8(), given, check);
    run(LengthPrefixed::u16(), given, check);
    run(LengthPrefixed::u32(), given, check);
}

#[test]
fn netstring_and_int_n_strings_arrive_however_they_are_cut() {
    each_framing(&["hello", "", "world", "how", "are", "you123", ":today"], |feed, stream| {
        let expected = ["hello", "", "world", "how", "are", "you123", ":today"];
        for n in 1..=stream.len() {
            let parts: Vec<&[u8]> = stream.chunks(n).collect();
            assert_eq!(told(&feed(&parts).1), expected, "chunks of {n}");
            assert_eq!(told(&feed(&[&stream[..n], &stream[n..]]).1), expected, "cut at {n}");
        }
    });
}

#[test]
fn int_n_a_pause_in_a_callback_gives_each_once() {
    each_framing(&["a", "pr", "a", "p", "b", "p", "c"], |feed, stream| {
        let (mut receiver, log) = feed(&[stream]);
        assert_eq!(told(&log), ["a", "pr", "a", "p"]);
        receiver.tell("r");
        assert_eq!(told(&log), ["b", "p"]);
        receiver.tell("r");
        assert_eq!(told(&log), ["c"]);
    });
}

#[test]
fn int_n_none_after_a_close() {
    each_framing(&["a", "stop", "b"], |feed, stream| {
        for n in 1..=stream.len() {
            let (receiver, log) = feed(&stream.chunks(n).collect::<Vec<_>>());
            assert_eq!(told(&log), ["a", "stop"]);
            assert!(receiver.is_closing());
        }
    });
}

#[test]
fn int_n_the_limit_is_told_once_and_nothing_is_given_again() {
    let (mut receiver, log) = fed(LengthPrefixed::u32().max_length(10), &[b"\0\0\0\x03foo\0\0\0\x0bhello", b" world"]);
    receiver.feed(b"\0\0\0\x01a");
    assert_eq!(told(&log), ["foo", "limit 11"]);
    assert!(receiver.is_closing());
    assert!(receiver.error().is_some_and(|e| e.contains("11")), "{:?}", receiver.error());
}

#[test]
fn netstring_bad_ones_are_told_once_and_closed() {
    for bad in ["abc", "4:abcde", "2:aaa,", ":aaa,", "01:a,", " 1:a,", "-1:"] {
        let (receiver, log) = fed(Netstrings::new(), &[format!("1:a,{bad}").as_bytes(), b"1:b,"]);
        assert_eq!(told(&log), ["a", "malformed"], "{bad}");
        assert!(receiver.is_closing());
    }
}

#[test]
fn a_decoder_with_a_way_past_the_error_goes_on() {
    let lines = LineDecoder::new(LineEnd::Newline).max_length(3).over_long(OverLong::Discard);
    let (receiver, log) = fed(lines, &[b"abc\nabcd", b"efg\nhij\n"]);
    assert_eq!(told(&log), ["abc", "limit 4", "hij"]);
    assert!(!receiver.is_closing());
}

#[test]
fn strings_are_sent_framed_or_not_at_all() {
    let (mut receiver, _) = fed(LengthPrefixed::u8(), &[b"\x03say\x04long"]);
    assert_eq!(receiver.output(), "\x05hello");
    assert_eq!(receiver.error().as_deref(), Some("a frame of 256 bytes or more, where 255 are allowed"));
}

#[test]
fn p5_a_partial_string_at_the_end() {
    let (mut receiver, log) = fed(Netstrings::new(), &[b"1:a,5:he"]);
    receiver.eof();
    assert_eq!(told(&log), ["a", "eof 5:he"]);
}

/// It says that it knows a way past its error, and does not.
#[test]
fn a_decoder_that_fails_for_ever_ends_the_connection() {
    struct Stuck;
    impl Decoder for Stuck {
        fn decode(&mut self, _unread: &[u8]) -> Result<Decoded, FrameError> {
            Err(FrameError::TooLong { limit: 1, len: 2 })
        }
        fn reset(&mut self) {}
        fn mid_frame(&self) -> bool {
            true
        }
    }
    impl Encoder for Stuck {
        fn encode(&self, _payload: &[u8], _out: &mut Vec<u8>) -> Result<(), FrameError> {
            Ok(())
        }
    }
    let (receiver, _log) = fed(Stuck, &[b"any"]);
    assert!(receiver.is_closing());
}
