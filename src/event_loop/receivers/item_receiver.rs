//! [`ItemReceiver`]: a protocol of parsed items.

use std::any::Any;

use crate::error::HandlerResult;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::receivers::framed::{Arrived, Callback, Framed, FramedTransport, Parser, Touched};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::Eof;
use crate::event_loop::state::transport::Transport;
use crate::framing::{self, FrameError};

/// A protocol of items, that a [`Parser`](framing::Parser) makes of the bytes; [`items`] makes a
/// [`Protocol`](crate::Protocol) of it.
///
/// Items come one by one, in order, and none once the connection is closing. While reading is paused, the input is kept,
/// and its items come when reading is resumed.
///
/// ```
/// use socketserver::event_loop::{items, FramedTransport, ItemReceiver};
/// use socketserver::framing::{FrameError, Parser};
/// use socketserver::testing::TestLoop;
/// use socketserver::HandlerResult;
///
/// /// Numbers of two bytes.
/// struct Numbers;
///
/// impl Parser for Numbers {
///     type Item = u16;
///
///     fn parse(&mut self, unread: &[u8]) -> Result<Option<(u16, usize)>, FrameError> {
///         let Some(&[high, low]) = unread.get(..2) else { return Ok(None) };
///         Ok(Some((u16::from_be_bytes([high, low]), 2)))
///     }
/// }
///
/// struct Sum(u16);
///
/// impl ItemReceiver<Numbers> for Sum {
///     fn item_received(
///         &mut self,
///         t: &mut FramedTransport<'_, Numbers>,
///         number: u16,
///     ) -> HandlerResult {
///         self.0 += number;
///         t.send_line(self.0.to_string())
///     }
/// }
///
/// let mut test = TestLoop::new()?;
/// let client = test.connect(items(Numbers, Sum(0)));
/// test.feed(client, &[0, 1, 1]);
/// test.feed(client, &[0]);
/// assert_eq!(test.output(client), b"1\n257\n");
/// # Ok::<(), socketserver::Error>(())
/// ```
pub trait ItemReceiver<P: framing::Parser> {
    /// Called first: the connection is open, and nothing has been read.
    ///
    /// # Errors
    /// Here and in the other methods: whatever the receiver likes. It ends the connection, and input that has arrived
    /// is dropped.
    fn connection_made(&mut self, t: &mut FramedTransport<'_, P>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// Called with an item.
    ///
    /// # Errors
    /// As above.
    fn item_received(&mut self, t: &mut FramedTransport<'_, P>, item: P::Item) -> HandlerResult;

    /// Called once if the parser refuses the input: an answer may still be written. Then the connection closes.
    ///
    /// # Errors
    /// As above.
    fn malformed(&mut self, t: &mut FramedTransport<'_, P>, why: &FrameError) -> HandlerResult {
        let _ = (t, why);
        Ok(())
    }

    /// Called when the peer sends no more. `partial` is the input after the last item.
    ///
    /// # Errors
    /// As above.
    fn eof_received(&mut self, t: &mut FramedTransport<'_, P>, partial: &[u8]) -> HandlerResult<Eof> {
        let _ = (t, partial);
        Ok(Eof::Close)
    }

    /// As [`Protocol::pause_writing`](crate::Protocol::pause_writing).
    ///
    /// # Errors
    /// As above.
    fn pause_writing(&mut self, t: &mut FramedTransport<'_, P>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::resume_writing`](crate::Protocol::resume_writing).
    ///
    /// # Errors
    /// As above.
    fn resume_writing(&mut self, t: &mut FramedTransport<'_, P>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::transfer_complete`](crate::Protocol::transfer_complete).
    ///
    /// # Errors
    /// As above.
    fn transfer_complete(&mut self, t: &mut FramedTransport<'_, P>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::timer`](crate::Protocol::timer).
    ///
    /// # Errors
    /// As above.
    fn timer(&mut self, t: &mut FramedTransport<'_, P>, id: TimerId) -> HandlerResult {
        let _ = (t, id);
        Ok(())
    }

    /// As [`Protocol::message`](crate::Protocol::message).
    ///
    /// # Errors
    /// As above.
    fn message(&mut self, t: &mut FramedTransport<'_, P>, message: Box<dyn Any>) -> HandlerResult {
        let _ = (t, message);
        Ok(())
    }

    /// As [`Protocol::shutting_down`](crate::Protocol::shutting_down).
    ///
    /// # Errors
    /// As above.
    fn shutting_down(&mut self, t: &mut FramedTransport<'_, P>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::connection_lost`](crate::Protocol::connection_lost).
    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        let _ = (cx, why);
    }
}

/// Makes a [`Protocol`](crate::Protocol) of a parser and an [`ItemReceiver`].
pub fn items<P: framing::Parser, R: ItemReceiver<P>>(parser: P, receiver: R) -> Items<P, R> {
    Framed::new(ItemParser { parser, receiver })
}

/// The protocol that [`items`] makes. It keeps the part of an item only, and has no buffer otherwise.
pub type Items<P, R> = Framed<ItemParser<P, R>>;

/// Parses the items, and calls their receiver.
#[derive(Debug)]
pub struct ItemParser<P, R> {
    parser: P,
    receiver: R,
}

impl<P: framing::Parser, R: ItemReceiver<P>> ItemParser<P, R> {
    fn with<T>(
        &mut self,
        t: &mut Transport<'_>,
        unread: Arrived<'_>,
        call: impl FnOnce(&mut R, &mut FramedTransport<'_, P>) -> T,
    ) -> T {
        let (transport, framing, touched) = (t.reborrow(), &mut self.parser, Touched::default());
        call(&mut self.receiver, &mut FramedTransport { transport, framing, unread, touched })
    }
}

impl<P: framing::Parser, R: ItemReceiver<P>> Parser for ItemParser<P, R> {
    fn step(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, taken: &mut usize) -> HandlerResult<bool> {
        match self.parser.parse(unread.front) {
            Ok(Some((item, len))) => {
                let len = len.min(unread.front.len());
                *taken += len;
                self.with(t, unread.after(len), |r, t| r.item_received(t, item))?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(why) => {
                self.with(t, unread, |r, t| r.malformed(t, &why))?;
                Err(why.into())
            }
        }
    }

    fn mid_frame(&self) -> bool {
        false
    }

    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> HandlerResult<Eof> {
        self.with(t, Arrived::default(), |r, t| r.eof_received(t, part))
    }

    fn call(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, callback: Callback) -> (HandlerResult, Touched) {
        let outcome = self.with(t, unread, |r, t| match callback {
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
