//! Takes mail for anyone by SMTP and gives it out by POP3: for programs that send mail, and for their tests. For instance
//! `cargo run --bin mail -- 127.0.0.1:1234 --pop3 127.0.0.1:1235`, and `swaks --server 127.0.0.1:1234 --to a@example.org`.
//!
//! Two servers in one: `smtp.rs` and `pop3.rs` have a handler each. They share the folder here: a file for each message.

mod pop3;
mod smtp;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::{tls, AnyError};
use socketserver::{Addr, Connection, HandlerResult, ServerBuilder, StreamRequestHandler, TlsConfig};

/// How long a client may think (RFC 5321, section 4.5.3.2).
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

/// The messages, each a file whose name ends with `.eml`.
struct Folder(PathBuf);

impl Folder {
    /// The oldest first.
    fn messages(&self) -> io::Result<Vec<PathBuf>> {
        let paths: io::Result<Vec<_>> = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "eml"));
        paths.sort_unstable();
        Ok(paths)
    }

    /// Once it returns, the message outlives the end of the process and of the machine. Before, nobody sees it. `number`
    /// tells messages apart that arrive at the same time.
    fn keep(&self, message: &[u8], number: u64) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_nanos();
        let part = self.0.join(format!("{now:020}-{number:05}.part"));
        let keep = || {
            let mut file = File::create_new(&part)?;
            file.write_all(message).and_then(|()| file.sync_all())?;
            fs::rename(&part, part.with_extension("eml"))?;
            File::open(&self.0)?.sync_all()
        };
        keep().inspect_err(|_| drop(fs::remove_file(&part)))
    }
}

fn main() -> Result<(), AnyError> {
    let own = [
        ("strategy S", "threading, forking or sequential [threading]"),
        ("pop3 ADDR", "where POP3 is served, on another port [127.0.0.1:0, any free one]"),
        ("folder DIR", "where the messages are [mailbox]"),
        ("password WORD", "what POP3 asks for [any word]"),
    ];
    let args = common::args("Takes mail by SMTP and gives it out by POP3.", &[&own, common::LIMITS, &tls::TLS[..2]]);
    let folder = Folder(args.choice("folder", "mailbox").into());
    fs::create_dir_all(&folder.0).map_err(|e| format!("{}: {e}", folder.0.display()))?;
    let (password, pop3_port) = (args.get("password"), AtomicU16::new(0));
    let mail = Arc::new(Mail { folder, password, tls: args.tls_config(), pop3_port });
    let builder = ServerBuilder::new().max_connections(100).idle_timeout(IDLE).read_timeout(IDLE);
    let builder = args.limits(builder.handle_signals()).listen(args.choice("pop3", "127.0.0.1:0"));
    let mut server = builder.strategy(args.strategy()).bind(&args.addr, mail.clone())?;
    mail.pop3_port.store(server.local_addrs().last().and_then(Addr::port).unwrap_or(0), Relaxed);
    server.local_addrs().for_each(common::listening);
    common::report(&server.serve_forever()?);
    Ok(())
}
