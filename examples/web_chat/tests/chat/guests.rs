//! The chat as a process, and its guests: by lines, and by WebSocket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

use super::support::{tool, until, Client, Server, LIMIT};

/// Both variants.
pub const STRATEGIES: &[&str] = &["event-loop", "threading"];

/// A running chat.
pub struct Chat {
    pub server: Server,
    pub lines: String,
}

impl Chat {
    pub fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    pub fn start_at(addr: &str, args: &[&str]) -> Self {
        let server = Server::start_command(Command::new(env!("CARGO_BIN_EXE_web_chat")), addr, args);
        until("the second line", || server.stdout().len() >= 2);
        let lines = server.stdout()[1].strip_prefix("listening on ").unwrap().to_owned();
        Self { server, lines }
    }

    pub fn page(&self) -> String {
        format!("http://{}/", self.server.addr())
    }

    /// A guest by lines who has joined.
    pub fn liner(&self, name: &str) -> Client {
        let mut client = Client::connect(&self.lines);
        assert_eq!(client.line(), "What is your name?");
        assert_eq!(client.ask(name), format!("* {name} has joined"));
        client
    }

    /// Starts `nc` as a guest, and waits until it has joined. `None` where `nc` is not installed.
    pub fn nc(&self, name: &str) -> Option<Nc> {
        let (host, port) = self.lines.rsplit_once(':').unwrap();
        let mut command = tool("nc")?;
        command.args([host, port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (keys, screen, (send, lines)) = (child.stdin.take(), child.stdout.take().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            BufReader::new(screen).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
        });
        let mut nc = Nc { child, keys: keys.unwrap(), lines };
        assert_eq!(nc.line(), "What is your name?");
        nc.enter(name);
        assert_eq!(nc.line(), format!("* {name} has joined"));
        Some(nc)
    }

    /// The answer to these bytes of HTTP, up to the end of the connection.
    pub fn http(&self, request: &str) -> String {
        let mut client = self.server.connect();
        client.send(request);
        client.rest()
    }

    /// A guest by WebSocket, without a name.
    pub fn guest(&self) -> Guest {
        let mut client = self.server.connect();
        client.send(UPGRADE);
        assert_eq!(client.line(), "HTTP/1.1 101 Switching Protocols");
        while !client.line().is_empty() {}
        Guest(WebSocket::from_raw_socket(client.into_tcp(), Role::Client, Some(WebSocketConfig::default())))
    }

    /// A guest by WebSocket who has joined.
    pub fn member(&self, name: &str) -> Guest {
        let mut guest = self.guest();
        guest.say(name);
        assert_eq!(guest.text(), format!("* {name} has joined"));
        guest
    }
}

/// Asks for a WebSocket. The key is the one of RFC 6455.
pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: chat\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A real `nc`, as at a terminal. Dropping it ends it.
pub struct Nc {
    child: Child,
    keys: ChildStdin,
    lines: Receiver<String>,
}

impl Nc {
    pub fn enter(&mut self, line: &str) {
        self.keys.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    #[track_caller]
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap()
    }
}

impl Drop for Nc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Guest(pub WebSocket<TcpStream>);

impl Guest {
    pub fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// The next text.
    #[track_caller]
    pub fn text(&mut self) -> String {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return text.to_string(),
                Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The code with which the server closes, after whatever texts.
    #[track_caller]
    pub fn close_code(&mut self) -> u16 {
        self.0.get_ref().set_read_timeout(Some(LIMIT)).unwrap();
        loop {
            match self.0.read() {
                Ok(Message::Close(Some(frame))) => return frame.code.into(),
                Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => {}
                Ok(Message::Close(None)) | Err(_) => panic!("no code"),
                Ok(_) => {}
            }
        }
    }

    /// The answer to `/who`, past anything else.
    #[track_caller]
    pub fn until_who(&mut self) -> String {
        loop {
            let text = self.text();
            if text.starts_with("* here: ") {
                return text;
            }
        }
    }

    /// Waits for a text, past any others.
    #[track_caller]
    pub fn until_text(&mut self, wanted: &str) {
        while self.text() != wanted {}
    }
}
