//! A thread for each connection: `cargo run --example threading_server -- 127.0.0.1:1234`, then `nc 127.0.0.1 1234`.

mod common;

use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandler, Threading};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        println!("Got connection from {}", conn.peer_addr());
        conn.send_line("Thank you for connecting")
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Greets each client on a thread of its own.", &[common::LIMITS]);
    let builder = ServerBuilder::new().handle_signals().strategy(Threading::new());
    let mut server = args.limits(builder).bind(&args.addr, Greeter)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
