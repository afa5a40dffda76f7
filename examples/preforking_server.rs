//! Worker processes that share one listener, supervised: `cargo run --example preforking_server -- 127.0.0.1:1234
//! --workers 4`, then `nc 127.0.0.1 1234`, `kill` a worker, and `ps -e | grep worker`.

mod common;

use common::any::{AnyServer, WORKERS};
use socketserver::{factory, Connection, HandlerResult, Protocol};
use socketserver::{ServerBuilder, StreamRequestHandler, Threading, Transport};

struct Greeter;

fn greeting() -> String {
    format!("Thank you for connecting to process {}", std::process::id())
}

impl StreamRequestHandler for Greeter {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.send_line(greeting())
    }
}

/// The same for `--inner event-loop`.
impl Protocol for Greeter {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        transport.send_line(greeting())?;
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _transport: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let own = &[("workers N", "processes [one a processor]")];
    let args = common::args("Greets each client from one of several processes.", &[own, WORKERS, common::LIMITS]);
    let builder = args.limits(ServerBuilder::new().handle_signals());
    let mut server: Box<dyn AnyServer> = match args.choice("inner", "threading") {
        // `workers` is `PreForking::new(N, Threading::new())` with what the command line sets.
        "threading" => Box::new(builder.strategy(args.workers(Threading::new())).bind(&args.addr, Greeter)?),
        _ => args.bind_preforking(builder, Greeter, factory(|_peer| Greeter))?,
    };
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
