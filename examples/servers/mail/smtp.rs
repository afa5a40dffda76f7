//! RFC 5321, with STARTTLS (RFC 3207). Commands are read by `smtp-proto`.

use std::io::{Error, ErrorKind, Write};

use smtp_proto::Request;
use socketserver::{Connection, HandlerResult};

use crate::{next_line, Folder, Mail, LONGEST};

/// Most recipients of a message (RFC 5321 wants 100 at least).
const MOST_RECIPIENTS: usize = 100;

/// What stands before the complaint about a line. The connection ends after it.
const BAD_LINE: &str = "521 5.5.2";

impl Mail {
    pub fn smtp(&self, conn: &mut Connection) -> HandlerResult {
        let (mut sender, mut recipients) = (None, Vec::new());
        write!(conn, "220 localhost ESMTP\r\n")?;
        while conn.next_request()? {
            let Some(mut line) = next_line(conn, BAD_LINE)? else { return Ok(()) };
            line.extend_from_slice(b"\r\n");
            let reply = match Request::parse(&mut line.iter()) {
                Ok(Request::Ehlo { .. }) => {
                    let tls = self.offered_tls(conn).map_or("", |_| "250-STARTTLS\r\n");
                    write!(conn, "250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n{tls}250-SIZE {LONGEST}\r\n")?;
                    "250 ENHANCEDSTATUSCODES"
                }
                Ok(Request::Helo { .. }) => "250 localhost",
                Ok(Request::Mail { .. }) if sender.is_some() => "503 5.5.1 one sender, please",
                Ok(Request::Mail { from }) if from.size > LONGEST => "552 5.3.4 it is too long",
                Ok(Request::Mail { from }) => {
                    sender = Some(from.address.into_owned());
                    "250 2.1.0 OK"
                }
                Ok(Request::Rcpt { .. }) if sender.is_none() => "503 5.5.1 MAIL comes first",
                Ok(Request::Rcpt { .. }) if recipients.len() >= MOST_RECIPIENTS => "452 4.5.3 too many recipients",
                Ok(Request::Rcpt { to }) => {
                    recipients.push(to.address.into_owned());
                    "250 2.1.5 OK"
                }
                Ok(Request::Data) if recipients.is_empty() => "503 5.5.1 RCPT comes first",
                Ok(Request::Data) => {
                    let recipients = std::mem::take(&mut recipients);
                    self.data(conn, &sender.take().unwrap_or_default(), &recipients)?
                }
                Ok(Request::Rset) => {
                    (sender, recipients) = (None, Vec::new());
                    "250 2.0.0 OK"
                }
                Ok(Request::StartTls) if let Some(tls) = self.offered_tls(conn) => {
                    write!(conn, "220 2.0.0 go ahead\r\n")?;
                    conn.start_tls(tls)?; // it fails if more has been said in plain text
                    (sender, recipients) = (None, Vec::new());
                    continue;
                }
                Ok(Request::Noop { .. }) => "250 2.0.0 OK",
                Ok(Request::Vrfy { .. }) => "252 2.5.2 send, and see",
                Ok(Request::Quit) => return Ok(write!(conn, "221 2.0.0 bye\r\n")?),
                _ => "502 5.5.1 this is not served",
            };
            write!(conn, "{reply}\r\n")?;
        }
        if conn.is_stopping() {
            write!(conn, "421 4.3.2 the server stops\r\n")?;
        }
        Ok(())
    }

    /// Takes a message, and tells the client that it is kept once it is.
    fn data(&self, conn: &mut Connection, sender: &str, recipients: &[String]) -> HandlerResult<&'static str> {
        if self.folder.messages()?.len() >= Folder::MOST {
            return Ok("452 4.3.1 the folder is full");
        }
        write!(conn, "354 end with a dot\r\n")?;
        let mut message = format!("Return-Path: <{sender}>\r\n").into_bytes();
        recipients.iter().try_for_each(|to| write!(message, "Delivered-To: {to}\r\n"))?;
        loop {
            let line = next_line(conn, BAD_LINE)?.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
            if line == b"." {
                break;
            }
            if message.len() <= LONGEST {
                message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line)); // it was put before a dot
                message.extend_from_slice(b"\r\n");
            }
        }
        if message.len() > LONGEST {
            return Ok("552 5.3.4 it is too long");
        }
        if let Err(e) = self.folder.keep(&message, conn.peer_addr().port().unwrap_or(0)) {
            write!(conn, "421 4.3.1 it cannot be kept\r\n")?;
            return Err(format!("a message cannot be kept: {e}").into());
        }
        Ok("250 2.0.0 kept")
    }
}
