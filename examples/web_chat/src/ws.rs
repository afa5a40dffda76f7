//! WebSocket (RFC 6455) without I/O, by `tungstenite`: the upgrade, what arrives, and frames for many members.

use std::io::{self, Read, Write};
use std::sync::Arc;

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use crate::http::Head;

/// Longest message of a member, in bytes.
const LONGEST: usize = 16 << 10;

/// The answer that makes a WebSocket of the connection; or the status and the reason of a refusal.
pub fn upgrade(head: &Head) -> Result<String, (&'static str, &'static str)> {
    if !head.has("connection", "upgrade") || !head.has("upgrade", "websocket") {
        return Err(("426 Upgrade Required\r\nUpgrade: websocket", "This is for WebSockets.\n"));
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(("426 Upgrade Required\r\nSec-WebSocket-Version: 13", "Version 13 only.\n"));
    }
    // A page of another site must not talk in its visitor's name. Clients that are no browsers send no Origin.
    let is_ours = |origin: &str| origin.split_once("://").map(|(_, host)| host) == head.header("host");
    if !head.header("origin").is_none_or(is_ours) {
        return Err(("403 Forbidden", "This page may not join.\n"));
    }
    let key = head.header("sec-websocket-key").ok_or(("400 Bad Request", "Sec-WebSocket-Key is missing.\n"))?;
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    ))
}

/// A text as one frame.
pub fn text_frame(text: &str) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(text.len() + 10);
    let frame = Frame::message(text.to_owned(), OpCode::Data(Data::Text), true);
    let _ = frame.format(&mut bytes); // a Vec takes all
    bytes.into()
}

/// One member's WebSocket.
pub struct Socket(WebSocketContext);

/// What has become of the bytes that have arrived.
pub struct Heard {
    /// The member's messages.
    pub texts: Vec<Utf8Bytes>,
    /// What is to be sent: pongs, and the answer to a close.
    pub output: Vec<u8>,
    /// Why no more is to be read.
    pub end: Option<End>,
}

pub enum End {
    /// The member has said goodbye.
    Closed,
    /// The member has broken the protocol, and is told so.
    Fault(String),
}

impl Socket {
    pub fn new() -> Self {
        // 4 KiB to read: the default makes 128 KiB for each member.
        let config = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(LONGEST))
            .max_frame_size(Some(LONGEST));
        Self(WebSocketContext::new(Role::Server, Some(config)))
    }

    /// Takes all that has arrived.
    pub fn hear(&mut self, input: &[u8]) -> Heard {
        let mut pipe = Pipe { input, output: Vec::new() };
        let mut texts = Vec::new();
        let end = loop {
            match self.0.read(&mut pipe) {
                Ok(Message::Text(text)) => texts.push(text),
                Ok(Message::Binary(_)) => {
                    let _ = self.0.close(&mut pipe, because(CloseCode::Unsupported)); // a Vec takes all
                    break Some(End::Fault("a member sends binary messages".to_owned()));
                }
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => break None,
                Err(Error::ConnectionClosed) => break Some(End::Closed),
                Err(fault) => {
                    let _ = self.0.close(&mut pipe, because(code_of(&fault)));
                    break Some(End::Fault(fault.to_string()));
                }
            }
        };
        Heard { texts, output: pipe.output, end }
    }

    /// The frame that tells a member of the server's stop.
    pub fn going_away(&mut self) -> Vec<u8> {
        let mut pipe = Pipe { input: &[], output: Vec::new() };
        let _ = self.0.close(&mut pipe, because(CloseCode::Away)); // a Vec takes all
        pipe.output
    }
}

fn because(code: CloseCode) -> Option<CloseFrame> {
    Some(CloseFrame { code, reason: Utf8Bytes::default() })
}

fn code_of(fault: &Error) -> CloseCode {
    match fault {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    }
}

/// A stream for `tungstenite` that never waits.
struct Pipe<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.input.is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.input.read(buf),
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
