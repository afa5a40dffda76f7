//! Netstrings, length prefixes, terminators: the same frames however a stream is cut, and what is refused.

use std::num::NonZeroUsize;

use crate::kit::frames::{check, frames, kind, no_change};
use socketserver::framing::{
    Decoder, Encoder, Exactly, FrameError, LengthPrefixed, Netstrings, Terminated, Terminator,
};

#[test]
fn netstrings_good() {
    let max = |n| Netstrings::new().max_length(n);
    check(&max(50), b"0:,1:a,2:ab,4:1:a,,4:aaaa,", no_change, &["", "a", "ab", "1:a,", "aaaa"], "");
    check(&max(50), b"10:0123456789,1:a,1:b,", no_change, &["0123456789", "a", "b"], "");
    check(&max(12), b"12:", no_change, &[], "12:");
    let strings = ["hello", "world", "how", "are", "you123", ":today", &"a".repeat(515)];
    let mut stream = Vec::new();
    strings.iter().for_each(|s| max(699).encode(s.as_bytes(), &mut stream).unwrap());
    check(&max(699), &stream, no_change, &strings, "");
}

#[test]
fn netstrings_bad() {
    let fifty_one = format!("51:{}b,", "a".repeat(50));
    let bad = [
        "9999999999999999999999",
        "abc",
        "4:abcde",
        &fifty_one,
        "2:aaa,",
        "0:a,",
        ":aaa,",
        "3aaa,",
        "aaa,",
        "aaa",
        "01:a,",
        "00:,",
        "+1:a,",
        " 1:a,",
        "-1:",
    ];
    for stream in bad {
        for n in 1..10 {
            let parts: Vec<&[u8]> = stream.as_bytes().chunks(n).collect();
            let (seen, _) = frames(&Netstrings::new().max_length(50), &parts, no_change);
            assert!(seen.len() == 1 && seen[0].starts_with("! "), "{stream} in chunks of {n}: {seen:?}");
        }
        let after_a_good_one = format!("1:a,{stream}");
        let (seen, _) = frames(&Netstrings::new().max_length(50), &[after_a_good_one.as_bytes()], no_change);
        assert!(seen.len() == 2 && seen[0] == "a", "{seen:?}");
    }
    let too_long = |n: usize| format!("! TooLong {{ limit: {n}, len: 0 }}");
    check(&Netstrings::new().max_length(10), b"11", no_change, &[&too_long(10)], "");
    check(&Netstrings::new().max_length(11), b"12:", no_change, &[&too_long(11)], "");
}

#[test]
fn p6_a_length_is_refused_before_anything_is_allocated() {
    let too_long = |limit, len| Err(FrameError::TooLong { limit, len });
    for number in ["2147483647:", "4294967295:", "18446744073709551615:", "99999999999999999999999999:"] {
        assert_eq!(Netstrings::new().decode(number.as_bytes()).map_err(kind), too_long(65536, 0), "{number}");
    }
    for (prefix, len) in [(0x7fff_ffff_u32, 0x7fff_ffff), (u32::MAX, 0xffff_ffff), (65537, 65537)] {
        assert_eq!(LengthPrefixed::u32().decode(&prefix.to_be_bytes()), too_long(65536, len));
    }
    let mut unlimited = Netstrings::new().max_length(usize::MAX);
    assert_eq!(unlimited.decode(b"18446744073709551615:").map(|_| ()), Ok(()), "nor does it overflow");
}

#[test]
fn int_n_good() {
    let (u8, u16, u32) = (LengthPrefixed::u8(), LengthPrefixed::u16(), LengthPrefixed::u32());
    for (decoder, sent) in [(&u8, &b"\x03foo"[..]), (&u16, b"\0\x03foo"), (&u32, b"\0\0\0\x03foo")] {
        let mut out = Vec::new();
        decoder.encode(b"foo", &mut out).unwrap();
        assert_eq!(out, sent);
        decoder.encode(b"", &mut out).unwrap();
        decoder.encode(b"bar", &mut out).unwrap();
        check(decoder, &out, no_change, &["foo", "", "bar"], "");
    }
    check(&u32, b"\0\0\0\x04ubar", no_change, &["ubar"], "");
    check(&u32, b"\0\0\0", no_change, &[], "\\x00\\x00\\x00");
    check(&u16, b"\0", no_change, &[], "\\x00");
    check(&u8, b"\x08", no_change, &[], "\\x08");
}

