//! Streams, cut in every way, and the frames that come of them.

use socketserver::framing::LineTooLong;
use socketserver::framing::{Decoder, FrameBuffer, FrameError};

/// What became of a stream: its frames as text, the errors between them, and what is left.
pub type Seen = (Vec<String>, String);

pub fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// All frames of a stream that arrives in parts. The decoder may be told something after each frame. An error that
/// comes again ends it.
pub fn frames<D: Decoder + Clone>(decoder: &D, parts: &[&[u8]], after: fn(&mut D, &[u8])) -> Seen {
    let (mut decoder, mut buffer) = (decoder.clone(), FrameBuffer::new(usize::MAX));
    let (mut seen, mut failed) = (Vec::new(), None);
    for part in parts {
        buffer.push(part).unwrap();
        loop {
            let frame = match buffer.next(&mut decoder) {
                Ok(Some(frame)) => frame.to_vec(),
                Ok(None) => break,
                Err(e) if failed == Some(kind(e)) => break,
                Err(e) => {
                    failed = Some(kind(e));
                    seen.push(format!("! {:?}", kind(e)));
                    continue;
                }
            };
            seen.push(text(&frame));
            after(&mut decoder, &frame);
            failed = None;
        }
    }
    (seen, if failed.is_some() { String::new() } else { text(buffer.unread()) })
}

/// An error without the length, which depends on what has arrived.
pub fn kind(e: FrameError) -> FrameError {
    match e {
        FrameError::LineTooLong(LineTooLong { limit, .. }) | FrameError::TooLong { limit, .. } => {
            FrameError::TooLong { limit, len: 0 }
        }
        e => e,
    }
}

pub fn no_change<D>(_: &mut D, _: &[u8]) {}

/// Whole, in chunks of 1 to 9 bytes, and in two parts at every point: always the same.
pub fn check<D: Decoder + Clone>(decoder: &D, stream: &[u8], after: fn(&mut D, &[u8]), frames_of: &[&str], left: &str) {
    let expected = (frames_of.iter().map(|frame| (*frame).to_owned()).collect(), left.to_owned());
    assert_eq!(frames(decoder, &[stream], after), expected, "{}", text(stream));
    for n in 1..10 {
        let parts: Vec<&[u8]> = stream.chunks(n).collect();
        assert_eq!(frames(decoder, &parts, after), expected, "{} in chunks of {n}", text(stream));
    }
    for at in 0..=stream.len() {
        let (front, back) = stream.split_at(at);
        assert_eq!(frames(decoder, &[front, back], after), expected, "{} cut at {at}", text(stream));
    }
}
