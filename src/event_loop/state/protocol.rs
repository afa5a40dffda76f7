//! [`Protocol`], which a user writes: the callbacks of one connection.

use std::any::Any;

use crate::error::HandlerResult;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::transport::Transport;

/// What follows the end of the peer's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Eof {
    /// The connection sends what is written, and closes. The default.
    #[default]
    Close,
    /// The connection stays open for writing, until the protocol closes it.
    KeepOpen,
}

/// One connection's side of a conversation: a value for each connection, made by a
/// [`Factory`](crate::event_loop::Factory).
///
/// The loop calls the methods; only [`data_received`](Self::data_received) is required. Each is lent the
/// [`Transport`], to write, to close, and to reach other connections. None may block, because all connections of the
/// loop wait for it. For what takes time use a timer, [`Context::blocking`], or a thread that comes back by
/// [`ReactorHandle::call_from_thread`](crate::event_loop::ReactorHandle::call_from_thread).
/// [The guide](crate::guide::event_loop) has the order of things.
///
/// | callback | when | afterwards |
/// |---|---|---|
/// | `connection_made` | once, first | the connection is read from, unless it was paused or closed |
/// | `data_received` | with each read, at most 64 KiB at a time; never empty, never after `close` | what was written is sent, in one system call |
/// | `eof_received` | once, when the peer has ended its stream and all data was delivered | as the returned [`Eof`] says |
/// | `pause_writing` | the output queue has risen above the high-water mark (64 KiB) | reading pauses too, until the queue falls |
/// | `resume_writing` | it has fallen to the low-water mark (16 KiB) | |
/// | `transfer_complete` | a reader or a file has been sent | |
/// | `reading_resumed` | reading goes on after `pause_reading`: process data that the protocol has kept | |
/// | `timer` | a timer of this connection is due | |
/// | `message` | one was [posted](Context::post) to this connection | |
/// | `shutting_down` | the loop drains: once | an idle connection is closed, any other when it becomes idle |
/// | `connection_lost` | once, last, whatever ended the connection | the protocol is dropped |
///
/// No callback is called from within another: what a protocol does to a connection takes effect after it has returned.
/// An error or a panic in a callback ends this connection only. What was written is sent, the connection closes, and
/// [`connection_lost`](Self::connection_lost) says why.
///
/// ```
/// use socketserver::{HandlerResult, Protocol, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         transport.write(data)?;
///         Ok(())
///     }
/// }
/// ```
#[allow(unused_variables)] // the names are for the documentation
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no protocol",
    label = "not a `Protocol`",
    note = "`lines(MyReceiver::new())` makes a protocol of a `LineReceiver`, and `strings(...)` of a `StringReceiver`"
)]
pub trait Protocol {
    /// Called first: the connection is open. A server that speaks first does it here.
    ///
    /// # Errors
    /// Whatever the protocol likes; so in all callbacks.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called with data, which is lent for the call. The peer's writes do not arrive as they were cut.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult;

    /// Called when the peer has ended its stream. It may still read, as `nc -N` does. By default the connection sends
    /// what is written, and closes.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn eof_received(&mut self, transport: &mut Transport<'_>) -> HandlerResult<Eof> {
        Ok(Eof::Close)
    }

    /// Called when more than the high-water mark is queued. A protocol that produces output of its own accord stops
    /// here. It goes on at [`resume_writing`](Self::resume_writing), which follows at once if the kernel takes all.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called when the queue has fallen to the low-water mark: go on.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called once for each [`Transport::send_reader`] and [`send_file`](Transport::send_file), when the kernel has
    /// taken it to its end. After [`close`](Transport::close) it is not called; only
    /// [`connection_lost`](Self::connection_lost) follows.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn transfer_complete(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called when reading goes on after [`Transport::pause_reading`]. A protocol that has kept data processes it here.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn reading_resumed(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called when a timer of [`Transport::set_timer`] is due.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn timer(&mut self, transport: &mut Transport<'_>, timer: TimerId) -> HandlerResult {
        Ok(())
    }

    /// Called when a message was [posted](Context::post) to this connection.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn message(&mut self, transport: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        Ok(())
    }

    /// Called when the loop drains: say good-bye, or end what is under way. The connection closes when it is idle:
    /// nothing is queued, reading is not paused, and no [request](Transport::request_begins) is in progress.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn shutting_down(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called once, last: the connection is gone. It has left its groups, its timers are cancelled, and its id is not
    /// valid any more. A panic here is contained and logged.
    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {}
}

impl<P: Protocol + ?Sized> Protocol for Box<P> {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).connection_made(transport)
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        (**self).data_received(transport, data)
    }

    fn eof_received(&mut self, transport: &mut Transport<'_>) -> HandlerResult<Eof> {
        (**self).eof_received(transport)
    }

    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).pause_writing(transport)
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).resume_writing(transport)
    }

    fn transfer_complete(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).transfer_complete(transport)
    }

    fn reading_resumed(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).reading_resumed(transport)
    }

    fn timer(&mut self, transport: &mut Transport<'_>, timer: TimerId) -> HandlerResult {
        (**self).timer(transport, timer)
    }

    fn message(&mut self, transport: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        (**self).message(transport, message)
    }

    fn shutting_down(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        (**self).shutting_down(transport)
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        (**self).connection_lost(cx, why);
    }
}
