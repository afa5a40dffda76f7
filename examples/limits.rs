//! A server with bounds for everything a client can do: how many, how long, how much.
//! `cargo run --example limits`, then `nc 127.0.0.1 1234` and wait.

mod common;

use std::io::Write;
use std::time::Duration;

use socketserver::{AtLimit, Connection, Failure, HandlerResult, ServerBuilder, StreamRequestHandler, Threading};

struct Shout;

impl StreamRequestHandler for Shout {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            conn.send_line(line.to_uppercase())?;
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Shouts back, within limits.", &[]);
    let mut server = ServerBuilder::new()
        .handle_signals()
        .strategy(Threading::new().stack_size(256 << 10).thread_name("shout"))
        .max_connections(100)
        .at_limit(AtLimit::Refuse(b"busy, try again later\n".to_vec()))
        .idle_timeout(Duration::from_secs(10)) // for a request to begin
        .request_timeout(Duration::from_secs(5)) // for all of it to arrive: ends a client that trickles
        .write_timeout(Duration::from_secs(5)) // for the client to take an answer
        .drain_timeout(Duration::from_secs(5)) // for everything to end after a stop
        .max_line_length(1000)
        .handle_error(|failure: &Failure<'_>| {
            let _ = writeln!(std::io::stderr(), "{failure}");
        })
        .bind(&args.addr, Shout)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