#[test]
fn int_n_over_the_limit_is_told_once_and_nothing_is_given_again() {
    let limit = "! TooLong { limit: 10, len: 0 }";
    let max = |decoder: LengthPrefixed| decoder.max_length(10);
    check(
        &max(LengthPrefixed::u32()),
        b"\0\0\0\x03foo\0\0\0\x0bhello world\0\0\0\x01a",
        no_change,
        &["foo", limit],
        "",
    );
    check(&max(LengthPrefixed::u32()), b"\x10\0\0\0aaaaaa", no_change, &[limit], "");
    check(&max(LengthPrefixed::u16()), b"\x10\0aaaaaa", no_change, &[limit], "");
    check(&max(LengthPrefixed::u8()), b"aaaaaaa", no_change, &[limit], "");
    assert_eq!(max(LengthPrefixed::u8()).decode(b"\x0b"), Err(FrameError::TooLong { limit: 10, len: 11 }), "at once");
}

#[test]
fn int_n_refuses_to_send_what_does_not_fit() {
    let mut out = Vec::new();
    for (encoder, limit) in [(LengthPrefixed::u8(), 255), (LengthPrefixed::u16(), 65535)] {
        for len in [limit + 1, limit + 2] {
            let refused = encoder.encode(&vec![0; len], &mut out);
            assert_eq!((refused, out.len()), (Err(FrameError::TooLong { limit, len }), 0));
        }
        encoder.encode(&vec![0; limit], &mut out).unwrap();
        out.clear();
    }
}

fn length(n: usize) -> Terminator {
    Terminator::Length(NonZeroUsize::new(n).unwrap())
}

#[test]
fn c1_c2_c3_c9_terminators_of_one_to_three_bytes() {
    for end in ["\n", "\r\n", "qqq"] {
        let decoder = Terminated::new(Terminator::Bytes(end.as_bytes().to_vec()));
        let stream = format!("hello world{end}I am not dead yet!{end}{end}");
        check(&decoder, stream.as_bytes(), no_change, &["hello world", "I am not dead yet!", ""], "");
    }
}

#[test]
fn c4_c5_a_length_does_not_fall_through_to_raw_bytes() {
    check(&Terminated::new(length(1)), b"hel", no_change, &["h", "e", "l"], "");
    check(&Terminated::new(length(6)), b"hello world, I", no_change, &["hello ", "world,"], " I");
    check(&Exactly(NonZeroUsize::new(6).unwrap()), b"hello world, I", no_change, &["hello ", "world,"], " I");
    assert!(Exactly(NonZeroUsize::new(6).unwrap()).encode(b"hello", &mut Vec::new()).is_err());
}

#[test]
fn c6_without_a_terminator_all_is_given_as_it_comes() {
    let parts: [&[u8]; 3] = [b"hello\n", b"", b"world"];
    assert_eq!(frames(&Terminated::new(Terminator::None), &parts, no_change).0, ["hello\\n", "world"]);
}

#[test]
fn c13_half_a_terminator_at_the_end_is_not_lost() {
    check(&Terminated::new(Terminator::Bytes(b"qqq".to_vec())), b"aqqqbqq", no_change, &["a"], "bqq");
}

#[test]
fn the_terminator_changes_between_frames() {
    fn change(decoder: &mut Terminated, frame: &[u8]) {
        decoder.set_terminator(if frame == b"5" { length(5) } else { Terminator::Bytes(b"\n".to_vec()) });
    }
    let decoder = Terminated::new(Terminator::Bytes(b"\n".to_vec()));
    check(&decoder, b"a\n5\nab\ncdb\n5\n12", change, &["a", "5", "ab\\ncd", "b", "5"], "12");
    assert!(Terminated::new(Terminator::Bytes(b"\n".to_vec())).max_length(2).decode(b"abc").is_err());
}
