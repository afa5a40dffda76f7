//! The commands of the torture server, whatever serves them.

use std::time::Duration;

use socketserver::{Addr, HandlerResult, Stats};

const HELP: &str = "ECHO text | SLEEP ms | BIG n [CLOSE] | PANIC | ERROR | ABORT | SEGV | OVERFLOW | SPIN | EXIT n | \
                    PID | MASTER | PEER | STATS | CLOSE | SHUTDOWN";

/// What some answers tell.
pub struct Facts {
    pub master: u32,
    pub peer: Addr,
    pub stats: Stats,
}

/// What a command asks for, where it is not done at once.
pub enum Answer {
    /// This line.
    Line(String),
    /// A line `slept`, after this time.
    Sleep(Duration),
    /// This number of bytes and a line end; then perhaps the end.
    Big { bytes: usize, closes: bool },
    /// The end of the connection.
    Close,
    /// The end of the server.
    Shutdown,
}

/// Does what the line says, harmful or not.
pub fn answer(line: &str, facts: &Facts) -> HandlerResult<Answer> {
    let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
    let said = match command {
        "ECHO" => rest.to_owned(),
        "SLEEP" => match rest.parse() {
            Ok(ms) => return Ok(Answer::Sleep(Duration::from_millis(ms))),
            Err(e) => format!("ERR SLEEP {rest}: {e}"),
        },
        "BIG" => {
            let (n, then) = rest.split_once(' ').unwrap_or((rest, ""));
            match n.parse() {
                Ok(bytes) => return Ok(Answer::Big { bytes, closes: then == "CLOSE" }),
                Err(e) => format!("ERR BIG {n}: {e}"),
            }
        }
        "PANIC" => panic!("a client asked for it"),
        "ERROR" => return Err("a client asked for it".into()),
        "ABORT" => std::process::abort(),
        "SEGV" => segfault(),
        "OVERFLOW" => overflow(1).to_string(),
        "SPIN" => spin(),
        "EXIT" => std::process::exit(rest.parse().unwrap_or(1)),
        "PID" => format!("{} {}", std::process::id(), thread_id()?),
        "MASTER" => facts.master.to_string(),
        "PEER" => facts.peer.to_string(),
        "STATS" => json(&facts.stats),
        "CLOSE" => return Ok(Answer::Close),
        "SHUTDOWN" => return Ok(Answer::Shutdown),
        "HELP" => HELP.to_owned(),
        _ => "ERR unknown command; HELP lists them".to_owned(),
    };
    Ok(Answer::Line(said))
}

/// Linux shows each thread's number where it looks up its own.
fn thread_id() -> std::io::Result<String> {
    let link = std::fs::read_link("/proc/thread-self")?;
    Ok(link.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

#[allow(unsafe_code)]
fn segfault() -> ! {
    // SAFETY: none, on purpose: this is what the client asked for.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) }
    spin()
}

/// Deeper than any stack.
#[allow(unconditional_recursion)]
fn overflow(n: u64) -> u64 {
    let frame = std::hint::black_box([n; 1000]);
    overflow(n + 1) + frame[(n % 1000) as usize]
}

fn spin() -> ! {
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
        ("accept_errors", s.accept_errors),
        ("peer_faults", s.peer_faults),
        ("greeting_source", s.greetings.source),
        ("greeting_header", s.greetings.header),
        ("greeting_timed_out", s.greetings.timed_out),
        ("greeting_left", s.greetings.left),
        ("greeting_stopped", s.greetings.stopped),
        ("greeting_system", s.greetings.system),
        ("greeting_tls", s.greetings.tls),
        ("times", s.times.count),
        ("p50_us", s.times.p50.as_micros() as u64),
        ("p90_us", s.times.p90.as_micros() as u64),
        ("p99_us", s.times.p99.as_micros() as u64),
        ("p999_us", s.times.p999.as_micros() as u64),
        ("longest_us", s.times.longest.as_micros() as u64),
        ("source_at_once", s.sources.at_once),
        ("source_rate", s.sources.rate),
        ("source_uncounted", s.sources.uncounted),
    ];
    let fields: Vec<String> = fields.iter().map(|(name, n)| format!("\"{name}\": {n}")).collect();
    format!("{{{}}}", fields.join(", "))
}
