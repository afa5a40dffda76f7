//! RFC 5321, with STARTTLS (RFC 3207). Commands are read by `smtp-proto`.

use std::io::{self, Write};

use smtp_proto::Request;
use socketserver::framing::{LineDecoder, LineEnd};
use socketserver::{Connection, HandlerResult, PeerFault};

use crate::Mail;

/// Longest message in bytes, since a handler has it in memory; most recipients of one; most messages in the folder.
const LONGEST: usize = 10 << 20;
const MOST_RECIPIENTS: usize = 100;
const MOST: usize = 10_000;

impl Mail {
    pub fn smtp(&self, conn: &mut Connection) -> HandlerResult {
        let mut mail = (Vec::new(), 0); // the first lines of a message, which say whose it is; the number of recipients
        write!(conn, "220 localhost ESMTP\r\n")?;
        while conn.next_request()? {
            let Some(mut line) = next_line(conn)? else { return Ok(()) };
            line.extend_from_slice(b"\r\n");
            let reply = match Request::parse(&mut line.iter()) {
                Ok(Request::Ehlo { .. }) => {
                    let tls = self.offered_tls(conn).map_or("", |_| "250-STARTTLS\r\n");
                    write!(conn, "250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n{tls}250-SIZE {LONGEST}\r\n")?;
                    "250 ENHANCEDSTATUSCODES"
                }
                Ok(Request::Helo { .. }) => "250 localhost",
                Ok(Request::Mail { .. }) if !mail.0.is_empty() => "503 5.5.1 one sender, please",
                Ok(Request::Mail { from }) if from.size > LONGEST => "552 5.3.4 it is too long",
                Ok(Request::Mail { from }) => {
                    write!(mail.0, "Return-Path: <{}>\r\n", from.address)?;
                    "250 2.1.0 OK"
                }
                Ok(Request::Rcpt { .. }) if mail.0.is_empty() => "503 5.5.1 MAIL comes first",
                Ok(Request::Rcpt { .. }) if mail.1 == MOST_RECIPIENTS => "452 4.5.3 too many recipients",
                Ok(Request::Rcpt { to }) => {
                    mail.1 += 1;
                    write!(mail.0, "Delivered-To: {}\r\n", to.address)?;
                    "250 2.1.5 OK"
                }
                Ok(Request::Data) if mail.1 == 0 => "503 5.5.1 RCPT comes first",
                Ok(Request::Data) => self.data(conn, std::mem::take(&mut mail).0)?,
                Ok(Request::Rset) => {
                    mail = (Vec::new(), 0);
                    "250 2.0.0 OK"
                }
                Ok(Request::StartTls) if let Some(tls) = self.offered_tls(conn) => {
                    write!(conn, "220 2.0.0 go ahead\r\n")?;
                    conn.start_tls(tls)?; // it fails if more has been said in plain text
                    mail = (Vec::new(), 0);
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
    fn data(&self, conn: &mut Connection, mut message: Vec<u8>) -> HandlerResult<&'static str> {
        if self.folder.messages()?.len() >= MOST {
            return Ok("452 4.3.1 the folder is full");
        }
        write!(conn, "354 end with a dot\r\n")?;
        loop {
            let line = next_line(conn)?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
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
        if let Err(e) = self.folder.keep(&message, conn.id()) {
            write!(conn, "421 4.3.1 it cannot be kept\r\n")?;
            return Err(format!("a message cannot be kept: {e}").into());
        }
        Ok("250 2.0.0 kept")
    }
}

/// The next line. It ends with CR LF and has no other CR or LF. A server that took one of them for a line's end would let
/// a sender hide a second message in the first (SMTP smuggling).
fn next_line(conn: &mut Connection) -> HandlerResult<Option<Vec<u8>>> {
    let line = conn.read_frame(&mut LineDecoder::new(LineEnd::Delimiter(b"\n".to_vec())))?;
    let Some(line) = line else { return Ok(None) };
    match line.strip_suffix(b"\r") {
        Some(line) if !line.contains(&b'\r') => Ok(Some(line.to_vec())),
        _ => {
            write!(conn, "521 5.5.2 lines end with CR LF\r\n")?;
            Err(PeerFault::new("a line that does not end with CR LF, or has a CR within").into())
        }
    }
}
