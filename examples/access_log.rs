//! An access log: a line on stdout for each connection, when it is closed.
//! `cargo run --example access_log`, then `nc 127.0.0.1 1234`.

mod common;

use std::io::{stdout, Write};
use std::time::UNIX_EPOCH;

use socketserver::{handler, Closed, Observer, ServerBuilder};

struct AccessLog;

impl Observer for AccessLog {
    fn closed(&self, closed: &Closed<'_>) {
        let Closed { id, peer, outcome, duration, bytes_read, bytes_written, .. } = closed;
        let at = closed.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let why = closed.reason.unwrap_or("-");
        let line = format!("{at:.3} {id} {peer} {outcome} in={bytes_read} out={bytes_written} {duration:.1?} {why}\n");
        let _ = stdout().write_all(line.as_bytes()); // one write: lines of several processes do not mix
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Greets each client, and logs each connection.", &[common::LIMITS]);
    let greet = handler(|conn| conn.send_line("Thank you for connecting"));
    let builder = ServerBuilder::new().handle_signals().observer(AccessLog);
    let mut server = args.limits(builder).bind(&args.addr, greet)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
