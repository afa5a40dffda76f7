//! A strategy of your own: at most two threads per core, each started for one connection.
//! `cargo run --example custom_strategy`, then `nc 127.0.0.1 1234`.

mod common;

use std::thread;

use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{handler, ServerBuilder};

struct PerCore;

impl ServingStrategy for PerCore {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        let name = format!("for {}", request.peer_addr());
        if let Err(e) = thread::Builder::new().name(name).spawn(move || request.run()) {
            log::error!("no thread: {e}"); // the request went with the closure, and so was refused
        }
        Ok(())
    }

    fn max_connections(&self) -> socketserver::Result<usize> {
        Ok(2 * thread::available_parallelism().map_or(1, usize::from))
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Greets each client on a thread made for it.", &[common::LIMITS]);
    let greet = handler(|conn| conn.send_line(format!("served by the thread {:?}", thread::current().name())));
    let builder = ServerBuilder::new().handle_signals().strategy(PerCore);
    let mut server = args.limits(builder).bind(&args.addr, greet)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
