//! Receivers of lines: what they are told, whatever they do meanwhile.

use std::time::Duration;

use crate::line_talker::{crlf, every_cut, fed, joined, newline, talker, told, Talker};
use crate::receiving::Loop;
use socketserver::event_loop::Lines;
use socketserver::framing::OverLong;

#[test]
fn line_receiver_1_lines_and_raw_stretches() {
    let long = "1234567890".repeat(7);
    let stream = format!(
        "len 10\n\n0123456789len 5\n\n1234\nlen 20\nfoo 123\n\n0123456789\n012345678len 0\nfoo 5\n\n{long}\nlen 1\n\na"
    );
    let expected = [
        "len 10",
        "",
        "raw 0123456789",
        "len 5",
        "",
        "raw 1234\\n",
        "len 20",
        "foo 123",
        "",
        "raw 0123456789\\n012345678",
        "len 0",
        "foo 5",
        "",
        &format!("too long {}", &long[..64]),
        "len 1",
        "",
        "raw a",
    ];
    for parts in every_cut(stream.as_bytes()) {
        let (talker, log) = fed(|lines| newline(lines).over_long(OverLong::Discard), &parts);
        assert_eq!(joined(told(&log)), expected, "{} parts", parts.len());
        assert!(!talker.is_closing());
    }
}

#[test]
fn line_receiver_2_a_pause_keeps_lines() {
    for parts in every_cut(b"twiddle1\ntwiddle2\npause\ntwiddle3\n") {
        let (mut talker, log) = fed(newline, &parts);
        assert_eq!(told(&log), ["twiddle1", "twiddle2", "pause"]);
        talker.resume();
        assert_eq!(told(&log), ["twiddle3"]);
    }
}

#[test]
fn line_receiver_3_a_pause_in_raw_mode() {
    for parts in every_cut(b"twiddle1\ntwiddle2\nlen 5\nrawpause\n12345twiddle3\n") {
        let (mut talker, log) = fed(newline, &parts);
        assert_eq!(told(&log), ["twiddle1", "twiddle2", "len 5", "rawpause"]);
        talker.tell("resume");
        assert_eq!(joined(told(&log)), ["raw 12345", "twiddle3"]);
    }
}

#[test]
fn line_receiver_4_nothing_after_a_stop() {
    for parts in every_cut(b"twiddle1\ntwiddle2\nstop\nmore\nstuff\n") {
        let (mut talker, log) = fed(newline, &parts);
        assert_eq!(told(&log), ["twiddle1", "twiddle2", "stop"]);
        assert!(talker.is_closing());
        talker.eof();
        assert!(told(&log).is_empty(), "nor at the end");
    }
}

#[test]
fn line_receiver_5_the_line_buffer_is_cleared() {
    let (mut talker, log) = talker(crlf);
    talker.feed(b"clear\r\nbar\r\nbaz");
    assert_eq!(told(&log), ["clear", "cleared bar\\r\\nbaz"]);
    talker.feed(b"quux\r\ncl");
    assert_eq!(told(&log), ["quux"]);
    let long = [&b"ear\r\n"[..], &[b'x'; 2000], b"\r\n"].concat(); // partly behind what is kept, partly in the chunk
    talker.feed(&long);
    assert_eq!(told(&log)[1].len(), "cleared ".len() + 2000 + "\\r\\n".len());
    talker.feed(b"half");
    talker.tell("clear");
    talker.feed(b"next\r\n");
    assert_eq!(told(&log), ["cleared half", "next"]);
}

#[test]
fn line_receiver_6_the_mode_flips_for_each_byte() {
    let (mut talker, log) = talker(newline);
    talker.feed(&b"raw\n!".repeat(20_000));
    let told = told(&log);
    assert_eq!(told.iter().filter(|entry| *entry == "raw").count(), 20_000);
}

