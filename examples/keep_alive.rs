//! HTTP/1.1 with keep-alive, request by request: thousands of idle clients on a few threads.
//! `cargo run --example keep_alive -- 127.0.0.1:8080 --strategy thread-pool --workers 4`, then
//! `curl -i http://127.0.0.1:8080/hello` or `wrk -c 1000 http://127.0.0.1:8080/`.
//!
//! It answers GET and HEAD by the path, and POST by the body. Between two requests a client has no thread.

mod common;

use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};
use std::time::Duration;

use common::any::STRATEGY;
use socketserver::{factory, per_request, Connection, HandlerResult, Next, PeerFault, Protocol, ServerBuilder};

/// The most headers of a request.
const HEADERS: usize = 64;
/// The longest head of a request.
const HEAD: usize = 16 << 10;
const TOO_LARGE: &str = "431 Request Header Fields Too Large";
/// The longest body that is taken.
const BODY: usize = 1 << 20;

/// What a request asks for.
struct Head {
    length: usize,
    is_head: bool,
    allowed: bool,
    target: String,
    body: usize,
    keeps: bool,
    continues: bool,
}

/// Serves one request.
fn serve(conn: &mut Connection) -> HandlerResult<Next> {
    let head = match parse(conn.fill_buf()?) {
        Ok(Some(head)) => head,
        // Not whole yet: called again when more has come. A client that sends slowly holds no thread.
        Ok(None) => return Ok(Next::More),
        Err(status) => {
            answer(conn, status, "", true, false)?;
            return Err(PeerFault::new(status).into());
        }
    };
    conn.consume(head.length);
    if head.body > BODY {
        answer(conn, "413 Content Too Large", "", true, false)?;
        return Ok(Next::Close);
    }
    if head.continues && head.body > 0 {
        conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    // The rest of the body is waited for here, under the limits of a request.
    let mut body = vec![0; head.body];
    conn.read_exact(&mut body)?;
    let (status, text) = match head.allowed {
        true if body.is_empty() => ("200 OK", format!("you asked for {}\n", head.target)),
        true => ("200 OK", String::from_utf8_lossy(&body).into_owned()),
        false => ("405 Method Not Allowed", String::new()),
    };
    let keeps = head.keeps && !conn.is_stopping();
    answer(conn, status, &text, !head.is_head, keeps)?;
    Ok(if keeps { Next::Request } else { Next::Close })
}

/// Parses the head of a request. `None` if it is not whole.
///
/// # Errors
/// The status to refuse it with.
fn parse(input: &[u8]) -> Result<Option<Head>, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) => length,
        // The handler would not be called again: see `max_request_length`.
        Ok(httparse::Status::Partial) if input.len() >= HEAD => return Err(TOO_LARGE),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
        Err(_) => return Err("400 Bad Request"),
    };
    let method = request.method.unwrap_or_default();
    let values = |name: &'static str| {
        request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    // A body whose length is not sure would be taken for the next request (RFC 9112, section 6.3).
    if values("transfer-encoding").next().is_some() {
        return Err("501 Not Implemented");
    }
    let mut lengths = values("content-length");
    let body = match lengths.next() {
        None => 0,
        Some(digits) if lengths.next().is_none() && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
        }
        Some(_) => return Err("400 Bad Request"),
    };
    let says = |word: &str| {
        let mut words = values("connection").filter_map(|value| std::str::from_utf8(value).ok());
        words.any(|value| value.split(',').any(|said| said.trim().eq_ignore_ascii_case(word)))
    };
    let is_new = request.version == Some(1);
    Ok(Some(Head {
        length,
        is_head: method == "HEAD",
        allowed: ["GET", "HEAD", "POST"].contains(&method),
        target: request.path.unwrap_or_default().to_owned(),
        body,
        keeps: if is_new { !says("close") } else { says("keep-alive") },
        continues: is_new && values("expect").any(|value| value.eq_ignore_ascii_case(b"100-continue")),
    }))
}

fn answer(conn: &mut Connection, status: &str, text: &str, with_text: bool, keeps: bool) -> HandlerResult {
    let mut head = String::with_capacity(128);
    let connection = if keeps { "keep-alive" } else { "close" };
    write!(head, "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n")?;
    write!(head, "Content-Length: {}\r\nConnection: {connection}\r\n\r\n", text.len())?;
    conn.write_all(head.as_bytes())?;
    if with_text {
        conn.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Speaks HTTP/1.1 with keep-alive.", &[STRATEGY, common::any::WORKERS, common::LIMITS]);
    if args.choice("strategy", "").contains("event-loop") || args.choice("inner", "").contains("event-loop") {
        common::fail("an event loop takes protocols; this is a handler of requests");
    }
    let builder = ServerBuilder::new()
        .handle_signals()
        .idle_timeout(Duration::from_secs(60)) // between two requests
        .request_timeout(Duration::from_secs(30)) // from the first byte of a request to its answer
        .max_request_length(HEAD);
    let none = factory(|_peer| NoProtocol);
    let mut server = args.bind(args.limits(builder), per_request(serve), none)?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}

/// The command line wants one.
struct NoProtocol;

impl Protocol for NoProtocol {
    fn data_received(&mut self, transport: &mut socketserver::Transport<'_>, _data: &[u8]) -> HandlerResult {
        transport.close();
        Ok(())
    }
}
