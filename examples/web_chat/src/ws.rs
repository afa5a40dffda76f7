//! WebSocket (RFC 6455) without I/O, by `tungstenite`: the upgrade, what arrives, and frames for many members.
//! A [`Socket`] works on any stream that never waits: the loop lends one, and so does a connection of a thread.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tungstenite::error::ProtocolError;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message, Utf8Bytes};

use crate::http::Head;

/// Longest message of a member, in bytes.
const LONGEST: usize = 16 << 10;

/// How long a stop waits for a member's answer to its 1001. A browser whose answer finds no connection takes the end for
/// a loss.
pub const GOODBYE: Duration = Duration::from_secs(2);

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

/// What a member does next.
pub enum Next {
    Says(Utf8Bytes),
    /// Nothing until more arrives.
    Waits,
    /// It has gone, in order or not.
    Leaves,
    /// It has broken the protocol, and is told so.
    Errs(String),
}

impl Socket {
    pub fn new() -> Self {
        // 1 KiB to read, which most messages fit into: the default makes 128 KiB for each member.
        let config = WebSocketConfig::default()
            .read_buffer_size(1 << 10)
            .write_buffer_size(0)
            .max_message_size(Some(LONGEST))
            .max_frame_size(Some(LONGEST));
        Self(WebSocketContext::new(Role::Server, Some(config)))
    }

    /// Takes the next message from a stream that never waits. Answers to pings and closes go into the stream.
    pub fn next(&mut self, stream: &mut (impl Read + Write)) -> Next {
        loop {
            match self.0.read(stream) {
                Ok(Message::Text(text)) => return Next::Says(text),
                Ok(Message::Binary(_)) => {
                    self.close(stream, CloseCode::Unsupported);
                    return Next::Errs("a member sends binary messages".to_owned());
                }
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return Next::Waits,
                Err(Error::ConnectionClosed | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Next::Leaves;
                }
                Err(fault) => {
                    self.close(stream, code_of(&fault));
                    return Next::Errs(fault.to_string());
                }
            }
        }
    }

    /// Tells a member of the server's stop.
    pub fn go_away(&mut self, stream: &mut (impl Read + Write)) {
        self.close(stream, CloseCode::Away);
    }

    /// Tells a member that it has said too much.
    pub fn cut(&mut self, stream: &mut (impl Read + Write)) {
        self.close(stream, CloseCode::Policy);
    }

    fn close(&mut self, stream: &mut (impl Read + Write), code: CloseCode) {
        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
        if let Err(e) = self.0.close(stream, Some(frame)) {
            log::debug!("a member was not told why its connection ends: {e}");
        }
    }
}

fn code_of(fault: &Error) -> CloseCode {
    match fault {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => CloseCode::Protocol,
    }
}
