//! Turns chunks into frames, for protocols.
//!
//! A complete frame is parsed where it lies, in the loop's buffer. Only an unfinished one is kept, so an idle
//! connection has no buffer.

use std::any::Any;
#[cfg(feature = "__tls")]
use std::io;
use std::ops::{Deref, DerefMut};

use crate::error::HandlerResult;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::Lost;
use crate::event_loop::state::protocol::{Eof, Protocol};
use crate::event_loop::state::transport::Transport;
use crate::framing::{Encoder, FrameBuffer, LineDecoder};
#[cfg(feature = "__tls")]
use crate::tls::{Session, TlsClientConfig, TlsConfig};

/// Turns bytes into calls of a receiver, and lends it a [`FramedTransport`].
pub trait Parser {
    /// Takes a frame, or a part of one, from the front of `unread`, which is not empty. It counts the bytes in `taken`
    /// before it calls the receiver. `false` if it needs more input.
    fn step(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, taken: &mut usize) -> HandlerResult<bool>;

    /// True if a part of a frame is taken, or announced.
    fn mid_frame(&self) -> bool;

    /// Calls the receiver at the end of the stream. `part` is the beginning of an unfinished frame.
    fn eof(&mut self, t: &mut Transport<'_>, part: &[u8]) -> HandlerResult<Eof>;

    /// Calls the receiver for anything but input. `unread` is the input that is kept.
    fn call(&mut self, t: &mut Transport<'_>, unread: Arrived<'_>, callback: Callback) -> (HandlerResult, Touched);

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost);
}

/// The callbacks that a receiver and a protocol have in common.
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

/// A [`Transport`] that sends frames: that of a [`LineReceiver`](crate::LineReceiver), or, as `FramedTransport<'_,
/// dyn Encoder>`, of a [`StringReceiver`](crate::event_loop::StringReceiver). For lines it also sets how they are
/// read.
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
    /// If the framing cannot express it, for example because it is too long for the prefix. Then nothing is sent.
    /// Otherwise as [`Transport::write`].
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

/// TLS.
#[cfg(feature = "__tls")]
impl<D: ?Sized> FramedTransport<'_, D> {
    /// Begins TLS, as [`Transport::start_tls`] does. It knows the input that is unread.
    ///
    /// # Errors
    /// As [`Transport::start_tls`].
    pub fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        let (id, unread) = (self.transport.id(), self.unread.len());
        self.transport.state.start_tls(id, unread, || Session::server(config))
    }

    /// Begins TLS at the client's end, as [`Transport::start_tls_client`] does. It knows the input that is unread.
    ///
    /// # Errors
    /// As [`Transport::start_tls_client`].
    pub fn start_tls_client(&mut self, config: &TlsClientConfig, server_name: &str) -> io::Result<()> {
        let (id, unread) = (self.transport.id(), self.unread.len());
        self.transport.state.start_tls(id, unread, || Session::client(config, server_name))
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

/// Input that has arrived and is not taken: the front can be parsed, the rest of the chunk follows it.
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

/// What a receiver's callback has done to the parser's input.
#[derive(Debug, Clone, Copy, Default)]
pub struct Touched {
    /// True if the unread input is thrown away.
    pub(crate) cleared: bool,
    /// True if the kept input may parse differently now.
    pub(crate) changed: bool,
}

/// The [`Protocol`] of a receiver, which [`lines`](crate::lines) and [`strings`](crate::event_loop::strings) make. It
/// keeps an unfinished frame, and has no buffer otherwise.
#[derive(Debug)]
pub struct Framed<P> {
    pub(crate) parser: P,
    kept: FrameBuffer,
    /// True if the stream has ended while reading was paused, and `eof_received` is still due.
    eof_waits: bool,
}

/// The least number of bytes of a chunk that are put behind the kept input, to complete its frame.
const PIECE: usize = 512;

struct Run {
    taken: usize,
    /// True if a frame was completed.
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

    /// Parses a chunk, keeps the rest, and marks the request.
    fn take(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let (begun, mut rest) = (self.holds_input(), data);
        let parsed = self.parse_chunk(t, &mut rest);
        // Also after a failure: the close must know of unread input.
        self.keep(t, rest)?;
        let whole = parsed?;
        self.mark_request(t, whole || !begun);
        Ok(())
    }

    /// Calls the receiver, and parses the kept input if the call has made that possible.
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
        // Another delimiter, another mode, or the end of a pause: the kept input may be a whole frame now.
        if touched.cleared || touched.changed || (paused && !t.is_reading_paused()) {
            return self.parse_on(t);
        }
        Ok(())
    }

    /// Handles the end of the stream. `eof_received` comes after the frames that a pause has kept.
    fn end(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.parse_kept(t)?;
        if t.is_closing() {
            return Ok(Eof::Close);
        }
        if t.is_switching() {
            return Ok(Eof::KeepOpen); // the successor gets its own `eof_received`
        }
        if t.is_reading_paused() {
            self.eof_waits = true;
            return Ok(Eof::KeepOpen);
        }
        self.report_eof(t)
    }

    /// Calls the receiver's `eof_received`, with the unfinished frame.
    fn report_eof(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.eof_waits = false;
        let kept = std::mem::replace(&mut self.kept, FrameBuffer::new(usize::MAX));
        self.parser.eof(t, kept.unread())
    }

    /// Parses the kept input, and then handles an end of the stream that has waited for it.
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

    /// Parses the kept input. True if a frame was completed.
    fn parse_kept(&mut self, t: &mut Transport<'_>) -> HandlerResult<bool> {
        let run = run(&mut self.parser, t, Arrived::all(self.kept.unread()), usize::MAX);
        self.kept.consume(run.taken);
        self.keep(t, &[])?;
        run.outcome.map(|()| run.whole)
    }

    /// Parses a chunk, and leaves the remainder in `rest`. True if a frame was completed.
    fn parse_chunk(&mut self, t: &mut Transport<'_>, rest: &mut &[u8]) -> HandlerResult<bool> {
        let mut whole = false;
        // An unfinished frame comes first, with as much of the chunk as completes it.
        while !self.kept.is_empty() && !rest.is_empty() && may_parse(t) {
            whole |= self.join(t, rest)?;
        }
        // The rest is parsed where it lies, without a copy.
        if self.kept.is_empty() {
            let run = run(&mut self.parser, t, Arrived::all(rest), usize::MAX);
            *rest = Arrived::all(rest).after(run.taken).front;
            run.outcome?;
            whole |= run.whole;
        }
        Ok(whole)
    }

    /// Puts a piece of the chunk behind the kept input, and parses both. Once the kept input is taken, the chunk is
    /// parsed where it lies.
    fn join(&mut self, t: &mut Transport<'_>, rest: &mut &[u8]) -> HandlerResult<bool> {
        // As much as is kept already: a long frame then grows by doubling.
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

    /// Keeps the rest of a chunk. At a close it is dropped, and at a switch the successor gets it.
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

    /// True if a part of a frame is kept.
    fn holds_input(&self) -> bool {
        !self.kept.is_empty() || self.parser.mid_frame()
    }

    /// Marks the beginning or the end of a request, for limits and drains. `began` is true if the held input is new.
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

/// Parses bytes; every other callback goes to the receiver.
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
