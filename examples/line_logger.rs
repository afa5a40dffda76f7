//! Prints what clients send, whole lines only, however the network cuts them: a `LineReceiver`.
//! `cargo run --example line_logger`, then `nc 127.0.0.1 1234`.

mod common;

use socketserver::{factory, lines, Context, HandlerResult, LineReceiver, LineTransport, Lost, Reactor};

struct LineLogger;

impl LineReceiver for LineLogger {
    fn connection_made(&mut self, transport: &mut LineTransport<'_>) -> HandlerResult {
        println!("Got connection from {}", transport.peer_addr());
        Ok(())
    }

    fn line_received(&mut self, _transport: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
        println!("{}", String::from_utf8_lossy(line));
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, lost: &Lost) {
        println!("{} disconnected", lost.peer);
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Prints the lines that clients send.", &[]);
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    let port = reactor.listen_tcp(&args.addr, factory(|_peer| lines(LineLogger)))?;
    common::listening(port.local_addr());
    let report = reactor.run()?;
    common::report(&report);
    Ok(())
}