#[test]
fn line_receiver_7_the_limit_is_exact() {
    let x = |n| vec![b'x'; n];
    let max = |lines: Lines<Talker>| crlf(lines).max_length(16384);
    assert!(fed(max, &[&x(16385), b"\r\nr"]).0.is_closing());
    assert!(fed(max, &[&x(16386)]).0.is_closing());
    let (mut talker, log) = fed(max, &[&x(16384), b"\r"]);
    assert!(!talker.is_closing() && told(&log).is_empty());
    talker.feed(b"\n");
    assert_eq!(told(&log)[0].len(), 16384);
}

#[test]
fn line_receiver_8_an_end_alone() {
    let (talker, log) = fed(|lines| newline(lines).max_length(4), &[b"xxx", b"", b"\nxxx"]);
    assert_eq!(told(&log), ["xxx"]);
    assert!(!talker.is_closing());
}

#[test]
fn line_receiver_9_too_long_is_told_once_with_its_beginning() {
    let x = "x".repeat(14);
    for (stream, expected) in [
        (x.clone(), &["too long xxxxxx"][..]),
        (format!("x\r\n{x}"), &["x", "too long xxxxxx"]),
        (format!("{x}\r\n{x}\r\nx\r\n"), &["too long xxxxxx"]),
    ] {
        for parts in every_cut(stream.as_bytes()) {
            let (talker, log) = fed(|lines| crlf(lines).max_length(6), &parts);
            assert_eq!(told(&log), expected);
            assert!(talker.is_closing());
        }
    }
    for parts in every_cut(b"abcdefgh\r\nij\r\n") {
        let (mut talker, log) = fed(|lines| crlf(lines).max_length(4).over_long(OverLong::Discard), &parts);
        assert_eq!(told(&log), ["too long abcd", "ij"]);
        assert!(!talker.is_closing());
        talker.feed(b"abcdefgh");
        talker.eof();
        assert_eq!(told(&log), ["too long abcd", "eof "], "the tail is no part of a line");
    }
}

#[test]
fn line_receiver_10_a_consumer_that_pauses_after_each_line() {
    let (mut talker, log) = fed(crlf, &[b"hello, pause", b"\r\n"]);
    assert_eq!(told(&log), ["hello, pause"]);
    talker.resume();
    assert!(told(&log).is_empty() && !talker.is_paused());
    talker.feed(b"hello pause\r\nworld pause\r\n");
    assert_eq!(told(&log), ["hello pause"]);
    talker.resume();
    assert_eq!(told(&log), ["world pause"]);
    assert!(talker.is_paused());
    talker.feed(b"goodbye pause\r\n");
    assert!(told(&log).is_empty());
    talker.tell("resume");
    assert_eq!(told(&log), ["goodbye pause"]);
    talker.resume();
    assert!(told(&log).is_empty() && !talker.is_paused());
}

#[test]
fn line_receiver_10_ten_thousand_pauses_in_one_chunk() {
    let (mut talker, log) = fed(newline, &[&b"pause\n".repeat(10_000)]);
    for _ in 0..10_000 {
        assert_eq!(told(&log), ["pause"]);
        talker.tell("resume");
    }
    assert!(told(&log).is_empty());
}

#[test]
fn line_receiver_11_settings_change_in_the_middle_of_a_chunk() {
    for parts in every_cut(b"end ;\na\nb;end crlf;c;\n\r\nmax 3\r\nabc\r\nabcd\r\n") {
        let (talker, log) = fed(newline, &parts);
        assert_eq!(told(&log), ["end ;", "a\\nb", "end crlf", "c;\\n", "max 3", "abc", "too long abc"]);
        assert!(talker.is_closing());
    }
}

#[test]
fn line_receiver_11_an_error_ends_it() {
    for parts in every_cut(b"one\nfail\ntwo\n") {
        let (talker, log) = fed(newline, &parts);
        assert_eq!(told(&log), ["one", "fail"]);
        assert_eq!(talker.error().as_deref(), Some("as told"));
    }
}

