//! [`lines`]: the protocol that calls a [`LineReceiver`].

use crate::error::HandlerResult;
use crate::event_loop::receivers::framed::{Arrived, Callback, Framed, FramedTransport, Parser, Touched};
use crate::event_loop::receivers::line_receiver::LineReceiver;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::Eof;
use crate::event_loop::state::transport::Transport;
use crate::framing::{Decoded, Decoder, Frame, FrameError, LineDecoder, LineEnd, LineTooLong, OverLong, Raw};

/// Makes a [`Protocol`](crate::Protocol) of a [`LineReceiver`]. By default a line ends with `\n` or `\r\n`, and has at
/// most as many bytes as the server [allows](crate::ServerBuilder::max_line_length) (64 KiB). A longer line ends the
/// connection with [`LineTooLong`].
pub fn lines<R: LineReceiver>(receiver: R) -> Lines<R> {
    Framed::new(LineParser { receiver, decoder: LineDecoder::default(), has_own_limit: false })
}

/// The protocol that [`lines`] makes. It keeps an unfinished line only, and has no buffer otherwise.
pub type Lines<R> = Framed<LineParser<R>>;

impl<R: LineReceiver> Framed<LineParser<R>> {
    /// Sets what ends a line. Defaults to [`LineEnd::Newline`].
    #[must_use]
    pub fn delimiter(mut self, end: LineEnd) -> Self {
        self.parser.decoder.set_line_end(end);
        self
    }

    /// Sets the most bytes in a line, without its end. Defaults to the server's limit.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.parser.has_own_limit = true;
        self.parser.decoder.set_max_length(bytes);
        self
    }

    /// Sets what happens to a longer line, unless the receiver says otherwise. Defaults to [`OverLong::Close`].
    #[must_use]
    pub fn over_long(mut self, policy: OverLong) -> Self {
        self.parser.decoder.set_over_long(policy);
        self
    }
}

/// Finds the lines, and calls their receiver.
#[derive(Debug)]
pub struct LineParser<R> {
    receiver: R,
    decoder: LineDecoder,
    /// True if the receiver has a limit of its own, and not the server's.
    has_own_limit: bool,
}

impl<R: LineReceiver> LineParser<R> {
    fn with<T>(
        &mut self,
        t: &mut Transport<'_>,
        unread: Arrived<'_>,
        call: impl FnOnce(&mut R, &mut FramedTransport<'_>) -> T,
    ) -> (T, Touched) {
        let (framing, touched) = (&mut self.decoder, Touched::default());
        let mut t = FramedTransport { transport: t.reborrow(), framing, unread, touched };
        (call(&mut self.receiver, &mut t), t.touched)
    }

    fn line(
        &mut self,
        t: &mut Transport<'_>,
        frame: Frame,
        unread: Arrived<'_>,
        taken: &mut usize,
    ) -> HandlerResult<bool> {
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
        unread: Arrived<'_>,
        taken: &mut usize,
    ) -> HandlerResult<bool> {
        let (data, rest) = (&unread.front[..len], unread.after(len));
        *taken += len;
        let (outcome, touched) = self.with(t, rest, |r, t| r.raw_data_received(t, data));
        *taken += if touched.cleared { rest.len() } else { 0 };
        outcome.map(|_| true)
    }

    /// Gives raw bytes to the receiver, which says how much it takes. So it need not give a surplus back, perhaps in
    /// the wrong order. The rest comes again once there is more.
    fn raw_until_switched(
        &mut self,
        t: &mut Transport<'_>,
        unread: Arrived<'_>,
        taken: &mut usize,
    ) -> HandlerResult<bool> {
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

    fn too_long(&mut self, t: &mut Transport<'_>, data: &[u8], why: LineTooLong) -> HandlerResult<bool> {
        let start = &data[..self.decoder.limit().min(data.len())];
        match self.with(t, Arrived::default(), |r, t| r.line_length_exceeded(t, start)).0? {
            OverLong::Close => Err(why.into()), // an error is counted and logged as a failure, a plain close is not
            OverLong::Discard => {
                self.decoder.discard_line();
                Ok(true)
            }
        }
    }
}

impl<R: LineReceiver> Parser for LineParser<R> {
    fn step(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, taken: &mut usize) -> HandlerResult<bool> {
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

    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> HandlerResult<Eof> {
        let part = if self.decoder.is_discarding() { &[] } else { part };
        self.with(t, Arrived::default(), |r, t| r.eof_received(t, part)).0
    }

    fn call(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, callback: Callback) -> (HandlerResult, Touched) {
        if matches!(callback, Callback::ConnectionMade) && !self.has_own_limit {
            self.decoder.set_max_length(t.max_line_length());
        }
        self.with(t, unread, |r, t| match callback {
            Callback::ConnectionMade => r.connection_made(t),
            Callback::PauseWriting => r.pause_writing(t),
            Callback::ResumeWriting => r.resume_writing(t),
            Callback::TransferComplete => r.transfer_complete(t),
            Callback::Timer(id) => r.timer(t, id),
            Callback::Message(message) => r.message(t, message),
            Callback::ShuttingDown => r.shutting_down(t),
        })
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.receiver.connection_lost(cx, why);
    }
}
