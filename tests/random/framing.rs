//! Decoders, with streams made at random: the frames do not depend on how a stream is cut, and what is encoded is read.

use proptest::prelude::*;
use socketserver::framing::{
    Decoder, Encoder, Exactly, FrameBuffer, FrameError, LengthPrefixed, LineDecoder, LineEnd, Netstrings, OverLong,
    Terminated, Terminator,
};

/// The frames, `None` for each error, and what is left unless an error ended it.
fn frames(decoder: &mut dyn Decoder, chunks: &[&[u8]]) -> (Vec<Option<Vec<u8>>>, Vec<u8>) {
    let (mut buffer, mut seen) = (FrameBuffer::new(usize::MAX), Vec::new());
    for chunk in chunks {
        buffer.push(chunk).unwrap();
        loop {
            match buffer.next(decoder) {
                Ok(Some(frame)) => seen.push(Some(frame.to_vec())),
                Ok(None) => break,
                Err(_) => {
                    seen.push(None);
                    if !decoder.mid_frame() {
                        return (seen, Vec::new());
                    }
                }
            }
        }
    }
    (seen, buffer.unread().to_vec())
}

fn decoders() -> Vec<(&'static str, Box<dyn Decoder>)> {
    let line = |end, policy| Box::new(LineDecoder::new(end).max_length(6).over_long(policy));
    let bytes = |bytes: &[u8]| LineEnd::Delimiter(bytes.to_vec());
    vec![
        ("newline, discard", line(LineEnd::Newline, OverLong::Discard)),
        ("newline, close", line(LineEnd::Newline, OverLong::Close)),
        ("crlf, discard", line(LineEnd::CrLf, OverLong::Discard)),
        ("crlf, close", line(LineEnd::CrLf, OverLong::Close)),
        ("\\r\\n, discard", line(bytes(b"\r\n"), OverLong::Discard)),
        ("aab, discard", line(bytes(b"aab"), OverLong::Discard)),
        ("abab, close", line(bytes(b"abab"), OverLong::Close)),
        ("netstrings", Box::new(Netstrings::new().max_length(40))),
        ("u8", Box::new(LengthPrefixed::u8().max_length(40))),
        ("u16", Box::new(LengthPrefixed::u16())),
        ("u32", Box::new(LengthPrefixed::u32())),
        ("3 bytes", Box::new(Exactly(3.try_into().unwrap()))),
        ("aa", Box::new(Terminated::new(Terminator::Bytes(b"aa".to_vec())))),
    ]
}

/// Of few bytes, so that ends and lengths are met by chance.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(prop::sample::select(&b"ab\r\n0123:,"[..]), 0..12),
        Just(b"2:ab,".to_vec()),
        Just(b"\0\0\0\x01b".to_vec()),
        Just(b"\r\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn cut<'a>(mut stream: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for len in lengths.iter().cycle() {
        let (chunk, rest) = stream.split_at(stream.len().min(*len));
        chunks.push(chunk);
        stream = rest;
        if stream.is_empty() {
            break;
        }
    }
    chunks
}

/// Lines as a simple reader of the whole stream finds them.
fn naive_lines(stream: &[u8], end: &[u8]) -> (Vec<Option<Vec<u8>>>, Vec<u8>) {
    let (mut lines, mut rest) = (Vec::new(), stream);
    while let Some(at) = rest.windows(end.len()).position(|window| window == end) {
        lines.push(Some(rest[..at].to_vec()));
        rest = &rest[at + end.len()..];
    }
    (lines, rest.to_vec())
}

fn both_ways(codec: &(impl Decoder + Encoder + Clone), payload: &[u8]) -> Result<(), FrameError> {
    let mut stream = Vec::new();
    codec.encode(payload, &mut stream)?;
    codec.encode(payload, &mut stream)?;
    let twice = (vec![Some(payload.to_vec()), Some(payload.to_vec())], Vec::new());
    assert_eq!(frames(&mut codec.clone(), &[&stream]), twice);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn p1_the_frames_do_not_depend_on_the_chunks(
        stream in stream(),
        lengths in prop::collection::vec(1..9_usize, 1..20),
    ) {
        for (((name, mut whole), (_, mut chunked)), (_, mut bytes)) in decoders().into_iter().zip(decoders()).zip(decoders()) {
            let seen = frames(&mut *whole, &[&stream]);
            prop_assert_eq!(&frames(&mut *chunked, &cut(&stream, &lengths)), &seen, "{}", name);
            prop_assert_eq!(&frames(&mut *bytes, &cut(&stream, &[1])), &seen, "{}", name);
        }
    }

    #[test]
    fn p4_delimiters_are_found_where_a_simple_search_finds_them(
        stream in prop::collection::vec(prop::sample::select(&b"ab\r\n"[..]), 0..60),
        end in prop::collection::vec(prop::sample::select(&b"ab\r\n"[..]), 1..6),
        lengths in prop::collection::vec(1..9_usize, 1..20),
    ) {
        let seen = frames(&mut LineDecoder::new(LineEnd::Delimiter(end.clone())), &cut(&stream, &lengths));
        prop_assert_eq!(seen, naive_lines(&stream, &end));
        let seen = frames(&mut LineDecoder::new(LineEnd::CrLf), &cut(&stream, &lengths));
        prop_assert_eq!(seen, naive_lines(&stream, b"\r\n"));
    }

    #[test]
    fn p6_p8_what_is_encoded_is_read(payload in prop::collection::vec(prop::sample::select(&b"ab\r\n\0\xff"[..]), 0..12)) {
        both_ways(&Netstrings::new(), &payload).unwrap();
        both_ways(&LengthPrefixed::u8(), &payload).unwrap();
        both_ways(&LengthPrefixed::u16(), &payload).unwrap();
        both_ways(&LengthPrefixed::u32(), &payload).unwrap();
        let refused = payload.contains(&b'\r') || payload.contains(&b'\n');
        for end in [LineEnd::Newline, LineEnd::CrLf] {
            prop_assert_eq!(both_ways(&LineDecoder::new(end), &payload).is_err(), refused);
        }
        for end in [&b"ab"[..], b"aab", b"aba", b"bb"] {
            let sent = both_ways(&LineDecoder::new(LineEnd::Delimiter(end.to_vec())), &payload).is_ok();
            let stream = [&payload[..], end].concat();
            prop_assert_eq!(sent, naive_lines(&stream, end) == (vec![Some(payload.clone())], vec![]), "{:?}", end);
        }
    }
}
