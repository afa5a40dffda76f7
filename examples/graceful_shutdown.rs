//! A stop that loses nothing: a client's `stop` line shuts the server down from its own handler, and the account
//! tells how the others ended. `cargo run --example graceful_shutdown`, then `nc 127.0.0.1 1234` twice; type `work`
//! in one and `stop` in the other.

mod common;

use std::io::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use socketserver::{Connection, HandlerResult, StreamRequestHandler, Threading};

struct Worker;

impl StreamRequestHandler for Worker {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                Some("work") => {
                    sleep(Duration::from_secs(3)); // in flight: a stop waits for it
                    writeln!(conn, "done")?;
                }
                Some("stop") => conn.server().shutdown(), // never blocks, so a handler may call it
                _ => writeln!(conn, "work or stop?")?,
            }
        }
        writeln!(conn, "good bye")?; // the client ended the stream, or the server drains
        Ok(())
    }
}

fn main() -> ExitCode {
    common::main("Works for clients until one says stop.", &[common::LIMITS], |args| {
        common::run(args.builder()?.strategy(Threading::new()).bind(&args.addr, Worker)?)
    })
}
