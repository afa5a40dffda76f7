//! Prints the clients that connect and leave, and what they send: Twisted's first server, a `Protocol` in a `Reactor`.
//! `cargo run --example simple_logger`, then `nc 127.0.0.1 1234`.

mod common;

use socketserver::{factory, Context, HandlerResult, Lost, Protocol, Reactor, Transport};

struct SimpleLogger;

impl Protocol for SimpleLogger {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        println!("Got connection from {}", transport.peer_addr());
        Ok(())
    }

    fn data_received(&mut self, _transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        println!("{}", String::from_utf8_lossy(data).trim_end());
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, lost: &Lost) {
        println!("{} disconnected", lost.peer);
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Prints what clients send.", &[]);
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    let port = reactor.listen_tcp(&args.addr, factory(|_peer| SimpleLogger))?;
    common::listening(port.local_addr());
    let report = reactor.run()?;
    common::report(&report);
    Ok(())
}
