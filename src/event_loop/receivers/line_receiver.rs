//! [`LineReceiver`], as Twisted has it: a protocol of lines, with raw bytes between them.

use std::any::Any;

use crate::error::HandlerResult;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::receivers::framed::FramedTransport;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::Eof;
use crate::framing::{Decoder, LineDecoder, LineEnd, OverLong, Raw};

/// The transport of a [`LineReceiver`]: a [`FramedTransport`] of lines.
pub type LineTransport<'a> = FramedTransport<'a>;

/// A protocol of lines; [`lines`](crate::lines) makes a [`Protocol`](crate::Protocol) of it.
///
/// A line is lent for the call, without its end. Lines come one by one, in order, and none once the connection is
/// closing. While reading is paused they are kept, and come when it is resumed. A setting made on the
/// [`LineTransport`] holds from the next line on, also for input that has arrived already.
pub trait LineReceiver {
    /// Called first: the connection is open, and nothing has been read.
    ///
    /// # Errors
    /// Here and in the other methods: whatever the receiver likes. It ends the connection, and input that has arrived
    /// is dropped.
    fn connection_made(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// Called with a line, without its end.
    ///
    /// # Errors
    /// As above.
    fn line_received(&mut self, t: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult;

    /// Called with raw bytes, at least one. Returns how many of them were taken.
    ///
    /// With [`Raw::Bytes`] all are taken, whatever is returned. With [`Raw::UntilSwitched`], the rest is kept. It comes
    /// again when more has arrived, or is parsed as lines after [`set_line_mode`](FramedTransport::set_line_mode). A
    /// receiver that takes nothing of more bytes than the line limit ends the connection with an error.
    ///
    /// # Errors
    /// As above.
    fn raw_data_received(&mut self, t: &mut LineTransport<'_>, data: &[u8]) -> HandlerResult<usize> {
        let _ = t;
        Ok(data.len())
    }

    /// Called once for a line that is too long, with its beginning: as many bytes as the limit. No part of it ever
    /// comes as a line. Returns what to do with it; by default, what `over_long` of
    /// [`Lines`](crate::event_loop::Lines) says.
    ///
    /// # Errors
    /// As above.
    fn line_length_exceeded(&mut self, t: &mut LineTransport<'_>, start: &[u8]) -> HandlerResult<OverLong> {
        let _ = start;
        Ok(t.over_long())
    }

    /// Called when the peer sends no more. `partial` is the input after the last line: it was cut off, so it is no
    /// line.
    ///
    /// # Errors
    /// As above.
    fn eof_received(&mut self, t: &mut LineTransport<'_>, partial: &[u8]) -> HandlerResult<Eof> {
        let _ = (t, partial);
        Ok(Eof::Close)
    }

    /// As [`Protocol::pause_writing`](crate::Protocol::pause_writing).
    ///
    /// # Errors
    /// As above.
    fn pause_writing(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::resume_writing`](crate::Protocol::resume_writing).
    ///
    /// # Errors
    /// As above.
    fn resume_writing(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::transfer_complete`](crate::Protocol::transfer_complete).
    ///
    /// # Errors
    /// As above.
    fn transfer_complete(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::timer`](crate::Protocol::timer).
    ///
    /// # Errors
    /// As above.
    fn timer(&mut self, t: &mut LineTransport<'_>, id: TimerId) -> HandlerResult {
        let _ = (t, id);
        Ok(())
    }

    /// As [`Protocol::message`](crate::Protocol::message).
    ///
    /// # Errors
    /// As above.
    fn message(&mut self, t: &mut LineTransport<'_>, message: Box<dyn Any>) -> HandlerResult {
        let _ = (t, message);
        Ok(())
    }

    /// As [`Protocol::shutting_down`](crate::Protocol::shutting_down).
    ///
    /// # Errors
    /// As above.
    fn shutting_down(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        let _ = t;
        Ok(())
    }

    /// As [`Protocol::connection_lost`](crate::Protocol::connection_lost).
    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        let _ = (cx, why);
    }
}

impl FramedTransport<'_, LineDecoder> {
    /// Sends a line: the text, and the line end.
    ///
    /// # Errors
    /// [`FrameError::Unencodable`](crate::framing::FrameError::Unencodable) if the text contains a line end: the peer
    /// would read other lines. Then nothing is sent. Otherwise as [`Transport::write`](crate::Transport::write).
    pub fn send_line(&mut self, text: impl AsRef<[u8]>) -> HandlerResult {
        self.send_frame(text.as_ref())
    }

    /// Sends a line to another connection, with this one's line end. Otherwise as
    /// [`Context::write_to`](crate::Context::write_to).
    ///
    /// # Errors
    /// If the text contains a line end, as for [`send_line`](Self::send_line).
    pub fn send_line_to(&mut self, id: ConnId, text: impl AsRef<[u8]>) -> HandlerResult<bool> {
        let line = self.framed(text.as_ref())?;
        Ok(self.transport.write_to(id, &line))
    }

    /// Sends a line to all members of a group, with this connection's line end. Otherwise as
    /// [`Context::broadcast`](crate::Context::broadcast).
    ///
    /// # Errors
    /// If the text contains a line end, as for [`send_line`](Self::send_line).
    pub fn broadcast_line(
        &mut self,
        group: Group,
        text: impl AsRef<[u8]>,
        except: Option<ConnId>,
    ) -> HandlerResult<usize> {
        let line = self.framed(text.as_ref())?;
        Ok(self.transport.broadcast(group, &line, except))
    }

    /// Reads the following input as raw bytes, see [`LineReceiver::raw_data_received`].
    pub fn set_raw_mode(&mut self, raw: Raw) {
        self.framing.set_raw_mode(raw);
        self.touched.changed = true;
    }

    /// Reads the following input as lines.
    pub fn set_line_mode(&mut self) {
        self.framing.set_line_mode();
        self.touched.changed = true;
    }

    /// Sets another line end, for reading and sending.
    pub fn set_delimiter(&mut self, end: LineEnd) {
        self.framing.set_line_end(end);
        self.touched.changed = true;
    }

    /// Sets another limit for the bytes of a line, without its end.
    pub fn set_max_length(&mut self, bytes: usize) {
        self.framing.set_max_length(bytes);
        self.touched.changed = true;
    }

    /// True if raw bytes come next. At the end of the stream, with [`Raw::Bytes`], it means that not all have come.
    pub fn is_raw(&self) -> bool {
        self.framing.is_raw()
    }

    /// Returns what happens to lines over the limit.
    pub fn over_long(&self) -> OverLong {
        self.framing.policy()
    }

    /// Takes the input that has arrived after the current line or raw bytes. The receiver does not get it any more.
    /// Before an upgrade to an encrypted stream, there should be none.
    pub fn clear_line_buffer(&mut self) -> Vec<u8> {
        let unread = std::mem::take(&mut self.unread);
        self.touched.cleared = true;
        self.framing.reset();
        [unread.front, unread.later].concat()
    }
}
