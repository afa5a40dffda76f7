//! Answers datagrams in upper case, with any strategy that serves a request at a time.
//! `cargo run --example udp_server -- 127.0.0.1:1234 --strategy forking`, then `nc -u 127.0.0.1 1234`.

mod common;

use std::io::{BufRead, Write};

use socketserver::{Datagram, DatagramRequestHandler, HandlerResult, ServerBuilder};

/// Python's example: its `MyUDPHandler`.
struct Upper;

impl DatagramRequestHandler for Upper {
    fn handle(&self, datagram: &mut Datagram) -> HandlerResult {
        let mut line = String::new();
        datagram.read_line(&mut line)?;
        println!("{} wrote: {:?}", datagram.peer_addr(), line.trim());
        match line.trim() {
            "panic" => panic!("it was told to"),
            "abort" => std::process::abort(),
            "pid" => writeln!(datagram, "{}", std::process::id())?,
            text => writeln!(datagram, "{}", text.to_uppercase())?, // an empty line is a reply as well
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let own = [
        ("strategy S", "sequential, threading, thread-pool or forking [threading]"),
        ("workers N", "threads of a thread-pool [16]"),
        ("max-packet-size N", "bytes that are received of a datagram [65535]"),
    ];
    let args = common::args("Answers datagrams in upper case.", &[&own, common::LIMITS]);
    let builder = ServerBuilder::new()
        .handle_signals()
        .strategy(args.strategy()) // or Threading::new()
        .max_packet_size(args.get("max-packet-size").unwrap_or(65535));
    let mut server = args.limits(builder).bind_udp(&args.addr, Upper)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
