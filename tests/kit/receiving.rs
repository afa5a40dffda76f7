//! A protocol without sockets: bytes go in, output comes out. All that the tests of receivers know of the loop.
#![allow(dead_code)] // each test file uses a part

use std::cell::RefCell;
use std::rc::Rc;

use socketserver::event_loop::{Core, Eof, HandlerResult, Protocol, Transport};

/// What a receiver was told, as it writes it down.
pub type Log = Rc<RefCell<Vec<String>>>;

pub struct Loop<P> {
    protocol: P,
    core: Core,
    /// What arrived while reading was paused.
    waiting: Vec<u8>,
    pub error: Option<String>,
}

impl<P: Protocol> Loop<P> {
    pub fn new(protocol: P) -> Self {
        let mut new = Self { protocol, core: Core::default(), waiting: Vec::new(), error: None };
        new.run(|p, t| p.connection_made(t));
        new
    }

    fn run(&mut self, call: impl FnOnce(&mut P, &mut Transport<'_>) -> HandlerResult) {
        self.once(call);
        while std::mem::take(&mut self.core.resumed) {
            self.once(|p, t| p.reading_resumed(t));
            let waiting = std::mem::take(&mut self.waiting);
            if self.core.paused {
                self.waiting = waiting;
            } else if !waiting.is_empty() && !self.core.closing {
                self.once(|p, t| p.data_received(t, &waiting));
            }
        }
    }

    fn once(&mut self, call: impl FnOnce(&mut P, &mut Transport<'_>) -> HandlerResult) {
        if let Err(e) = call(&mut self.protocol, &mut Transport::new(&mut self.core)) {
            self.error = Some(e.to_string());
            self.core.closing = true;
        }
    }

    /// A chunk arrives.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.core.paused {
            self.waiting.extend_from_slice(chunk);
        } else if !self.core.closing && !chunk.is_empty() {
            self.run(|p, t| p.data_received(t, chunk));
        }
    }

    /// The peer ends its stream.
    pub fn eof(&mut self) {
        self.run(|p, t| {
            let eof = p.eof_received(t)?;
            if eof == Eof::Close {
                t.close();
            }
            Ok(())
        });
    }

    /// A message for the protocol, from elsewhere.
    pub fn tell(&mut self, message: &'static str) {
        self.run(|p, t| p.message(t, Box::new(message)));
    }

    /// Resumes reading from elsewhere, as another connection's protocol would.
    pub fn resume(&mut self) {
        self.run(|_, t| {
            t.resume_reading();
            Ok(())
        });
    }

    pub fn is_closing(&self) -> bool {
        self.core.closing
    }

    pub fn is_paused(&self) -> bool {
        self.core.paused
    }

    /// What was written since the last call.
    pub fn output(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.core.output)).unwrap()
    }

    /// What the limits were told since the last call: that a request begins, that it ends.
    pub fn requests(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.core.requests)
    }
}
