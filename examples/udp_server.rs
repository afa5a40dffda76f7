//! Answers datagrams in upper case, with any strategy that serves a request at a time.
//! `cargo run --example udp_server -- 127.0.0.1:1234 --strategy forking`, then `nc -u 127.0.0.1 1234`.

mod common;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use socketserver::strategy::ServingStrategy;
use socketserver::{Datagram, DatagramRequestHandler, Forking, HandlerResult, Sequential, ThreadPool, Threading};

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

fn main() -> ExitCode {
    let own = [
        ("strategy S", "sequential, threading, thread-pool or forking [threading]"),
        ("workers N", "threads of a thread-pool [16]"),
        ("max-packet-size N", "bytes that are received of a datagram [65535]"),
    ];
    common::main("Answers datagrams in upper case.", &[&own, common::LIMITS], |args| {
        let strategy: Box<dyn ServingStrategy> = match args.get::<String>("strategy")?.as_deref() {
            None | Some("threading") => Box::new(Threading::new()),
            Some("thread-pool") => Box::new(ThreadPool::new(args.get("workers")?.unwrap_or(16))),
            Some("forking") => Box::new(Forking::new()),
            Some("sequential") => Box::new(Sequential),
            Some(other) => return Err(format!("--strategy {other}: there is no such strategy; see --help").into()),
        };
        let mut builder = args.builder()?.strategy(strategy);
        if let Some(size) = args.get("max-packet-size")? {
            builder = builder.max_packet_size(size);
        }
        let mut server = builder.bind_udp(&args.addr, Upper)?;
        common::listening_on(server.local_addr())?;
        common::report(&server.serve_forever()?);
        Ok(())
    })
}
