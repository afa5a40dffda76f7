//! The chat room of `chat_room` with a thread for each member. Members write to each other through `writer()`.
//! `cargo run --example threaded_chat`, then `nc 127.0.0.1 1234` in several terminals.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::chat::{check_name, printable, HELP};
use common::tls::TLS;
use socketserver::connection::ConnectionWriter;
use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandler, Threading};

type Members = BTreeMap<u64, (String, ConnectionWriter)>;

/// One value for all members. It is used on many threads.
#[derive(Default)]
struct Room {
    members: Mutex<Members>,
    next: AtomicU64,
}

impl StreamRequestHandler for Room {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        let id = self.next.fetch_add(1, Relaxed);
        let talked = self.talk(conn, id);
        let left = self.members().remove(&id);
        if let Some((name, _)) = left {
            self.tell_others(id, &format!("* {name} has left"));
        }
        talked
    }
}

impl Room {
    fn talk(&self, conn: &mut Connection, id: u64) -> HandlerResult {
        let writer = conn.writer()?;
        writer.send_line("What is your name?")?;
        let mut name = None;
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            let line = printable(&line);
            match (&name, line.split_once(' ').unwrap_or((&line, ""))) {
                (None, _) => self.enter(&writer, id, &mut name, line.trim())?,
                (Some(_), ("/quit", _)) => break,
                (Some(_), ("/who", _)) => {
                    let names: Vec<String> = self.members().values().map(|(name, _)| name.clone()).collect();
                    writer.send_line(names.join(", "))?;
                }
                (Some(_), ("/nick", new)) => self.enter(&writer, id, &mut name, new.trim())?,
                (Some(_), (command, _)) if command.starts_with('/') => writer.send_line(HELP)?,
                (Some(_), ("", "")) => {}
                (Some(name), _) => self.tell_others(id, &format!("{name}: {line}")),
            }
        }
        Ok(())
    }

    /// Takes a name, the first or another one, unless somebody has it.
    fn enter(&self, writer: &ConnectionWriter, id: u64, mine: &mut Option<String>, name: &str) -> HandlerResult {
        let mut members = self.members();
        let others = members.iter().filter(|(other, _)| **other != id).map(|(_, (name, _))| name);
        if let Err(why) = check_name(name, others) {
            return Ok(writer.send_line(why)?);
        }
        members.insert(id, (name.to_owned(), writer.clone()));
        drop(members);
        let news = match mine.replace(name.to_owned()) {
            Some(old) => format!("* {old} is now {name}"),
            None => format!("* {name} has joined"),
        };
        self.tell_others(id, &news);
        Ok(())
    }

    /// A member that does not read misses what comes while 1 MiB waits for it. It costs the others nothing.
    fn tell_others(&self, id: u64, text: &str) {
        let line: Arc<[u8]> = format!("{text}\n").into_bytes().into();
        for (_, (_, writer)) in self.members().iter().filter(|(other, _)| **other != id) {
            let _ = writer.send(line.clone());
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn main() -> socketserver::Result<()> {
    let about = format!("A chat room with a thread for each member. {HELP}");
    let args = common::args(&about, &[common::LIMITS, TLS]);
    let builder = ServerBuilder::new().handle_signals().strategy(Threading::new());
    let mut server = args.tls(args.limits(builder)).bind(&args.addr, Room::default())?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
