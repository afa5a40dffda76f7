//! The protocol that calls a [`LineReceiver`].

use std::any::Any;

use super::framed::{pass_on, Framed, Parser, Touched, Unread};
use super::line_receiver::{LineReceiver, LineTransport};
use super::{BoxError, Context, Eof, Lost, Protocol, TimerId, Transport};
use crate::error::HandlerResult;
use crate::framing::{Decoded, Decoder, Frame, FrameError, LineDecoder, LineEnd, LineTooLong, OverLong, Raw};

/// Makes a [`Protocol`] of a [`LineReceiver`]: with `\n` or `\r\n` as line end, as many bytes in a line as the server
/// [allows](crate::ServerBuilder::max_line_length) (64 KiB), and an end of the connection with
/// [`LineTooLong`] for longer ones, unless set otherwise.
pub fn lines<R: LineReceiver>(receiver: R) -> Lines<R> {
    let parser = LineParser { receiver, decoder: LineDecoder::default() };
    Lines { framed: Framed::new(parser), has_own_limit: false }
}

/// What [`lines`] makes. It keeps an unfinished line only, and has no buffer otherwise.
#[derive(Debug)]
pub struct Lines<R> {
    framed: Framed<LineParser<R>>,
    has_own_limit: bool,
}

impl<R: LineReceiver> Lines<R> {
    /// What ends a line. Defaults to [`LineEnd::Newline`].
    #[must_use]
    pub fn delimiter(mut self, end: LineEnd) -> Self {
        self.framed.parser.decoder.set_line_end(end);
        self
    }

    /// The most bytes in a line, its end not counted. Defaults to the server's limit.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.has_own_limit = true;
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

    fn too_long(&mut self, t: &mut Transport<'_>, data: &[u8], why: LineTooLong) -> Result<bool, BoxError> {
        let start = &data[..self.decoder.limit().min(data.len())];
        match self.with(t, Unread::default(), |r, t| r.line_length_exceeded(t, start)).0? {
            OverLong::Close => Err(why.into()), // counted and logged as a failure, which a plain close is not
            OverLong::Discard => {
                self.decoder.discard_line();
                Ok(true)
            }
        }
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
            (Err(FrameError::LineTooLong(why)), _) => self.too_long(t, unread.front, why),
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
        if !self.has_own_limit {
            self.framed.parser.decoder.set_max_length(t.max_line_length());
        }
        self.call(t, |r, t| r.connection_made(t))
    }

    pass_on!();
}
