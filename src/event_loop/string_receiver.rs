//! Twisted's `NetstringReceiver` and `IntNStringReceiver`: a protocol of strings, in any framing.

use std::any::Any;
use std::ops::{Deref, DerefMut};

use super::framed::{pass_on, Framed, Parser, Touched, Unread};
use super::{BoxError, Context, Eof, Lost, Protocol, TimerId, Transport};
use crate::error::HandlerResult;
use crate::framing::{Decoded, Decoder, Encoder, FrameError, LineTooLong};

/// A protocol of strings; [`strings`] makes a [`Protocol`] of it.
///
/// Strings are given one by one, in order, each once, and none once the connection is closing. While reading is paused
/// they are kept, and given when it is resumed.
pub trait StringReceiver {
    /// The connection is there; nothing has been read.
    ///
    /// # Errors
    /// Here and in the other methods: whatever the receiver likes. It ends the connection, and what had arrived is
    /// given no more.
    fn connection_made(&mut self, t: &mut StringTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// A string, lent for the call.
    ///
    /// # Errors
    /// As above.
    fn string_received(&mut self, t: &mut StringTransport<'_>, string: &[u8]) -> HandlerResult;

    /// A string is over the limit, with `len` bytes as far as is known. Told once, as soon as that shows; then the
    /// connection is closed, unless the decoder has a way past it.
    ///
    /// # Errors
    /// As above.
    fn length_limit_exceeded(&mut self, t: &mut StringTransport<'_>, len: usize) -> HandlerResult {
        let _ = (t, len);
        Ok(())
    }

    /// What has arrived is no string in this framing. Told once; then the connection is closed.
    ///
    /// # Errors
    /// As above.
    fn malformed(&mut self, t: &mut StringTransport<'_>, why: &FrameError) -> HandlerResult {
        let _ = (t, why);
        Ok(())
    }

    /// The peer sends no more. `partial` is what follows the last string.
    ///
    /// # Errors
    /// As above.
    fn eof_received(&mut self, t: &mut StringTransport<'_>, partial: &[u8]) -> Result<Eof, BoxError> {
        let _ = (t, partial);
        Ok(Eof::Close)
    }

    /// As [`Protocol::pause_writing`].
    ///
    /// # Errors
    /// As above.
    fn pause_writing(&mut self, t: &mut StringTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::resume_writing`].
    ///
    /// # Errors
    /// As above.
    fn resume_writing(&mut self, t: &mut StringTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::transfer_complete`].
    ///
    /// # Errors
    /// As above.
    fn transfer_complete(&mut self, t: &mut StringTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::timer`].
    ///
    /// # Errors
    /// As above.
    fn timer(&mut self, t: &mut StringTransport<'_>, id: TimerId) -> HandlerResult {
        let _ = (t, id);
        Ok(())
    }

    /// As [`Protocol::message`].
    ///
    /// # Errors
    /// As above.
    fn message(&mut self, t: &mut StringTransport<'_>, message: Box<dyn Any>) -> HandlerResult {
        let _ = (t, message);
        Ok(())
    }

    /// As [`Protocol::shutting_down`].
    ///
    /// # Errors
    /// As above.
    fn shutting_down(&mut self, t: &mut StringTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::connection_lost`].
    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        let _ = (cx, why);
    }
}

/// The transport of a [`StringReceiver`]: a [`Transport`] that sends strings.
pub struct StringTransport<'a> {
    transport: Transport<'a>,
    encoder: &'a dyn Encoder,
}

impl StringTransport<'_> {
    /// Sends a string, framed.
    ///
    /// # Errors
    /// The framing cannot say it, as it is too long for the prefix: nothing is sent. Else as [`Transport::write`].
    pub fn send_string(&mut self, string: impl AsRef<[u8]>) -> HandlerResult {
        let mut frame = Vec::with_capacity(string.as_ref().len() + 4);
        self.encoder.encode(string.as_ref(), &mut frame)?;
        self.transport.write(&frame)?;
        Ok(())
    }
}

impl<'a> Deref for StringTransport<'a> {
    type Target = Transport<'a>;

    fn deref(&self) -> &Transport<'a> {
        &self.transport
    }
}

impl<'a> DerefMut for StringTransport<'a> {
    fn deref_mut(&mut self) -> &mut Transport<'a> {
        &mut self.transport
    }
}

/// Makes a [`Protocol`] of a [`StringReceiver`] and a framing:
/// [`Netstrings`](crate::framing::Netstrings), [`LengthPrefixed`](crate::framing::LengthPrefixed), or any other that
/// reads and sends.
pub fn strings<D: Decoder + Encoder, R: StringReceiver>(framing: D, receiver: R) -> Strings<D, R> {
    Strings { framed: Framed::new(StringParser { receiver, framing, refused: false }) }
}

/// What [`strings`] makes. It keeps an unfinished string only, and has no buffer otherwise.
#[derive(Debug)]
pub struct Strings<D, R> {
    framed: Framed<StringParser<D, R>>,
}

#[derive(Debug)]
struct StringParser<D, R> {
    receiver: R,
    framing: D,
    /// Whether the last thing decoded was an error: a second one in a row is no way past it.
    refused: bool,
}

impl<D: Decoder + Encoder, R: StringReceiver> StringParser<D, R> {
    fn with<T>(&mut self, t: &mut Transport<'_>, call: impl FnOnce(&mut R, &mut StringTransport<'_>) -> T) -> T {
        call(&mut self.receiver, &mut StringTransport { transport: t.reborrow(), encoder: &self.framing })
    }

    fn refuse(&mut self, t: &mut Transport<'_>, why: FrameError) -> HandlerResult {
        self.with(t, |r, t| match &why {
            FrameError::TooLong { len, .. } | FrameError::LineTooLong(LineTooLong { len, .. }) => {
                r.length_limit_exceeded(t, *len)
            }
            why => r.malformed(t, why),
        })?;
        if self.framing.mid_frame() && !std::mem::replace(&mut self.refused, true) {
            return Ok(()); // it knows a way past it
        }
        Err(why.into())
    }
}

impl<D: Decoder + Encoder, R: StringReceiver> Parser for StringParser<D, R> {
    fn step(&mut self, t: &mut Transport<'_>, unread: Unread<'_>, taken: &mut usize) -> Result<bool, BoxError> {
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

    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> Result<Eof, BoxError> {
        self.with(t, |r, t| r.eof_received(t, part))
    }
}

impl<D: Decoder + Encoder, R: StringReceiver> Strings<D, R> {
    fn call(
        &mut self,
        t: &mut Transport<'_>,
        call: impl FnOnce(&mut R, &mut StringTransport<'_>) -> HandlerResult,
    ) -> HandlerResult {
        self.framed.call(t, |parser, t, _| (parser.with(t, call), Touched::default()))
    }
}

impl<D: Decoder + Encoder, R: StringReceiver> Protocol for Strings<D, R> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, |r, t| r.connection_made(t))
    }

    pass_on!();
}
