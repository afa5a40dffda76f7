//! A fixed number of threads: `cargo run --example thread_pool_server -- 127.0.0.1:1234 --workers 4`.

mod common;

use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandler, ThreadPool};

struct Greeter;

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        println!("Got connection from {}", conn.peer_addr());
        conn.send_line("Thank you for connecting")
    }
}

fn main() -> socketserver::Result<()> {
    let args =
        common::args("Greets clients on a pool of threads.", &[&[("workers N", "threads [16]")], common::LIMITS]);
    let threads = args.get("workers").unwrap_or(16);
    let builder = ServerBuilder::new().handle_signals().strategy(ThreadPool::new(threads));
    let mut server = args.limits(builder).bind(&args.addr, Greeter)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
