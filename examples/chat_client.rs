//! A client of the chat room in one thread: what is typed goes to the room, what the room says to the terminal.
//! `cargo run --example chat_room`, then `cargo run --example chat_client` in several terminals.

mod common;

use std::cell::RefCell;
use std::io::{stdin, stdout, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use common::AnyError;
use socketserver::event_loop::{ConnId, Connect, ConnectError, Factory};
use socketserver::event_loop::{LostReason, Peer};
use socketserver::{Context, HandlerResult};
use socketserver::{Lost, Protocol, Reactor, Transport};

/// Why the client ends, if not in order.
type Failure = Rc<RefCell<Option<String>>>;

/// The connection to the room.
struct Room {
    failure: Failure,
}

/// Standard input, read in the same loop.
struct Keyboard {
    room: ConnId,
}

/// What the keyboard tells the room when there is no more to come.
struct EndOfInput;

impl Protocol for Room {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        let room = transport.id();
        transport.read_from(stdin().as_fd().try_clone_to_owned()?, Keyboard { room })?;
        Ok(())
    }

    fn data_received(&mut self, _transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let mut out = stdout().lock();
        out.write_all(data)?;
        Ok(out.flush()?)
    }

    /// The room answers what it was sent, and then ends its own half.
    fn message(&mut self, transport: &mut Transport<'_>, message: Box<dyn std::any::Any>) -> HandlerResult {
        if message.is::<EndOfInput>() {
            transport.shutdown_write();
        }
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, lost: &Lost) {
        if !matches!(lost.reason, LostReason::PeerClosed | LostReason::Closed | LostReason::Shutdown) {
            *self.failure.borrow_mut() = Some(format!("{}: {lost}", lost.peer));
        }
        cx.stop();
    }
}

impl Protocol for Keyboard {
    /// Reads no faster than the room does.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        transport.link(self.room);
        Ok(())
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        transport.write_to(self.room, data);
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _lost: &Lost) {
        cx.post(self.room, EndOfInput);
    }
}

struct Client {
    failure: Failure,
}

impl Factory for Client {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Room { failure: self.failure.clone() }))
    }

    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        *self.failure.borrow_mut() = Some(error.to_string());
        cx.stop();
    }
}

fn main() -> Result<(), AnyError> {
    let about = "A client of the chat room: standard input goes to the room, what it says to standard output.";
    let args = common::args(about, &[]);
    let failure = Failure::default();
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    reactor.context().connect(Connect::to(&args.addr), Client { failure: failure.clone() });
    reactor.run()?;
    let failure = failure.take();
    failure.map_or(Ok(()), |text| Err(text.into()))
}
