//! The protocol that calls a [`LineReceiver`].

use std::any::Any;

use super::framed::{Framed, Parser, Touched, Unread};
use super::line_receiver::{LineReceiver, LineTransport};
use super::{BoxError, Context, Eof, Lost, Protocol, TimerId, Transport};
use crate::framing::{Decoded, Decoder, Frame, FrameError, LineDecoder, LineEnd, OverLong, Raw};
use crate::handler::HandlerResult;

/// Makes a [`Protocol`] of a [`LineReceiver`]: with `\n` or `\r\n` as line end, at most 64 KiB in a line, and a close
/// for longer ones, unless set otherwise.
pub fn lines<R: LineReceiver>(receiver: R) -> Lines<R> {
    Lines { framed: Framed::new(LineParser { receiver, decoder: LineDecoder::default() }) }
}

/// What [`lines`] makes. It keeps an unfinished line only, and has no buffer otherwise.
#[derive(Debug)]
pub struct Lines<R> {
    framed: Framed<LineParser<R>>,
}

impl<R: LineReceiver> Lines<R> {
    /// What ends a line. Defaults to [`LineEnd::Newline`].
    #[must_use]
    pub fn delimiter(mut self, end: LineEnd) -> Self {
        self.framed.parser.decoder.set_line_end(end);
        self
    }

    /// The most bytes in a line, its end not counted. Defaults to 64 KiB.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.framed.parser.decoder.set_max_length(bytes);
        self
    }

    /// What becomes of a longer line, where the receiver does not say otherwise. Defaults to [`OverLong::Close`].
    #[must_use]
    pub fn over_long(mut self, policy: OverLong) -> Self {
        self.framed.parser.decoder.set_over_long(policy);
        self
    }

    fn call(
        &mut self,
        t: &mut Transport<'_>,
        call: impl FnOnce(&mut R, &mut LineTransport<'_>) -> HandlerResult,
    ) -> HandlerResult {
        self.framed.call(t, |parser, t, unread| parser.with(t, unread, call))
    }
}

#[derive(Debug)]
struct LineParser<R> {
    receiver: R,
    decoder: LineDecoder,
}

impl<R: LineReceiver> LineParser<R> {
    fn with<T>(
        &mut self,
        t: &mut Transport<'_>,
        unread: Unread<'_>,
        call: impl FnOnce(&mut R, &mut LineTransport<'_>) -> T,
    ) -> (T, Touched) {
        let (decoder, touched) = (&mut self.decoder, Touched::default());
        let mut t = LineTransport { transport: t.reborrow(), decoder, unread, touched };
        (call(&mut self.receiver, &mut t), t.touched)
    }

    fn line(
        &mut self,
        t: &mut Transport<'_>,
        frame: Frame,
        unread: Unread<'_>,
        taken: &mut usize,
    ) -> Result<bool, BoxError> {
        let (line, rest) = (&unread.front[frame.payload], unread.after(frame.len));
        *taken += frame.len;
        let (outcome, touched) = self.with(t, rest, |r, t| r.line_received(t, line));
        *taken += if touched.cleared { rest.len() } else { 0 };
        outcome.map(|()| true)
    }

    fn raw(
        &mut self,
        t: &mut Transport<'_>,
        len: usize,
        unread: Unread<'_>,
        taken: &mut usize,
    ) -> Result<bool, BoxError> {
        let (data, rest) = (&unread.front[..len], unread.after(len));
        *taken += len;
        let (outcome, touched) = self.with(t, rest, |r, t| r.raw_data_received(t, data));
        *taken += if touched.cleared { rest.len() } else { 0 };
        outcome.map(|_| true)
    }

    /// Here the receiver says how much it takes; what it leaves is given again once there is more.
    fn raw_until_switched(
        &mut self,
        t: &mut Transport<'_>,
        unread: Unread<'_>,
        taken: &mut usize,
    ) -> Result<bool, BoxError> {
        let (data, rest) = (unread.front, unread.after(unread.front.len()));
        let (outcome, touched) = self.with(t, rest, |r, t| r.raw_data_received(t, data));
        let n = outcome?.min(data.len());
        *taken += if touched.cleared { unread.len() } else { n };
        let waits = n == 0 && !touched.cleared && self.decoder.raw() == Some(Raw::UntilSwitched);
        let (limit, len) = (self.decoder.limit(), data.len());
        if waits && len > limit {
            return Err(FrameError::TooLong { limit, len }.into());
        }
        Ok(!waits)
    }

    fn too_long(&mut self, t: &mut Transport<'_>, data: &[u8]) -> Result<bool, BoxError> {
        let start = &data[..self.decoder.limit().min(data.len())];
        match self.with(t, Unread::default(), |r, t| r.line_length_exceeded(t, start)).0? {
            OverLong::Close => t.close(),
            OverLong::Discard => self.decoder.discard_line(),
        }
        Ok(true)
    }
}

impl<R: LineReceiver> Parser for LineParser<R> {
    fn step(&mut self, t: &mut Transport<'_>, unread: Unread<'_>, taken: &mut usize) -> Result<bool, BoxError> {
        let raw = self.decoder.raw();
        match (self.decoder.decode(unread.front), raw) {
            (Ok(Decoded::Frame(frame)), None) => self.line(t, frame, unread, taken),
            (Ok(Decoded::Frame(frame)), Some(Raw::Bytes(_))) => self.raw(t, frame.len, unread, taken),
            (Ok(Decoded::Frame(_)), Some(Raw::UntilSwitched)) => self.raw_until_switched(t, unread, taken),
            (Ok(Decoded::Skip(n)), _) => {
                *taken += n;
                Ok(true)
            }
            (Ok(Decoded::More), _) => Ok(false),
            (Err(FrameError::LineTooLong(_)), _) => self.too_long(t, unread.front),
            (Err(e), _) => Err(e.into()),
        }
    }

    fn mid_frame(&self) -> bool {
        self.decoder.mid_frame()
    }

    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> Result<Eof, BoxError> {
        let part = if self.decoder.is_discarding() { &[] } else { part };
        self.with(t, Unread::default(), |r, t| r.eof_received(t, part)).0
    }
}

impl<R: LineReceiver> Protocol for Lines<R> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, |r, t| r.connection_made(t))
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.framed.data_received(t, data)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> Result<Eof, BoxError> {
        self.framed.eof_received(t)
    }

    fn pause_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, |r, t| r.pause_writing(t))
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, |r, t| r.resume_writing(t))
    }

    fn reading_resumed(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.framed.reading_resumed(t)
    }

    fn timer(&mut self, t: &mut Transport<'_>, id: TimerId) -> HandlerResult {
        self.call(t, |r, t| r.timer(t, id))
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.call(t, |r, t| r.message(t, message))
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, |r, t| r.shutting_down(t))
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.framed.parser.receiver.connection_lost(cx, why);
    }
}
