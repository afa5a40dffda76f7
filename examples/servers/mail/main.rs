//! Takes mail for anyone by SMTP and gives it out by POP3: for programs that send mail, and for their tests. For instance
//! `cargo run --bin mail -- 127.0.0.1:1234 --pop3 127.0.0.1:1235`, and `swaks --server 127.0.0.1:1234 --to a@example.org`.
//!
//! It is one server with two addresses, so it has one strategy, one limit and one stop. `main.rs` has the folder, in which
//! each message is a file; `smtp.rs` and `pop3.rs` have a handler each.

mod pop3;
mod smtp;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{tls, AnyError};
use socketserver::framing::{LineDecoder, LineEnd};
use socketserver::{Addr, Connection, HandlerResult, PeerFault, ServerBuilder, StreamRequestHandler, TlsConfig};

/// Longest message, in bytes. A handler has it in memory.
const LONGEST: usize = 10 << 20;

/// How many connections there are at once.
const CONNECTIONS: usize = 100;

/// As long as a client may think, also within a message (RFC 5321, section 4.5.3.2).
const IDLE: Duration = Duration::from_secs(300);

struct Mail {
    folder: Folder,
    password: Option<String>,
    tls: Option<TlsConfig>,
    pop3_port: AtomicU16,
}

impl StreamRequestHandler for Mail {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        match conn.local_addr()?.port() == Some(self.pop3_port.load(Relaxed)) {
            true => self.pop3(conn),
            false => self.smtp(conn),
        }
    }
}

impl Mail {
    /// The certificate, if there is one and the connection has not begun TLS.
    fn offered_tls(&self, conn: &Connection) -> Option<&TlsConfig> {
        self.tls.as_ref().filter(|_| conn.tls().is_none())
    }
}

/// The next line. It ends with CR LF and has no other CR or LF. A server that took one of them for a line's end would let
/// a sender hide a second message in the first (SMTP smuggling).
fn next_line(conn: &mut Connection, error: &str) -> HandlerResult<Option<Vec<u8>>> {
    let mut lines = LineDecoder::new(LineEnd::Delimiter(b"\n".to_vec()));
    let Some(line) = conn.read_frame(&mut lines)? else { return Ok(None) };
    match line.strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') => Ok(Some(line.to_vec())),
        _ => {
            write!(conn, "{error} lines end with CR LF\r\n")?;
            Err(PeerFault::new("a line that does not end with CR LF, or has a CR within").into())
        }
    }
}

/// The messages, each a file whose name ends with `.eml`.
struct Folder(PathBuf);

impl Folder {
    /// Most messages in it.
    const MOST: usize = 10_000;

    /// The oldest first.
    fn messages(&self) -> io::Result<Vec<PathBuf>> {
        let paths = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.path()));
        let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "eml"));
        paths.sort_unstable();
        Ok(paths)
    }

    /// Once it returns, the message outlives the end of the process and of the machine. Before, nobody sees it. `number`
    /// tells messages apart that arrive at the same time.
    fn keep(&self, message: &[u8], number: u16) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let part = self.0.join(format!("{:020}-{number:05}.part", now.as_nanos()));
        let mut file = File::create(&part)?;
        let kept = file.write_all(message).and_then(|()| file.sync_all());
        let kept = kept.and_then(|()| fs::rename(&part, part.with_extension("eml")));
        if kept.is_err() {
            let _ = fs::remove_file(&part);
        }
        kept.and_then(|()| File::open(&self.0)?.sync_all())
    }
}

fn main() -> Result<(), AnyError> {
    let own = [
        ("strategy S", "threading, thread-pool, forking or sequential [threading]"),
        ("workers N", "threads of a thread-pool [16]"),
        ("pop3 ADDR", "where POP3 is served, on another port [127.0.0.1:0, any free one]"),
        ("folder DIR", "where the messages are [mailbox]"),
        ("password WORD", "what POP3 asks for [any word]"),
    ];
    let args = common::args("Takes mail by SMTP and gives it out by POP3.", &[&own, common::LIMITS, &tls::TLS[..2]]);
    let folder = PathBuf::from(args.choice("folder", "mailbox"));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let tls = match (args.get::<String>("tls-cert"), args.get::<String>("tls-key")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some(TlsConfig::from_pem(cert, key)?),
        _ => common::fail("TLS wants both --tls-cert FILE and --tls-key FILE"),
    };
    let mail = Mail { folder: Folder(folder), password: args.get("password"), tls, pop3_port: AtomicU16::new(0) };
    let mail = Arc::new(mail);
    let builder = ServerBuilder::new().max_connections(CONNECTIONS).idle_timeout(IDLE).read_timeout(IDLE);
    let builder = args.limits(builder.handle_signals()).listen(args.choice("pop3", "127.0.0.1:0"));
    let mut server = builder.strategy(args.strategy()).bind(&args.addr, mail.clone())?;
    mail.pop3_port.store(server.local_addrs().last().and_then(Addr::port).unwrap_or(0), Relaxed);
    server.local_addrs().for_each(common::listening);
    common::report(&server.serve_forever()?);
    Ok(())
}
