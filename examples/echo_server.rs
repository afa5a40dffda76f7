//! Echoes bytes, or greets and closes, with any strategy: what the benchmarks drive.
//! `cargo run --release --example echo_server -- 127.0.0.1:1234 --strategy thread-pool --mode greet`.

mod common;

use std::io::{Read, Write};
use std::process::ExitCode;

use socketserver::{factory, handler, HandlerResult, Protocol, Transport};

const GREETING: &[u8] = b"Hello from the server, what can I do for you?\r\n";

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

fn main() -> ExitCode {
    let own = [
        ("mode M", "echo or greet [echo]"),
        ("buf BYTES", "size of the read buffer, but for an event loop [8192]"),
        ("heap MIB", "memory to hold while serving [0]"),
    ];
    common::main("Echoes what clients send.", &[common::STRATEGY, common::WORKERS, &own, common::LIMITS], |args| {
        let size = args.get("buf")?.unwrap_or(8192);
        let greets = match args.get::<String>("mode")?.as_deref() {
            None | Some("echo") => false,
            Some("greet") => true,
            Some(other) => return Err(format!("--mode {other}: it is echo or greet").into()),
        };
        let heap = vec![1_u8; args.get::<usize>("heap")?.unwrap_or(0) << 20];
        let echo = handler(move |conn| {
            if greets {
                return Ok(conn.write_all(GREETING)?);
            }
            let mut buf = vec![0; size];
            loop {
                match conn.read(&mut buf)? {
                    0 => return Ok(()),
                    n => conn.write_all(&buf[..n])?,
                }
            }
        });
        let served = args.serve(args.builder()?.read_buffer(size), echo, factory(move |_peer| Echo { greets }));
        std::hint::black_box(&heap);
        served
    })
}
