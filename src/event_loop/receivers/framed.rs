//! Chunks into frames, for protocols: parsed where they lie, and only the unfinished rest is kept.

use std::any::Any;
use std::ops::{Deref, DerefMut};

use crate::error::HandlerResult;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::{Eof, Protocol};
use crate::event_loop::state::transport::Transport;
use crate::framing::{Encoder, FrameBuffer, LineDecoder};

/// Turns bytes into calls of a receiver, and lends it a [`FramedTransport`].
pub trait Parser {
    /// Takes a frame, or a part of one, from the front of what is unread, which is not empty, and counts it in `taken`
    /// before it calls the receiver. `false` where it needs more.
    fn step(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, taken: &mut usize) -> HandlerResult<bool>;

    /// Whether a part of a frame is taken, or announced.
    fn mid_frame(&self) -> bool;

    /// The stream has ended, within a frame if there is a part of one.
    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> HandlerResult<Eof>;

    /// Calls the receiver for what is no input. `unread` is what is kept.
    fn call(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, callback: Callback) -> (HandlerResult, Touched);

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost);
}

/// The callbacks that are a receiver's as they are a protocol's.
#[derive(Debug)]
pub enum Callback {
    ConnectionMade,
    PauseWriting,
    ResumeWriting,
    TransferComplete,
    Timer(TimerId),
    Message(Box<dyn Any>),
    ShuttingDown,
}

/// The transport of a [`LineReceiver`](crate::LineReceiver), or, as `FramedTransport<'_, dyn Encoder>`, of a
/// [`StringReceiver`](crate::event_loop::StringReceiver): a [`Transport`] that sends frames. That of lines also sets how they are read.
#[allow(explicit_outlives_requirements)] // so that `dyn Encoder` in it is `dyn Encoder + 'a`
pub struct FramedTransport<'a, D: ?Sized + 'a = LineDecoder> {
    pub(crate) transport: Transport<'a>,
    pub(crate) framing: &'a mut D,
    pub(crate) unread: Arrived<'a>,
    pub(crate) touched: Touched,
}

impl<'a> FramedTransport<'a, dyn Encoder + 'a> {
    /// Sends a string, framed.
    ///
    /// # Errors
    /// The framing cannot say it, as it is too long for the prefix: nothing is sent. Else as [`Transport::write`].
    pub fn send_string(&mut self, string: impl AsRef<[u8]>) -> HandlerResult {
        self.send_frame(string.as_ref())
    }
}

impl<D: Encoder + ?Sized> FramedTransport<'_, D> {
    pub(crate) fn send_frame(&mut self, payload: &[u8]) -> HandlerResult {
        let frame = self.framed(payload)?;
        self.transport.write(&frame)?;
        Ok(())
    }

    pub(crate) fn framed(&mut self, payload: &[u8]) -> HandlerResult<Vec<u8>> {
        let mut frame = Vec::with_capacity(payload.len() + 4); // a line end, or a prefix
        self.framing.encode(payload, &mut frame)?;
        Ok(frame)
    }
}

impl<'a, D: ?Sized> Deref for FramedTransport<'a, D> {
    type Target = Transport<'a>;

    fn deref(&self) -> &Transport<'a> {
        &self.transport
    }
}

impl<D: ?Sized> DerefMut for FramedTransport<'_, D> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transport
    }
}

/// What has arrived and is not taken: what can be parsed, and what follows it in the chunk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrived<'a> {
    pub(crate) front: &'a [u8],
    pub(crate) later: &'a [u8],
}

impl<'a> Arrived<'a> {
    pub(crate) fn all(front: &'a [u8]) -> Self {
        Self { front, later: &[] }
    }

    pub(crate) fn after(self, n: usize) -> Self {
        Self { front: self.front.get(n..).unwrap_or_default(), later: self.later }
    }

    pub(crate) fn len(self) -> usize {
        self.front.len() + self.later.len()
    }
}

/// What a receiver's callback has done to what the parser works on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Touched {
    /// What was unread is thrown away.
    pub(crate) cleared: bool,
    /// What is kept may parse otherwise than before.
    pub(crate) changed: bool,
}

/// The [`Protocol`] of a receiver: what [`lines`](crate::lines) and [`strings`](crate::event_loop::strings) make. It keeps an unfinished
/// frame, and has no buffer otherwise.
#[derive(Debug)]
pub struct Framed<P> {
    pub(crate) parser: P,
    kept: FrameBuffer,
    /// The stream has ended while reading was paused, and the receiver is still to be told.
    eof_waits: bool,
}

/// At least so much of a chunk is put behind what is kept, in the hope that it completes a frame.
const PIECE: usize = 512;

struct Run {
    taken: usize,
    /// Whether a frame was completed.
    whole: bool,
    outcome: HandlerResult,
}

fn may_parse(t: &Transport<'_>) -> bool {
    t.wants_input()
}

/// Parses until `enough` bytes are taken, more is needed, or the receiver wants no more.
fn run<P: Parser>(parser: &mut P, t: &mut Transport<'_>, unread: Arrived<'_>, enough: usize) -> Run {
    let mut run = Run { taken: 0, whole: false, outcome: Ok(()) };
    while run.taken < enough.min(unread.front.len()) && may_parse(t) {
        match parser.step(t, unread.after(run.taken), &mut run.taken) {
            Ok(true) => run.whole |= !parser.mid_frame(),
            Ok(false) => break,
            Err(e) => {
                run.outcome = Err(e);
                break;
            }
        }
    }
    run
}

