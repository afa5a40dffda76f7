//! [`StringReceiver`], as Twisted's `NetstringReceiver` and `IntNStringReceiver`: a protocol of strings in any framing.

use std::any::Any;

use crate::error::HandlerResult;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::receivers::framed::{Arrived, Callback, Framed, FramedTransport, Parser, Touched};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::Eof;
use crate::event_loop::state::transport::Transport;
use crate::framing::{Decoded, Decoder, Encoder, FrameError, LineTooLong};

/// A protocol of strings; [`strings`] makes a [`Protocol`](crate::Protocol) of it.
///
/// Strings come one by one, in order, each once, and none once the connection is closing. While reading is paused
/// they are kept, and come when it is resumed.
pub trait StringReceiver {
    /// Called first: the connection is open, and nothing has been read.
    ///
    /// # Errors
    /// Here and in the other methods: whatever the receiver likes. It ends the connection, and input that has arrived
    /// is dropped.
    fn connection_made(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// Called with a string, which is lent for the call.
    ///
    /// # Errors
    /// As above.
    fn string_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, string: &[u8]) -> HandlerResult;

    /// Called once for a string over the limit, as soon as that is known; `len` is its length so far. Then the
    /// connection closes, unless the decoder can skip the string.
    ///
    /// # Errors
    /// As above.
    fn length_limit_exceeded(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, len: usize) -> HandlerResult {
        let _ = (t, len);
        Ok(())
    }

    /// Called once if the input is no string in this framing. Then the connection closes.
    ///
    /// # Errors
    /// As above.
    fn malformed(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, why: &FrameError) -> HandlerResult {
        let _ = (t, why);
        Ok(())
    }

    /// Called when the peer sends no more. `partial` is the input after the last string.
    ///
    /// # Errors
    /// As above.
    fn eof_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, partial: &[u8]) -> HandlerResult<Eof> {
        let _ = (t, partial);
        Ok(Eof::Close)
    }

    /// As [`Protocol::pause_writing`](crate::Protocol::pause_writing).
    ///
    /// # Errors
    /// As above.
    fn pause_writing(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::resume_writing`](crate::Protocol::resume_writing).
    ///
    /// # Errors
    /// As above.
    fn resume_writing(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::transfer_complete`](crate::Protocol::transfer_complete).
    ///
    /// # Errors
    /// As above.
    fn transfer_complete(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::timer`](crate::Protocol::timer).
    ///
    /// # Errors
    /// As above.
    fn timer(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, id: TimerId) -> HandlerResult {
        let _ = (t, id);
        Ok(())
    }

    /// As [`Protocol::message`](crate::Protocol::message).
    ///
    /// # Errors
    /// As above.
    fn message(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, message: Box<dyn Any>) -> HandlerResult {
        let _ = (t, message);
        Ok(())
    }

    /// As [`Protocol::shutting_down`](crate::Protocol::shutting_down).
    ///
    /// # Errors
    /// As above.
    fn shutting_down(&mut self, t: &mut FramedTransport<'_, dyn Encoder>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::connection_lost`](crate::Protocol::connection_lost).
    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        let _ = (cx, why);
    }
}

/// Makes a [`Protocol`](crate::Protocol) of a [`StringReceiver`] and a framing:
/// [`Netstrings`](crate::framing::Netstrings), [`LengthPrefixed`](crate::framing::LengthPrefixed), or any other that is
/// both a decoder and an encoder.
pub fn strings<D: Decoder + Encoder, R: StringReceiver>(framing: D, receiver: R) -> Strings<D, R> {
    Framed::new(StringParser { receiver, framing, refused: false })
}

/// The protocol that [`strings`] makes. It keeps an unfinished string only, and has no buffer otherwise.
pub type Strings<D, R> = Framed<StringParser<D, R>>;

/// Finds the strings, and calls their receiver.
#[derive(Debug)]
pub struct StringParser<D, R> {
    receiver: R,
    framing: D,
    /// True if the last result was an error. After a second one in a row, the decoder cannot skip the string.
    refused: bool,
}

impl<D: Decoder + Encoder, R: StringReceiver> StringParser<D, R> {
    fn with<T>(
        &mut self,
        t: &mut Transport<'_>,
        call: impl FnOnce(&mut R, &mut FramedTransport<'_, dyn Encoder>) -> T,
    ) -> T {
        let framing: &mut dyn Encoder = &mut self.framing;
        let (unread, touched) = (Arrived::default(), Touched::default());
        call(&mut self.receiver, &mut FramedTransport { transport: t.reborrow(), framing, unread, touched })
    }

    fn refuse(&mut self, t: &mut Transport<'_>, why: FrameError) -> HandlerResult {
        self.with(t, |r, t| match &why {
            FrameError::TooLong { len, .. } | FrameError::LineTooLong(LineTooLong { len, .. }) => {
                r.length_limit_exceeded(t, *len)
            }
            why => r.malformed(t, why),
        })?;
        if self.framing.mid_frame() && !std::mem::replace(&mut self.refused, true) {
            return Ok(()); // the decoder skips the string
        }
        Err(why.into())
    }
}

impl<D: Decoder + Encoder, R: StringReceiver> Parser for StringParser<D, R> {
    fn step(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, taken: &mut usize) -> HandlerResult<bool> {
        let decoded = self.framing.decode(unread.front);
        self.refused &= decoded.is_err();
        match decoded {
            Ok(Decoded::Frame(frame)) => {
                *taken += frame.len;
                let string = &unread.front[frame.payload];
                self.with(t, |r, t| r.string_received(t, string))?;
            }
            Ok(Decoded::Skip(n)) => *taken += n,
            Ok(Decoded::More) => return Ok(false),
            Err(why) => self.refuse(t, why)?,
        }
        Ok(true)
    }

    fn mid_frame(&self) -> bool {
        self.framing.mid_frame()
    }

    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> HandlerResult<Eof> {
        self.with(t, |r, t| r.eof_received(t, part))
    }

    fn call(&mut self, t: &mut Transport<'_>, _unread: Arrived<'_>, callback: Callback) -> (HandlerResult, Touched) {
        let outcome = self.with(t, |r, t| match callback {
            Callback::ConnectionMade => r.connection_made(t),
            Callback::PauseWriting => r.pause_writing(t),
            Callback::ResumeWriting => r.resume_writing(t),
            Callback::TransferComplete => r.transfer_complete(t),
            Callback::Timer(id) => r.timer(t, id),
            Callback::Message(message) => r.message(t, message),
            Callback::ShuttingDown => r.shutting_down(t),
        });
        (outcome, Touched::default())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.receiver.connection_lost(cx, why);
    }
}
