//! A line protocol that lets a client make trouble, to see what each strategy survives.
//! `cargo run --example torture_server -- --strategy threading`, then `nc 127.0.0.1 1234` and `HELP`.

mod common;

use std::io::Write;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use socketserver::{Connection, HandlerResult, Stats, StreamRequestHandler};

const HELP: &str = "ECHO text | SLEEP ms | BIG n [CLOSE] | PANIC | ERROR | ABORT | SEGV | OVERFLOW | SPIN | EXIT n | \
                    PID | MASTER | PEER | STATS | CLOSE | SHUTDOWN";

struct Torture {
    master: u32,
}

impl StreamRequestHandler for Torture {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match command {
                "ECHO" => writeln!(conn, "{rest}")?,
                "SLEEP" => match rest.parse() {
                    Ok(ms) => {
                        sleep(Duration::from_millis(ms));
                        writeln!(conn, "slept")?;
                    }
                    Err(e) => writeln!(conn, "ERR SLEEP {rest}: {e}")?,
                },
                "BIG" => {
                    let (n, then) = rest.split_once(' ').unwrap_or((rest, ""));
                    match n.parse() {
                        Ok(n) => big(conn, n)?,
                        Err(e) => writeln!(conn, "ERR BIG {n}: {e}")?,
                    }
                    if then == "CLOSE" {
                        break;
                    }
                }
                "PANIC" => panic!("a client asked for it"),
                "ERROR" => return Err("a client asked for it".into()),
                "ABORT" => std::process::abort(),
                "SEGV" => segfault(),
                "OVERFLOW" => writeln!(conn, "{}", overflow(1))?,
                "SPIN" => spin(),
                "EXIT" => std::process::exit(rest.parse().unwrap_or(1)),
                "PID" => writeln!(conn, "{} {}", std::process::id(), thread_id()?)?,
                "MASTER" => writeln!(conn, "{}", self.master)?,
                "PEER" => writeln!(conn, "{}", conn.peer_addr())?,
                "STATS" => {
                    let stats = json(&conn.server().stats());
                    writeln!(conn, "{stats}")?;
                }
                "CLOSE" => break,
                "SHUTDOWN" => conn.server().shutdown(),
                "HELP" => writeln!(conn, "{HELP}")?,
                _ => writeln!(conn, "ERR unknown command; HELP lists them")?,
            }
        }
        Ok(())
    }
}

fn big(conn: &mut Connection, mut n: usize) -> std::io::Result<()> {
    let chunk = [b'x'; 65536];
    while n > 0 {
        let part = n.min(chunk.len());
        conn.write_all(&chunk[..part])?;
        n -= part;
    }
    conn.write_all(b"\n")
}

/// Linux shows each thread's number where it looks up its own.
fn thread_id() -> std::io::Result<String> {
    let link = std::fs::read_link("/proc/thread-self")?;
    Ok(link.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

#[allow(unsafe_code)]
fn segfault() {
    // SAFETY: none, on purpose: this is what the client asked for.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) }
}

/// Deeper than any stack.
#[allow(unconditional_recursion)]
fn overflow(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 1000]);
    overflow(n + 1) + frame[(n % 1000) as usize]
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

fn json(s: &Stats) -> String {
    let fields = [
        ("active", s.active as u64),
        ("max_connections", s.max_connections as u64),
        ("accepted", s.accepted),
        ("served", s.served),
        ("failed", s.failed),
        ("panicked", s.panicked),
        ("timed_out", s.timed_out),
        ("crashed", s.crashed),
        ("disconnected", s.disconnected),
        ("refused", s.refused),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, n)| format!("\"{name}\": {n}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn main() -> ExitCode {
    common::main("Does what its clients ask, harmful or not.", &[common::STRATEGY, common::LIMITS], |args| {
        args.serve(args.builder()?, Torture { master: std::process::id() })
    })
}
