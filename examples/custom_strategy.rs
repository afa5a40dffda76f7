//! A strategy of one's own: at most two threads per core, each started for one connection.
//! `cargo run --example custom_strategy`, then `nc 127.0.0.1 1234`.

mod common;

use std::io::Write;
use std::process::ExitCode;
use std::thread;

use socketserver::handler;
use socketserver::strategy::{Rejected, Request, ServingStrategy};

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

fn main() -> ExitCode {
    common::main("Greets each client on a thread made for it.", &[common::LIMITS], |args| {
        let greet = handler(|conn| Ok(writeln!(conn, "served by the thread {:?}", thread::current().name())?));
        common::run(args.builder()?.strategy(PerCore).bind(&args.addr, greet)?)
    })
}
