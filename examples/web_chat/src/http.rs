//! As much of HTTP/1.1 as a chat needs: the head of a request, by `httparse`, and which answer it gets. No I/O, so both
//! variants use it.

use std::time::Duration;

use httparse::{Status, EMPTY_HEADER};
use socketserver::framing::{Decoded, Decoder, Frame, FrameError};

use crate::ws;

const CHAT: &str = include_str!("page/chat.html");
const NUMBERS: &str = include_str!("page/numbers.html");

/// Longest head of a request, in bytes.
pub const LONGEST_HEAD: usize = 16 << 10;

/// How long a browser may be silent between two requests, and how long a request may take.
pub const IDLE: Duration = Duration::from_secs(60);
pub const REQUEST: Duration = Duration::from_secs(10);

/// The start of a stream of server-sent events, whose end is the end of the connection.
pub const EVENTS: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";

/// The head of a request.
pub struct Head {
    pub method: String,
    pub path: String,
    is_http_1_0: bool,
    headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// True if a header of words with commas between them has this word. Such a header may come several times.
    pub fn has(&self, name: &str, word: &str) -> bool {
        let values = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        values.flat_map(|value| value.split(',')).any(|w| w.trim().eq_ignore_ascii_case(word))
    }

    /// True if another request may follow. No request here has a body; one that has it would be read as the next head.
    fn keeps_alive(&self) -> bool {
        let has_body =
            self.header("transfer-encoding").is_some() || self.header("content-length").is_some_and(|n| n != "0");
        !has_body && !self.is_http_1_0 && !self.has("connection", "close")
    }
}

/// Finds the end of a head, and keeps the head until it is taken.
#[derive(Default)]
pub struct Heads(Option<Head>);

impl Heads {
    pub fn take(&mut self) -> Option<Head> {
        self.0.take()
    }
}

impl Decoder for Heads {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        let mut headers = [EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        let too_long = FrameError::TooLong { limit: LONGEST_HEAD, len: unread.len() };
        match head.parse(unread) {
            Ok(Status::Complete(len)) if len > LONGEST_HEAD => Err(too_long),
            Ok(Status::Complete(len)) => {
                self.0 = Some(Head {
                    method: head.method.unwrap_or_default().to_owned(),
                    path: head.path.unwrap_or_default().to_owned(),
                    is_http_1_0: head.version == Some(0),
                    headers: head.headers.iter().map(|h| (h.name.to_owned(), lossy(h.value))).collect(),
                });
                Ok(Decoded::Frame(Frame { payload: 0..len, len }))
            }
            Ok(Status::Partial) if unread.len() > LONGEST_HEAD => Err(too_long),
            Ok(Status::Partial) => Ok(Decoded::More),
            Err(_) => Err(FrameError::Malformed("not the head of an HTTP request")),
        }
    }

    fn reset(&mut self) {}
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a request gets.
pub enum Answer {
    /// These bytes; then another request may follow, or not.
    Reply { bytes: Vec<u8>, keeps_alive: bool },
    /// The numbers as they change.
    Events,
    /// A place in the room, after these bytes.
    Join(String),
}

/// Chooses the answer.
pub fn answer(head: &Head) -> Answer {
    let path = head.path.split('?').next().unwrap_or_default();
    match (head.method.as_str(), path) {
        ("GET" | "HEAD", "/") => reply(head, "200 OK", HTML, CHAT),
        ("GET" | "HEAD", "/stats") => reply(head, "200 OK", HTML, NUMBERS),
        ("GET", "/events") => Answer::Events,
        ("GET", "/ws") => match ws::upgrade(head) {
            Ok(accept) => Answer::Join(accept),
            Err((status, why)) => reply(head, status, TEXT, why),
        },
        ("GET" | "HEAD", _) => reply(head, "404 Not Found", TEXT, "There is / and /stats.\n"),
        _ => reply(head, "405 Method Not Allowed", "text/plain\r\nAllow: GET, HEAD", "GET only.\n"),
    }
}

/// What a head gets that is none.
pub fn refusal(why: &FrameError) -> String {
    let status = match why {
        FrameError::TooLong { .. } => "431 Request Header Fields Too Large",
        _ => "400 Bad Request",
    };
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain";

/// Headers of every answer: a page may load and connect to nothing but this server, and no other page may frame it.
const SAFE: &str =
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
                    X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-cache\r\n";

fn reply(head: &Head, status: &str, kind: &str, body: &str) -> Answer {
    let keeps_alive = head.keeps_alive();
    let connection = if keeps_alive { "keep-alive" } else { "close" };
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n{SAFE}\r\n"
    );
    if head.method != "HEAD" {
        bytes += body;
    }
    Answer::Reply { bytes: bytes.into_bytes(), keeps_alive }
}
