//! Tests of the number of bytes that decoders look at.

use std::cell::Cell;

use super::{
    Decoded, Decoder, Exactly, FrameBuffer, FrameError, LengthPrefixed, LineDecoder, LineEnd, Netstrings, OverLong,
    Terminated, Terminator,
};

thread_local! {
    static EXAMINED: Cell<usize> = const { Cell::new(0) };
}

pub(super) fn examined(bytes: usize) {
    EXAMINED.set(EXAMINED.get() + bytes);
}

/// Decodes a stream in chunks of the given lengths, in turn, until it ends or is refused. Returns the number
/// of frames, and of the bytes that were looked at.
fn cost(decoder: &mut dyn Decoder, stream: &[u8], chunks: &[usize]) -> (usize, usize) {
    EXAMINED.set(0);
    let (mut arrived, mut taken, mut frames) = (0, 0, 0);
    for chunk in chunks.iter().cycle() {
        match decoder.decode(&stream[taken..arrived]) {
            Ok(Decoded::Frame(frame)) => (taken, frames) = (taken + frame.len, frames + 1),
            Ok(Decoded::Skip(n)) => taken += n,
            Ok(Decoded::More) if arrived == stream.len() => break,
            Ok(Decoded::More) => arrived = stream.len().min(arrived + chunk),
            Err(_) if decoder.mid_frame() => {} // discards, and goes on
            Err(_) => break,
        }
    }
    (frames, EXAMINED.get())
}

fn lines(end: LineEnd) -> LineDecoder {
    LineDecoder::new(end).max_length(1 << 21)
}

fn delimiter(bytes: &[u8]) -> LineEnd {
    LineEnd::Delimiter(bytes.to_vec())
}

#[test]
fn p1_a_long_line_byte_by_byte_is_looked_at_once() {
    let stream = [&[b'x'; 100_000][..], b"\r\n"].concat();
    for end in [LineEnd::Newline, LineEnd::CrLf, delimiter(b"\r\n")] {
        let (frames, examined) = cost(&mut lines(end.clone()), &stream, &[1]);
        assert_eq!(frames, 1);
        assert!(examined <= stream.len() + 2, "{end:?}: {examined}");
    }
}

#[test]
fn p1_a_delimiter_that_almost_comes_is_looked_at_twice_at_most() {
    let stream = [&b"aaaaaaaab".repeat(5000)[..], b"aaaaaaaaac"].concat();
    let end = delimiter(b"aaaaaaaaac");
    for chunks in [&[1][..], &[2, 3], &[usize::MAX / 2]] {
        let (frames, examined) = cost(&mut lines(end.clone()), &stream, chunks);
        assert_eq!(frames, 1);
        assert!(examined <= 2 * stream.len(), "{examined} of {}", stream.len());
    }
}

#[test]
fn p2_a_mebibyte_of_short_lines_is_looked_at_once() {
    let stream = b"x\n".repeat(1 << 19);
    assert_eq!(cost(&mut lines(LineEnd::Newline), &stream, &[usize::MAX / 2]), (1 << 19, 1 << 20));
}

#[test]
fn p3_a_line_that_is_discarded_is_looked_at_once() {
    let stream = [&[b'x'; 100_000][..], b"\r\nok\r\n"].concat();
    for end in [LineEnd::Newline, LineEnd::CrLf, delimiter(b"\r\n")] {
        let mut decoder = LineDecoder::new(end).max_length(10).over_long(OverLong::Discard);
        let (frames, examined) = cost(&mut decoder, &stream, &[1]);
        assert_eq!(frames, 1);
        assert!(examined <= stream.len() + 4, "{examined}");
    }
}

/// Returns decoders of each kind, with limits that the streams below reach.
fn decoders() -> Vec<(&'static str, Box<dyn Decoder>)> {
    let line = |end, policy| Box::new(LineDecoder::new(end).max_length(6).over_long(policy));
    vec![
        ("newline", line(LineEnd::Newline, OverLong::Discard)),
        ("crlf", line(LineEnd::CrLf, OverLong::Discard)),
        ("aab", line(delimiter(b"aab"), OverLong::Discard)),
        ("a\\ra\\n", line(delimiter(b"a\ra\n"), OverLong::Close)),
        ("netstrings", Box::new(Netstrings::new().max_length(40))),
        ("u8", Box::new(LengthPrefixed::u8().max_length(40))),
        ("u16", Box::new(LengthPrefixed::u16())),
        ("u32", Box::new(LengthPrefixed::u32())),
        ("3 bytes", Box::new(Exactly(3.try_into().unwrap()))),
        ("aa", Box::new(Terminated::new(Terminator::Bytes(b"aa".to_vec())))),
        ("none", Box::new(Terminated::new(Terminator::None))),
    ]
}

