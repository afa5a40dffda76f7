//! A protocol in a loop without sockets: bytes go in, output comes out.
#![allow(dead_code)] // each test file uses a part

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use socketserver::event_loop::{ConnId, Eof, LostReason, TimerId};
use socketserver::testing::TestLoop;
use socketserver::{Context, HandlerResult, Lost, Protocol, Transport};

/// What a receiver was told, as it writes it down.
pub type Log = Rc<RefCell<Vec<String>>>;

pub struct Loop {
    test: TestLoop,
    client: ConnId,
    error: Rc<RefCell<Option<String>>>,
}

impl Loop {
    pub fn new(protocol: impl Protocol + 'static) -> Self {
        let mut test = TestLoop::new().unwrap();
        let error = Rc::default();
        let client = test.connect(Watched { protocol, error: Rc::clone(&error) });
        Self { test, client, error }
    }

    /// A chunk arrives.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.test.feed(self.client, chunk);
    }

    /// The peer ends its stream.
    pub fn eof(&mut self) {
        self.test.eof(self.client);
    }

    /// A message for the protocol, from elsewhere.
    pub fn tell(&mut self, message: &'static str) {
        let client = self.client;
        self.test.act(|cx| cx.post(client, message));
    }

    /// Resumes reading from elsewhere, as another connection's protocol would.
    pub fn resume(&mut self) {
        let client = self.client;
        self.test.act(|cx| cx.resume_connection(client));
    }

    pub fn is_closing(&self) -> bool {
        self.test.is_closing(self.client)
    }

    pub fn is_paused(&self) -> bool {
        !self.is_closing() && !self.test.is_reading(self.client)
    }

    /// What was written since the last call.
    pub fn output(&mut self) -> String {
        String::from_utf8(self.test.output(self.client)).unwrap()
    }

    /// The error that has ended the connection.
    pub fn error(&self) -> Option<String> {
        self.error.borrow().clone()
    }

    pub fn advance(&mut self, time: Duration) {
        self.test.advance(time);
    }

    /// How long a request has been in progress, if one is.
    pub fn request_age(&self) -> Option<Duration> {
        self.test.request_age(self.client)
    }
}

/// Remembers the error.
struct Watched<P> {
    protocol: P,
    error: Rc<RefCell<Option<String>>>,
}

impl<P: Protocol> Protocol for Watched<P> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.protocol.connection_made(t)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.protocol.data_received(t, data)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.protocol.eof_received(t)
    }

    fn pause_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.protocol.pause_writing(t)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.protocol.resume_writing(t)
    }

    fn reading_resumed(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.protocol.reading_resumed(t)
    }

    fn timer(&mut self, t: &mut Transport<'_>, timer: TimerId) -> HandlerResult {
        self.protocol.timer(t, timer)
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.protocol.message(t, message)
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        if let LostReason::Error(e) = &why.reason {
            *self.error.borrow_mut() = Some(e.to_string());
        }
        self.protocol.connection_lost(cx, why);
    }
}
