//! A receiver of lines that does what it is told.

use std::any::Any;

use socketserver::event_loop::{Eof, FramedTransport, Lines};
use socketserver::framing::{LineEnd, OverLong, Raw};
use socketserver::{lines, HandlerResult, LineReceiver};

use crate::receiving::{Log, Loop};

/// Writes down what it is told, and does what lines and messages say.
pub struct Talker {
    log: Log,
    announced: u64,
}

impl Talker {
    fn note(&self, what: &str, bytes: &[u8]) {
        self.log.borrow_mut().push(format!("{what}{}", bytes.escape_ascii()));
    }

    fn obey(&mut self, t: &mut FramedTransport<'_>, order: &str) -> HandlerResult {
        match order.split_once(' ').unwrap_or((order, "")) {
            ("len", n) => self.announced = n.parse()?,
            ("" | "rawpause", _) if self.announced > 0 => {
                t.set_raw_mode(Raw::Bytes(std::mem::take(&mut self.announced)))
            }
            ("max", n) => t.set_max_length(n.parse()?),
            ("end", "crlf") => t.set_delimiter(LineEnd::CrLf),
            ("end", bytes) => t.set_delimiter(LineEnd::Delimiter(bytes.into())),
            ("say", text) => t.send_line(text)?,
            ("inject", _) => t.send_line("250 ok\r\nQUIT")?,
            ("raw", _) => t.set_raw_mode(Raw::UntilSwitched),
            ("lines", _) => t.set_line_mode(),
            ("stop", _) => t.close(),
            ("resume", _) => t.resume_reading(),
            ("clear", _) => {
                let rest = t.clear_line_buffer();
                self.note("cleared ", &rest);
            }
            ("fail", _) => return Err("as told".into()),
            _ => {}
        }
        if order.ends_with("pause") {
            t.pause_reading();
        }
        Ok(())
    }
}

impl LineReceiver for Talker {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        self.note("", line);
        self.obey(t, &String::from_utf8_lossy(line))
    }

    /// Until it is switched: takes what stands before a `!`, and the `!`, which ends raw mode; all if there is
    /// none; and nothing of a `?`, which is half of something.
    fn raw_data_received(&mut self, t: &mut FramedTransport<'_>, data: &[u8]) -> HandlerResult<usize> {
        self.note("raw ", &data[..data.len().min(40)]); // where the mode flips often, all that follows comes each time
        if !t.is_raw() || data.ends_with(b"?") {
            return Ok(0);
        }
        let Some(at) = data.iter().position(|byte| *byte == b'!') else { return Ok(data.len()) };
        t.set_line_mode();
        Ok(at + 1)
    }

    fn line_length_exceeded(&mut self, t: &mut FramedTransport<'_>, start: &[u8]) -> HandlerResult<OverLong> {
        self.note("too long ", start);
        Ok(t.over_long())
    }

    fn eof_received(&mut self, _: &mut FramedTransport<'_>, partial: &[u8]) -> HandlerResult<Eof> {
        self.note("eof ", partial);
        Ok(Eof::Close)
    }

    fn message(&mut self, t: &mut FramedTransport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.obey(t, message.downcast_ref::<&str>().ok_or("not text")?)
    }
}

pub fn talker(set: impl FnOnce(Lines<Talker>) -> Lines<Talker>) -> (Loop, Log) {
    let log = Log::default();
    (Loop::new(set(lines(Talker { log: Log::clone(&log), announced: 0 }))), log)
}

pub fn newline(lines: Lines<Talker>) -> Lines<Talker> {
    lines.delimiter(LineEnd::Delimiter(b"\n".to_vec())).max_length(64)
}

pub fn crlf(lines: Lines<Talker>) -> Lines<Talker> {
    lines.delimiter(LineEnd::CrLf)
}

/// What was told since the last call.
pub fn told(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.borrow_mut())
}

/// Whole, in chunks of 1 to 9 bytes, and in two parts at every point.
pub fn every_cut(stream: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuts: Vec<Vec<&[u8]>> = (1..10).map(|n| stream.chunks(n).collect()).collect();
    cuts.extend((0..stream.len()).map(|at| vec![&stream[..at], &stream[at..]]));
    cuts
}

pub fn fed(set: fn(Lines<Talker>) -> Lines<Talker>, parts: &[&[u8]]) -> (Loop, Log) {
    let (mut talker, log) = talker(set);
    parts.iter().for_each(|part| talker.feed(part));
    (talker, log)
}

/// Raw pieces that follow each other, as one.
pub fn joined(told: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for entry in told {
        match (entry.strip_prefix("raw "), joined.last_mut()) {
            (Some(more), Some(last)) if last.starts_with("raw ") => last.push_str(more),
            _ => joined.push(entry),
        }
    }
    joined
}
