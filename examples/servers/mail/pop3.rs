//! RFC 1939, with STLS (RFC 2595). All clients with the password have the same messages.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use socketserver::{Connection, HandlerResult};

use crate::{next_line, Mail};

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
            let Some(line) = next_line(conn, "-ERR")? else { return Ok(()) };
            let line = String::from_utf8_lossy(&line);
            let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
            let reply = match (command.to_ascii_uppercase().as_str(), &mut mailbox) {
                ("CAPA", _) => {
                    let tls = self.offered_tls(conn).map_or("", |_| "STLS\r\n");
                    write!(conn, "+OK\r\nUSER\r\nUIDL\r\nPIPELINING\r\n{tls}")?;
                    "."
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
                ("USER", None) => "+OK",
                ("PASS", None) if self.password.as_deref().is_some_and(|password| password != argument) => {
                    return Ok(write!(conn, "-ERR [AUTH] that is not it\r\n")?);
                }
                ("PASS", None) => {
                    mailbox = Some(Mailbox { messages: self.folder.messages()?, deleted: BTreeSet::new() });
                    "+OK"
                }
                (_, None) => "-ERR USER and PASS come first",
                (command, Some(mailbox)) => {
                    mailbox.answer(conn, command, argument)?;
                    continue;
                }
            };
            write!(conn, "{reply}\r\n")?;
        }
        Ok(())
    }
}

impl Mailbox {
    fn answer(&mut self, conn: &mut Connection, command: &str, argument: &str) -> HandlerResult {
        let number = argument.parse::<usize>().ok().filter(|number| !self.deleted.contains(number));
        let one = number.and_then(|number| Some((number, self.messages.get(number.checked_sub(1)?)?)));
        match (command, one) {
            ("NOOP", _) => write!(conn, "+OK\r\n")?,
            ("RSET", _) => {
                self.deleted.clear();
                write!(conn, "+OK\r\n")?;
            }
            ("STAT", _) => {
                let bytes: u64 = self.left().map(|(_, path)| size(path)).sum();
                write!(conn, "+OK {} {bytes}\r\n", self.left().count())?;
            }
            ("LIST" | "UIDL", Some((number, path))) => write!(conn, "+OK {number} {}\r\n", entry(command, path))?,
            ("LIST" | "UIDL", None) if argument.is_empty() => {
                write!(conn, "+OK\r\n")?;
                for (number, path) in self.left() {
                    write!(conn, "{number} {}\r\n", entry(command, path))?;
                }
                write!(conn, ".\r\n")?;
            }
            ("RETR", Some((_, path))) => retrieve(conn, path)?,
            ("DELE", Some((number, _))) => {
                self.deleted.insert(number);
                write!(conn, "+OK\r\n")?;
            }
            ("LIST" | "UIDL" | "RETR" | "DELE", None) => write!(conn, "-ERR there is no such message\r\n")?,
            _ => write!(conn, "-ERR this is not served\r\n")?,
        }
        Ok(())
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

/// What a list says of a message: its size in bytes, or a name that it has for ever.
fn entry(command: &str, path: &Path) -> String {
    match command {
        "LIST" => size(path).to_string(),
        _ => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// Another client may have deleted it.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// Sends a message. A dot at the beginning of a line is doubled, since a line of one dot is the end.
fn retrieve(conn: &mut Connection, path: &Path) -> HandlerResult {
    let Ok(file) = File::open(path) else { return Ok(write!(conn, "-ERR another client has deleted it\r\n")?) };
    let (mut message, mut line) = (BufReader::new(file), Vec::new());
    write!(conn, "+OK\r\n")?;
    while message.read_until(b'\n', &mut line)? > 0 {
        if line.starts_with(b".") {
            conn.write_all(b".")?;
        }
        conn.write_all(&line)?;
        line.clear();
    }
    Ok(write!(conn, ".\r\n")?)
}
