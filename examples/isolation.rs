//! A handler that crashes on request, in processes of its own: others are unharmed, and the server says what happened.
//! `cargo run --example isolation`, then `nc 127.0.0.1 1234` twice; type `crash`, `exit`, `hog` or `spin` in one, and
//! anything in the other.

mod common;

use std::io::Write;
use std::time::Duration;

use nix::sys::resource::{setrlimit, Resource};
use socketserver::{Connection, Failure, Forking, HandlerResult, ServerBuilder, StreamRequestHandler};

struct Fragile;

impl StreamRequestHandler for Fragile {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.send_line(format!("process {}: crash, exit, hog, spin, or anything else", std::process::id()))?;
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                Some("crash") => std::process::abort(),
                Some("exit") => std::process::exit(3),
                Some("hog") => drop(vec![1_u8; 1 << 30]), // over the limit on memory
                Some("spin") => while std::hint::black_box(true) {}, // over the limit on time
                _ => conn.send_line(format!("process {} is well", std::process::id()))?,
            }
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Crashes on request, and goes on.", &[common::LIMITS]);
    let without_core_dump = || setrlimit(Resource::RLIMIT_CORE, 0, 0).expect("a lower limit is never refused");
    let strategy = Forking::new().limit_memory(512 << 20).no_new_privs().after_fork(without_core_dump);
    let builder =
        ServerBuilder::new().handle_signals().strategy(strategy).request_timeout(Duration::from_secs(2)).handle_error(
            |failure: &Failure<'_>| {
                let _ = writeln!(std::io::stderr(), "{failure}");
            },
        );
    let mut server = args.limits(builder).bind(&args.addr, Fragile)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
