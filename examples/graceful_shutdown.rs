//! A stop that loses nothing: a client's `stop` line shuts the server down from its own handler, and the account
//! tells how the others ended. `cargo run --example graceful_shutdown`, then `nc 127.0.0.1 1234` twice; type `work`
//! in one and `stop` in the other.

mod common;

use std::thread::sleep;
use std::time::Duration;

use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandler, Threading};

struct Worker;

impl StreamRequestHandler for Worker {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                Some("work") => {
                    sleep(Duration::from_secs(3)); // in flight: a stop waits for it
                    conn.send_line("done")?;
                }
                Some("stop") => conn.server().shutdown(), // never blocks, so a handler may call it
                _ => conn.send_line("work or stop?")?,
            }
        }
        conn.send_line("good bye") // the client ended the stream, or the server drains
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Works for clients until one says stop.", &[common::LIMITS]);
    let builder = ServerBuilder::new().handle_signals().strategy(Threading::new());
    let mut server = args.limits(builder).bind(&args.addr, Worker)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
