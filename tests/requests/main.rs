//! Handlers that are called once for each request: what they promise on every strategy, and connections that are
//! parked between two requests.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod beside;
mod handlers;
mod more;
mod parked;
mod stop;
mod tls;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use kit::{connect, Running};
use socketserver::{Connection, HandlerResult, Next};

const ANY: &str = "127.0.0.1:0";

/// Answers a line by itself; `bye` closes, `fail` is an error, `panic` panics, `stop` shuts the server down.
fn line(conn: &mut Connection) -> HandlerResult<Next> {
    let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
    match line.as_str() {
        "bye" => return Ok(Next::Close),
        "fail" => return Err("asked to fail".into()),
        "panic" => panic!("asked to panic"),
        "stop" => conn.server().shutdown(),
        _ => {}
    }
    conn.send_line(line)?;
    Ok(Next::Request)
}

/// A client that talks in lines.
struct Talker(BufReader<TcpStream>);

impl Talker {
    fn to(server: &Running) -> Self {
        Self::at(server.addr())
    }

    fn at(addr: SocketAddr) -> Self {
        let stream = connect(addr);
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// Reads a line with its end; nothing at the end of the stream, also after a reset.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(&format!("{line}\n"));
        self.hear()
    }

    /// Asks, and expects the same back.
    fn echo(&mut self, line: &str) {
        assert_eq!(self.ask(line), format!("{line}\n"));
    }
}
