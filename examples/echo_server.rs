//! Echoes bytes, or greets and closes, with any strategy: what the benchmarks drive.
//! `cargo run --release --example echo_server -- 127.0.0.1:1234 --strategy thread-pool --mode greet`.

mod common;

use std::io::{BufRead, Write};

use common::any::{STRATEGY, WORKERS};
use common::tls::TLS;
use socketserver::{
    factory, handler, per_request, Connection, HandlerResult, Next, Protocol, ServerBuilder, Transport,
};

const GREETING: &[u8] = b"Hello from the server, what can I do for you?\r\n";

/// Sends back what is in the read buffer.
fn echo(conn: &mut Connection) -> HandlerResult {
    let (mut input, mut output) = conn.halves();
    let data = input.fill_buf()?;
    output.write_all(data)?;
    let n = data.len();
    input.consume(n);
    Ok(())
}

/// The same until the client ends the stream or the server stops.
fn echo_all(conn: &mut Connection) -> HandlerResult {
    while conn.next_request()? {
        echo(conn)?;
    }
    Ok(())
}

/// The same for an event loop.
struct Echo {
    greets: bool,
}

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        if self.greets {
            transport.write(GREETING)?;
            transport.close();
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn main() -> socketserver::Result<()> {
    let own = [
        ("mode M", "echo or greet [echo]"),
        ("buf BYTES", "size of the read buffer; not for an event loop [8192]"),
        ("heap MIB", "memory to hold while serving [0]"),
    ];
    let args = common::args("Echoes what clients send.", &[STRATEGY, WORKERS, &own, common::LIMITS, TLS]);
    let greets = match args.choice("mode", "echo") {
        "echo" => false,
        "greet" => true,
        other => common::fail(format!("--mode {other}: it is echo or greet")),
    };
    let heap = vec![1_u8; args.get::<usize>("heap").unwrap_or(0) << 20];
    let builder = ServerBuilder::new().handle_signals().read_buffer(args.get("buf").unwrap_or(8192));
    let (builder, protocol) = (args.tls(args.limits(builder)), factory(move |_peer| Echo { greets }));
    let mut server = match args.serves_requests() {
        true if greets => common::fail("--as request: nobody asks for a greeting"),
        true => args.bind(builder, per_request(|conn| echo(conn).map(|()| Next::Request)), protocol)?,
        false if greets => args.bind(builder, handler(|conn| Ok(conn.write_all(GREETING)?)), protocol)?,
        false => args.bind(builder, handler(echo_all), protocol)?,
    };
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    std::hint::black_box(&heap);
    Ok(())
}
