//! RFC 1939, with STLS (RFC 2595). All clients with the password have the same messages.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use socketserver::{Connection, HandlerResult};

use crate::Mail;

/// What a client sees: the messages that were there when it logged in, and those that it deletes with QUIT, by number.
struct Mailbox {
    messages: Vec<PathBuf>,
    deleted: BTreeSet<usize>,
}

impl Mail {
    pub fn pop3(&self, conn: &mut Connection) -> HandlerResult {
        let mut mailbox: Option<Mailbox> = None;
        write!(conn, "+OK\r\n")?;
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let reply = match (command.to_ascii_uppercase().as_str(), &mut mailbox) {
                ("CAPA", _) => {
                    let tls = self.offered_tls(conn).map_or("", |_| "STLS\r\n");
                    format!("+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\n{tls}.")
                }
                ("QUIT", mailbox) => {
                    let deleted = mailbox.as_ref().map_or(Ok(()), Mailbox::delete);
                    return Ok(write!(conn, "{}\r\n", if deleted.is_ok() { "+OK bye" } else { "-ERR some are left" })?);
                }
                ("STLS", None) if let Some(tls) = self.offered_tls(conn) => {
                    write!(conn, "+OK\r\n")?;
                    conn.start_tls(tls)?;
                    continue;
                }
                ("USER", None) => "+OK".to_owned(),
                ("PASS", None) if self.password.as_deref().is_some_and(|password| password != argument) => {
                    return Ok(write!(conn, "-ERR [AUTH] that is not it\r\n")?);
                }
                ("PASS", None) => {
                    mailbox = Some(Mailbox { messages: self.folder.messages()?, deleted: BTreeSet::new() });
                    "+OK".to_owned()
                }
                (_, None) => "-ERR USER and PASS come first".to_owned(),
                (command, Some(mailbox)) => mailbox.answer(conn, command, argument)?,
            };
            write!(conn, "{reply}\r\n")?;
        }
        Ok(())
    }
}

impl Mailbox {
    fn answer(&mut self, conn: &mut Connection, command: &str, argument: &str) -> HandlerResult<String> {
        let number = argument.parse::<usize>().ok().filter(|number| !self.deleted.contains(number));
        let one = number.and_then(|number| Some((number, self.messages.get(number.checked_sub(1)?)?)));
        let entry = |path: &Path| match command {
            "LIST" => size(path).to_string(),
            _ => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), // it has this name for ever
        };
        match (command, one) {
            ("STAT", _) => {
                let bytes: u64 = self.left().map(|(_, path)| size(path)).sum();
                return Ok(format!("+OK {} {bytes}", self.left().count()));
            }
            ("LIST" | "UIDL", Some((number, path))) => return Ok(format!("+OK {number} {}", entry(path))),
            ("LIST" | "UIDL", None) if argument.is_empty() => {
                let lines = self.left().map(|(number, path)| format!("{number} {}\r\n", entry(path)));
                return Ok(format!("+OK\r\n{}.", lines.collect::<String>()));
            }
            ("RETR", Some((_, path))) => return retrieve(conn, path),
            ("DELE", Some((number, _))) => drop(self.deleted.insert(number)),
            ("LIST" | "UIDL" | "RETR" | "DELE", None) => return Ok("-ERR there is no such message".to_owned()),
            ("RSET", _) => self.deleted.clear(),
            ("NOOP", _) => {}
            _ => return Ok("-ERR this is not served".to_owned()),
        }
        Ok("+OK".to_owned())
    }

    fn left(&self) -> impl Iterator<Item = (usize, &PathBuf)> {
        (1..).zip(&self.messages).filter(|(number, _)| !self.deleted.contains(number))
    }

    /// What is gone already, another client has deleted.
    fn delete(&self) -> io::Result<()> {
        let paths = self.deleted.iter().filter_map(|number| self.messages.get(number - 1));
        paths.map(fs::remove_file).filter(|r| !matches!(r, Err(e) if e.kind() == io::ErrorKind::NotFound)).collect()
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len()) // another client may have deleted it
}

/// Sends a message. A dot at the beginning of a line is doubled, since a line of one dot is the end, which is returned.
fn retrieve(conn: &mut Connection, path: &Path) -> HandlerResult<String> {
    let Ok(message) = fs::read(path) else { return Ok("-ERR another client has deleted it".to_owned()) };
    write!(conn, "+OK\r\n")?;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        conn.write_all(if line.starts_with(b".") { b"." } else { b"" })?;
        conn.write_all(line)?;
    }
    Ok(".".to_owned())
}
