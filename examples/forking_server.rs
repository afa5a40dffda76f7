//! A process for each connection: `cargo run --example forking_server -- 127.0.0.1:1234`, then `nc 127.0.0.1 1234`.

mod common;

use std::io::Write;
use std::process::ExitCode;

use socketserver::{Connection, Forking, HandlerResult, StreamRequestHandler};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        println!("Got connection from {}", conn.peer_addr());
        conn.write_all(b"Thank you for connecting\n")?;
        Ok(())
    }
}

fn main() -> ExitCode {
    common::main("Greets each client in a process of its own.", &[common::LIMITS], |args| {
        common::run(args.builder()?.strategy(Forking::new()).bind(&args.addr, Greeter)?)
    })
}
