//! Worker processes that share one listener, supervised: `cargo run --example preforking_server -- 127.0.0.1:1234
//! --workers 4`, then `nc 127.0.0.1 1234`, `kill` a worker, and `ps -e | grep worker`.

mod common;

use std::io::Write;
use std::process::ExitCode;

use socketserver::{factory, Connection, HandlerResult, Protocol, StreamRequestHandler, Transport};

struct Greeter;

fn greeting() -> String {
    format!("Thank you for connecting to process {}\n", std::process::id())
}

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        Ok(conn.write_all(greeting().as_bytes())?)
    }
}

/// The same for `--inner event-loop`.
impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        transport.write(greeting().as_bytes())?;
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _transport: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }
}

fn main() -> ExitCode {
    let workers = &[("workers N", "processes [one a processor]")];
    let about = "Greets each client from one of several processes.";
    common::main(about, &[workers, common::WORKERS, common::LIMITS], |args| {
        args.serve_preforking(args.builder()?, Greeter, factory(|_peer| Greeter))
    })
}
