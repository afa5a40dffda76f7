//! What a connection or a message costs each strategy, beside plain servers of the same kind, as a table in Markdown.
//!
//! All servers and the clients share one processor, and the rounds of all servers are interleaved. So the ratios are
//! steady, on other machines too. The times are not. What counts is processor time: of all processes of a server, user and
//! system together. A long run less a short one is divided by what the long one has served more. So neither the start of a
//! server counts nor its stop.

mod load;
mod ours;
mod peers;
mod process;
mod table;
mod tls;

use std::time::{Duration, Instant};

use load::Load;
use process::Server;
use table::{Row, ROWS};

const USAGE: &str = "\
usage: cargo run --release --manifest-path tests/bench/Cargo.toml -- [options]
  --rounds N    rounds; the table has their medians [5]
  --secs S      seconds that each server is driven in each round [0.25]
  --only TEXT   rows that contain the text, such as Forking, or `greet and close`
";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, name, mode] = &args[..] {
        if command == "serve" {
            return serve(name, mode);
        }
    }
    let options = Options::parse(args);
    process::pin();
    println!("{}, {} rounds of {} s\n", process::machine(), options.rounds, options.secs.as_secs_f64());
    let rows: Vec<&Row> = ROWS.iter().filter(|row| row.matches(&options.only)).collect();
    let mut loads: Vec<Load> = rows.iter().map(|row| row.load).collect();
    loads.dedup();
    let certificate = loads.iter().any(|load| load.mode() == "tls").then(tls::Certificate::new);
    if let Some(Err(e)) = &certificate {
        println!("without TLS, for want of a certificate: openssl: {e}\n");
        loads.retain(|load| load.mode() != "tls");
    }
    println!("{}", table::HEAD);
    for load in loads {
        let rows: Vec<_> = rows.iter().filter(|row| row.load == load).collect();
        let mut names: Vec<_> = rows.iter().flat_map(|row| [&[row.ours], row.beside].concat()).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| process::is_there(name));
        let costs = rounds(load, &names, &options);
        let of = |name: &str| Some(&costs[names.iter().position(|n| *n == name)?][..]);
        rows.iter().for_each(|row| println!("{}", row.line(of)));
    }
}

/// The costs of each server, a round each.
fn rounds(load: Load, names: &[&str], options: &Options) -> Vec<Vec<f64>> {
    let mut costs = vec![Vec::new(); names.len()];
    for _ in 0..options.rounds {
        for (name, costs) in names.iter().zip(&mut costs) {
            costs.push(cost(load, name, options.secs));
        }
    }
    costs
}

fn cost(load: Load, name: &str, length: Duration) -> f64 {
    match load {
        Load::Start => {
            let begin = Instant::now();
            let server = Server::start(name, load.mode());
            let took = begin.elapsed();
            server.stop();
            took.as_secs_f64() * 1e3
        }
        Load::Idle | Load::TlsIdle => {
            let server = Server::start(name, load.mode());
            drop(load.crowd(server.address(), 10)); // what comes with the first connections, and stays
            let (count, before) = (if name.contains("ork") { 100 } else { 900 }, server.memory());
            let crowd = load.crowd(server.address(), count);
            let grown = server.memory() as f64 - before as f64;
            drop(crowd);
            server.stop();
            grown / 1024.0 / count as f64
        }
        _ => {
            let [(few, short), (many, long)] = [Duration::ZERO, length].map(|length| {
                let server = Server::start(name, load.mode());
                let served = load.run(server.address(), Instant::now() + length);
                (served, server.stop())
            });
            (long.as_secs_f64() - short.as_secs_f64()) * 1e6 / (many - few).max(1.0)
        }
    }
}

/// A server in this process: one of the crate's, or a plain one.
fn serve(name: &str, mode: &str) {
    let served = match mode {
        "tls" => tls::serve(name),
        _ => peers::serve(name, mode) || ours::serve(name, mode),
    };
    assert!(served, "there is no server {name:?} for {mode}");
}

struct Options {
    rounds: usize,
    secs: Duration,
    only: String,
}

impl Options {
    fn parse(args: Vec<String>) -> Self {
        let mut options = Self { rounds: 5, secs: Duration::from_millis(250), only: String::new() };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let value = args.next().unwrap_or_default();
            let fits = match &*arg {
                "--rounds" => value.parse().map(|n| options.rounds = n).is_ok() && options.rounds > 0,
                "--secs" => {
                    let secs = value.parse().ok().and_then(|secs| Duration::try_from_secs_f64(secs).ok());
                    secs.map(|secs| options.secs = secs).is_some()
                }
                "--only" => {
                    options.only = value.to_lowercase();
                    ROWS.iter().any(|row| row.matches(&options.only))
                }
                _ => false,
            };
            if !fits {
                eprint!("{USAGE}");
                std::process::exit(if arg == "--help" { 0 } else { 2 });
            }
        }
        options
    }
}
