//! A log of what was slow: a line on stderr for each connection that took longer than it should.
//! `cargo run --example slow_log -- --slower-than 500`, then `nc 127.0.0.1 1234` and `2` for a nap of two seconds.

mod common;

use std::thread::sleep;
use std::time::Duration;

use socketserver::{handler, Closed, Observer, ServerBuilder};

struct SlowLog(Duration);

impl Observer for SlowLog {
    fn closed(&self, closed: &Closed<'_>) {
        if closed.duration > self.0 {
            let Closed { id, peer, outcome, duration, bytes_read, bytes_written, .. } = closed;
            log::warn!("slow: {id} of {peer} took {duration:.1?}, {outcome}, in={bytes_read} out={bytes_written}");
        }
    }
}

fn main() -> socketserver::Result<()> {
    let own = &[("slower-than MS", "what is slow [1000]")];
    let args = common::args("Sleeps as many seconds as a client says, and logs what was slow.", &[own, common::LIMITS]);
    let slow = args.millis("slower-than").unwrap_or(Duration::from_secs(1));
    let nap = handler(|conn| {
        let seconds = conn.next_line()?.and_then(|line| line.parse().ok()).unwrap_or(0.0);
        sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        conn.send_line("slept")
    });
    let builder = ServerBuilder::new().handle_signals().observer(SlowLog(slow));
    let mut server = args.limits(builder).bind(&args.addr, nap)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
