//! Echoes datagrams in an event loop: `cargo run --example udp_echo_loop`, then `nc -u 127.0.0.1 1234`.

mod common;

use socketserver::event_loop::{DatagramProtocol, DatagramTransport};
use socketserver::{Addr, Context, HandlerResult, Reactor};

/// Twisted's first example of UDP.
#[derive(Default)]
struct Echo {
    echoed: usize,
    dropped: usize,
}

impl DatagramProtocol for Echo {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        println!("received {:?} from {from}", String::from_utf8_lossy(data));
        if t.send_to(from, data)? {
            self.echoed += 1;
        } else {
            self.dropped += 1;
        }
        Ok(())
    }

    fn stop_protocol(&mut self, _: &mut Context<'_>) {
        println!("echoed {}, dropped {}", self.echoed, self.dropped);
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Echoes datagrams in an event loop.", &[]);
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    let port = reactor.listen_udp(&args.addr, Echo::default())?;
    common::listening(port.local_addr());
    let report = reactor.run()?;
    common::report(&report);
    Ok(())
}
