//! Forwards each connection to another address: as fast as the slower side takes it, in both directions, with the end of
//! each direction carried over. `cargo run --example port_forward -- --to 127.0.0.1:80`, then a client of 127.0.0.1:1234.

mod common;

use std::any::Any;
use std::io::Write;

use socketserver::event_loop::{ConnId, ConnectError, Connector, Eof, Factory, LostReason, Peer};
use socketserver::{factory, Context, EventLoop, HandlerResult, Lost, Protocol, ServerBuilder, Transport};

/// One side of a forwarded connection.
struct Side {
    other: Other,
}

enum Other {
    /// A client has come; it is to be connected to this address.
    Wanted(String),
    Connecting(Connector),
    Is(ConnId),
}

/// What one side tells the other.
enum Word {
    Connected(ConnId),
    /// The stream that is copied to you has ended.
    End,
}

impl Protocol for Side {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        let id = transport.id();
        match &self.other {
            Other::Wanted(address) => {
                transport.pause_reading(); // what the client sends waits in the kernel
                let connector = transport.connect_tcp(address.as_str(), ToTarget { client: id });
                self.other = Other::Connecting(connector);
            }
            Other::Is(client) => {
                let client = *client;
                transport.link(client);
                if !transport.post(client, Word::Connected(id)) {
                    transport.close(); // it has left meanwhile
                }
            }
            Other::Connecting(_) => {}
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        if let Other::Is(other) = self.other {
            transport.write_to(other, data);
        }
        Ok(())
    }

    fn eof_received(&mut self, transport: &mut Transport<'_>) -> HandlerResult<Eof> {
        if let Other::Is(other) = self.other {
            transport.post(other, Word::End);
        }
        Ok(Eof::KeepOpen) // the other direction goes on; when both have ended, the loop closes
    }

    fn message(&mut self, transport: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        match message.downcast_ref() {
            Some(Word::Connected(target)) => {
                self.other = Other::Is(*target);
                transport.link(*target);
                transport.resume_reading();
            }
            Some(Word::End) => transport.shutdown_write(),
            None => {}
        }
        Ok(())
    }

    /// If this side has ended in order, the other side ends in order too, after what is still queued. After any other
    /// end it is aborted.
    fn connection_lost(&mut self, cx: &mut Context<'_>, lost: &Lost) {
        match (&self.other, &lost.reason) {
            (Other::Is(other), LostReason::PeerClosed | LostReason::Closed | LostReason::Shutdown) => {
                cx.close_connection(*other);
            }
            (Other::Is(other), _) => {
                cx.abort_connection(*other);
            }
            (Other::Connecting(connector), _) => {
                cx.disconnect(*connector);
            }
            (Other::Wanted(_), _) => {}
        }
    }
}

/// Makes the other side of this client.
struct ToTarget {
    client: ConnId,
}

impl Factory for ToTarget {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Side { other: Other::Is(self.client) }))
    }

    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        let _ = std::io::stderr().write_all(format!("{error}\n").as_bytes());
        cx.close_connection(self.client);
    }
}

const TO: (&str, &str) = ("to ADDR", "where to forward to [127.0.0.1:1235]");

fn main() -> socketserver::Result<()> {
    let args = common::args("Forwards each connection to another address.", &[&[TO], common::LIMITS]);
    let to = args.choice("to", "127.0.0.1:1235").to_owned();
    let client = move |_peer: &Peer| Side { other: Other::Wanted(to.clone()) };
    let builder = ServerBuilder::new().handle_signals().strategy(EventLoop::new());
    let mut server = args.limits(builder).bind(&args.addr, factory(client))?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