#[test]
fn p5_a_partial_line_at_the_end_is_no_line() {
    for parts in every_cut(b"one\r\ntwo\r") {
        let (mut talker, log) = fed(crlf, &parts);
        talker.eof();
        assert_eq!(told(&log), ["one", "eof two\\r"]);
        assert!(talker.is_closing());
    }
}

#[test]
fn p5_lines_kept_by_a_pause_come_before_the_end() {
    for resume in [Loop::resume, |talker: &mut Loop| talker.tell("resume")] {
        let (mut talker, log) = fed(newline, &[b"pause\ntwo\npause\nthree\nfour"]);
        talker.eof();
        assert_eq!(told(&log), ["pause"], "not while it is paused");
        assert!(!talker.is_closing());
        resume(&mut talker);
        assert_eq!(told(&log), ["two", "pause"]);
        resume(&mut talker);
        assert_eq!(told(&log), ["three", "eof four"]);
        assert!(talker.is_closing());
    }
}

#[test]
fn p7_raw_until_switched_takes_what_it_wants() {
    for parts in every_cut(b"raw\nab!line\nraw\n!!\n") {
        let (_, log) = fed(newline, &parts);
        let told: Vec<String> = told(&log).into_iter().filter(|entry| !entry.starts_with("raw ")).collect();
        assert_eq!(told, ["raw", "line", "raw", "!"]);
    }
    let (mut talker, log) = fed(newline, &[b"raw\nab?", b"cd?"]);
    assert_eq!(told(&log), ["raw", "raw ab?", "raw ab?cd?"], "what is not taken comes again");
    talker.tell("nothing");
    assert!(told(&log).is_empty(), "but not without more");
    talker.tell("lines");
    talker.feed(b"\n");
    assert_eq!(told(&log), ["ab?cd?"]);
    talker.feed(b"raw\n");
    talker.feed(&[b'?'; 65]);
    assert_eq!(talker.error().as_deref(), Some("a frame of 65 bytes or more, where 64 are allowed"));
}

#[test]
fn p7_a_thousand_pipelined_requests_keep_their_order() {
    let requests: String = (0..1000).map(|n| format!("say {n}\n")).collect();
    let replies: String = (0..1000).map(|n| format!("{n}\n")).collect();
    let (mut talker, _) = fed(newline, &[requests.as_bytes()]);
    assert_eq!(talker.output(), replies);
}

#[test]
fn p8_a_line_with_a_line_end_is_not_sent() {
    let (mut talker, _) = fed(crlf, &[b"say hello\r\ninject\r\n"]);
    assert_eq!(talker.output(), "hello\r\n");
    assert_eq!(talker.error().as_deref(), Some("cannot be sent as a frame: the text contains a line end"));
}

/// A request is in progress while part of one is held: from its first byte, not from a later one.
#[test]
fn the_limits_are_told_what_is_held() {
    const SECOND: Duration = Duration::from_secs(1);
    let (mut talker, _) = talker(newline);
    let mut fed_a_second_ago = |bytes: &[u8]| {
        talker.feed(bytes);
        talker.advance(SECOND);
        talker.request_age()
    };
    assert_eq!(fed_a_second_ago(b"one\n"), None);
    assert_eq!(fed_a_second_ago(b"two\nthr"), Some(SECOND));
    assert_eq!(fed_a_second_ago(b"e"), Some(2 * SECOND), "the same line");
    assert_eq!(fed_a_second_ago(b"e\nfo"), Some(SECOND), "another line");
    assert_eq!(fed_a_second_ago(b"ur\n"), None);
    assert_eq!(fed_a_second_ago(b"len 5\n\nab"), Some(SECOND), "the rest of the raw bytes is due");
    assert_eq!(fed_a_second_ago(b"c"), Some(2 * SECOND));
    assert_eq!(fed_a_second_ago(b"de"), None);
}
