//! A fixed number of threads: `cargo run --example thread_pool_server -- 127.0.0.1:1234 --workers 4`.

mod common;

use std::io::Write;
use std::process::ExitCode;

use socketserver::{Connection, HandlerResult, StreamRequestHandler, ThreadPool};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        println!("Got connection from {}", conn.peer_addr());
        conn.write_all(b"Thank you for connecting\n")?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let workers = [("workers N", "threads [16]")];
    common::main("Greets clients on a pool of threads.", &[&workers, common::LIMITS], |args| {
        let pool = ThreadPool::new(args.get("workers")?.unwrap_or(16));
        common::run(args.builder()?.strategy(pool).bind(&args.addr, Greeter)?)
    })
}