/// Makes numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    /// Makes a stream of few different bytes, so that ends and lengths occur by chance.
    fn stream(&mut self) -> Vec<u8> {
        let mut stream = Vec::new();
        for _ in 0..self.below(30) {
            match self.below(4) {
                0 => stream.extend_from_slice(b"2:ab,"),
                1 => stream.extend_from_slice(b"\0\0\0\x01b"),
                2 => stream.extend_from_slice(b"\r\n"),
                _ => (0..self.below(12)).for_each(|_| stream.push(b"ab\r\n0123:,"[self.below(10)])),
            }
        }
        stream
    }
}

#[test]
fn p1_whatever_the_chunks_each_byte_is_looked_at_twice_at_most() {
    let mut dice = Dice(1);
    for _ in 0..500 {
        let stream = dice.stream();
        let chunks: Vec<usize> = (0..=dice.below(20)).map(|_| 1 + dice.below(8)).collect();
        for (name, mut decoder) in decoders() {
            let (_, examined) = cost(&mut *decoder, &stream, &chunks);
            let most = 2 * stream.len();
            assert!(examined <= most, "{name}: {examined} of {}: {stream:?} in {chunks:?}", stream.len());
        }
    }
}

#[test]
fn the_buffer_gives_its_memory_back() {
    let (mut buffer, mut lines) = (FrameBuffer::new(usize::MAX), lines(LineEnd::Newline));
    buffer.push(&[b'x'; 1 << 20]).unwrap();
    buffer.push(b"\nhalf").unwrap();
    assert_eq!(buffer.next(&mut lines).unwrap().map(<[u8]>::len), Some(1 << 20));
    buffer.push(b" a").unwrap();
    assert!(buffer.capacity() < 100, "{}", buffer.capacity());
    buffer.push(b" line\n").unwrap();
    assert_eq!(buffer.next(&mut lines).unwrap(), Some(&b"half a line"[..]));
    assert_eq!(buffer.next(&mut lines).unwrap(), None);
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn the_limit_of_a_buffer_is_exact() {
    let mut buffer = FrameBuffer::new(16);
    buffer.push(&[b'x'; 10]).unwrap();
    buffer.push(&[b'x'; 6]).unwrap();
    assert_eq!(buffer.push(b"x"), Err(FrameError::TooLong { limit: 16, len: 17 }));
    assert_eq!(buffer.unread().len(), 16, "nothing of a refused chunk is taken");
    assert!(!buffer.is_empty());
    // What was taken has left room.
    buffer.consume(3);
    buffer.push(b"abc").unwrap();
    assert_eq!(buffer.push(b"xy"), Err(FrameError::TooLong { limit: 16, len: 18 }));
    buffer.consume(usize::MAX);
    assert!(buffer.is_empty());
}

#[test]
fn a_small_buffer_keeps_its_memory_while_it_is_used() {
    let mut buffer = FrameBuffer::new(usize::MAX);
    buffer.push(&[b'x'; 8 << 10]).unwrap();
    let before = buffer.capacity();
    buffer.consume((8 << 10) - 1);
    assert_eq!(buffer.capacity(), before);
    buffer.push(&[b'x'; 8 << 10]).unwrap();
    buffer.consume(8 << 10);
    assert!(buffer.capacity() < 8 << 10, "more than 8 KiB is given back: {}", buffer.capacity());
}

#[test]
fn room_at_the_front_is_used_before_the_buffer_grows() {
    let mut buffer = FrameBuffer::new(usize::MAX);
    buffer.push(&[b'x'; 4000]).unwrap();
    let before = buffer.capacity();
    buffer.consume(2000);
    buffer.push(&[b'y'; 2000]).unwrap();
    assert_eq!((buffer.capacity(), buffer.unread().len()), (before, 4000));
    // Less room than there are bytes to move is not used yet, or each byte would be moved many times.
    buffer.consume(10);
    buffer.push(&[b'z'; 10]).unwrap();
    assert!(buffer.capacity() > before);
}