impl<P: Parser> Framed<P> {
    pub(crate) const fn new(parser: P) -> Self {
        Self { parser, kept: FrameBuffer::new(usize::MAX), eof_waits: false }
    }

    /// Parses a chunk.
    fn take(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let (begun, mut rest) = (self.holds_input(), data);
        let parsed = self.parse_chunk(t, &mut rest);
        self.keep(t, rest)?;
        let whole = parsed?;
        self.mark_request(t, whole || !begun);
        Ok(())
    }

    /// Calls the receiver, and parses what is kept if the call has made that possible.
    fn call(&mut self, t: &mut Transport<'_>, callback: Callback) -> HandlerResult {
        let paused = t.is_reading_paused();
        let (outcome, touched) = self.parser.call(t, Arrived::all(self.kept.unread()), callback);
        if touched.cleared {
            self.kept.clear();
        }
        if t.is_closing() || t.is_switching() {
            self.keep(t, &[])?;
        }
        outcome?;
        if touched.cleared || touched.changed || (paused && !t.is_reading_paused()) {
            return self.parse_on(t);
        }
        Ok(())
    }

    /// The end of the stream, which the receiver is told after the frames that a pause has kept.
    fn end(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.parse_kept(t)?;
        if t.is_closing() {
            return Ok(Eof::Close);
        }
        if t.is_switching() {
            return Ok(Eof::KeepOpen); // the next protocol is told
        }
        if t.is_reading_paused() {
            self.eof_waits = true;
            return Ok(Eof::KeepOpen);
        }
        self.report_eof(t)
    }

    fn report_eof(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.eof_waits = false;
        let kept = std::mem::replace(&mut self.kept, FrameBuffer::new(usize::MAX));
        self.parser.eof(t, kept.unread())
    }

    fn parse_on(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let whole = self.parse_kept(t)?;
        if self.eof_waits && may_parse(t) {
            if matches!(self.report_eof(t)?, Eof::Close) && !t.is_switching() {
                t.close();
            }
            return Ok(());
        }
        self.mark_request(t, whole);
        Ok(())
    }

    fn parse_kept(&mut self, t: &mut Transport<'_>) -> HandlerResult<bool> {
        let run = run(&mut self.parser, t, Arrived::all(self.kept.unread()), usize::MAX);
        self.kept.consume(run.taken);
        self.keep(t, &[])?;
        run.outcome.map(|()| run.whole)
    }

    /// Parses a chunk, of which `rest` is left.
    fn parse_chunk(&mut self, t: &mut Transport<'_>, rest: &mut &[u8]) -> HandlerResult<bool> {
        let mut whole = false;
        while !self.kept.is_empty() && !rest.is_empty() && may_parse(t) {
            whole |= self.join(t, rest)?;
        }
        if self.kept.is_empty() {
            let run = run(&mut self.parser, t, Arrived::all(rest), usize::MAX);
            *rest = Arrived::all(rest).after(run.taken).front;
            run.outcome?;
            whole |= run.whole;
        }
        Ok(whole)
    }

    /// Puts a piece of the chunk behind what is kept. Once that is parsed, the chunk is parsed where it lies.
    fn join(&mut self, t: &mut Transport<'_>, rest: &mut &[u8]) -> HandlerResult<bool> {
        let old = self.kept.unread().len();
        let (piece, later) = rest.split_at(rest.len().min(old.max(PIECE)));
        self.kept.push(piece)?;
        let run = run(&mut self.parser, t, Arrived { front: self.kept.unread(), later }, old);
        if run.taken >= old {
            self.kept.clear();
            *rest = Arrived::all(rest).after(run.taken - old).front;
        } else {
            self.kept.consume(run.taken);
            *rest = later;
        }
        run.outcome.map(|()| run.whole)
    }

    /// Keeps the rest of a chunk, or nothing when no more will be parsed here.
    fn keep(&mut self, t: &mut Transport<'_>, rest: &[u8]) -> HandlerResult {
        if t.is_closing() {
            if !(rest.is_empty() && self.kept.is_empty()) {
                t.note_unread_input();
            }
            self.kept.clear();
        } else if t.is_switching() {
            t.add_leftover(self.kept.unread());
            t.add_leftover(rest);
            self.kept.clear();
        } else {
            self.kept.push(rest)?;
        }
        Ok(())
    }

    fn holds_input(&self) -> bool {
        !self.kept.is_empty() || self.parser.mid_frame()
    }

    /// Tells the limits whether input is held. `began`: whether it is other input than before.
    fn mark_request(&self, t: &mut Transport<'_>, began: bool) {
        if t.is_closing() || t.is_switching() {
            return;
        }
        if self.holds_input() || t.is_reading_paused() {
            if began {
                t.request_begins();
            }
        } else {
            t.request_ends();
        }
    }
}

/// Bytes are parsed, and everything else goes to the receiver.
impl<P: Parser> Protocol for Framed<P> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, Callback::ConnectionMade)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.take(t, data)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.end(t)
    }

    fn pause_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, Callback::PauseWriting)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, Callback::ResumeWriting)
    }

    fn transfer_complete(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, Callback::TransferComplete)
    }

    fn reading_resumed(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.parse_on(t)
    }

    fn timer(&mut self, t: &mut Transport<'_>, id: TimerId) -> HandlerResult {
        self.call(t, Callback::Timer(id))
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.call(t, Callback::Message(message))
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.call(t, Callback::ShuttingDown)
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.parser.connection_lost(cx, why);
    }
}
