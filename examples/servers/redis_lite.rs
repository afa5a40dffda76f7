//! Keys and values in memory, for Redis's clients: `redis-cli -p 1234`, `redis-benchmark -p 1234 -t get,set -P 16`.
//! One protocol, on any strategy. Its frames are read and written by `redis-protocol` (RESP2).

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use common::any::{STRATEGY, WORKERS};
use redis_protocol::bytes::{Bytes, BytesMut};
use redis_protocol::resp2::types::{BytesFrame as Frame, RangeFrame};
use redis_protocol::resp2::{decode::decode_range, encode::extend_encode};
use socketserver::framing::FrameBuffer;
use socketserver::{factory, Blocking, HandlerResult, Protocol, ServerBuilder, Transport};

/// Longest request, and most words in one.
const LONGEST: usize = 1 << 20;
const MOST_WORDS: usize = 1024;

/// Replies are written in pieces of this size.
const PIECE: usize = 16 << 10;

/// What all connections share; with the bytes that it takes, and may take.
struct Store {
    values: HashMap<Vec<u8>, Bytes>,
    used: usize,
    most: usize,
}

/// What has been read of one request: where its words lie in the input, and how many are still to come.
#[derive(Default)]
struct Request {
    words: Vec<Range<usize>>,
    missing: usize,
    len: usize,
}

impl Request {
    /// Reads on, from where it was at the last call. True if the request is whole. Requests are arrays of bulk strings,
    /// read word by word: a frame within frames cannot exhaust the stack, and no byte is looked at twice.
    fn read(&mut self, input: &[u8]) -> Result<bool, String> {
        if self.len == 0 {
            let Some(count) = length(input, b'*')? else { return Ok(false) };
            self.missing = count.parse().ok().filter(|n| *n <= MOST_WORDS).ok_or("invalid multibulk length")?;
            self.len = count.len() + 3;
        }
        while self.missing > 0 {
            let rest = &input[self.len..];
            let (Some(_), Some((frame, len))) = (length(rest, b'$')?, decode_range(rest).map_err(|e| e.to_string())?)
            else {
                return Ok(false);
            };
            let RangeFrame::BulkString((start, end)) = frame else { return Err("invalid bulk length".to_owned()) };
            self.words.push(self.len + start..self.len + end);
            self.len += len;
            self.missing -= 1;
        }
        Ok(true)
    }
}

/// The number after this sign, once its line is whole. The line is a short one.
fn length(input: &[u8], sign: u8) -> Result<Option<&str>, String> {
    match (input.first(), input.iter().take(24).position(|byte| *byte == b'\n')) {
        (Some(first), _) if *first != sign => Err(format!("expected '{}'", char::from(sign))),
        (_, Some(end)) => {
            let number = std::str::from_utf8(&input[1..end]).ok().and_then(|line| line.strip_suffix('\r'));
            number.map(Some).ok_or_else(|| "expected a number and CR LF".to_owned())
        }
        (_, None) if input.len() < 24 => Ok(None),
        (_, None) => Err("too long a number".to_owned()),
    }
}

struct Session {
    store: Arc<Mutex<Store>>,
    input: FrameBuffer,
    request: Request,
    replies: BytesMut,
    is_over: bool,
}

impl Protocol for Session {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.input.push(data)?;
        self.answer(t)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.answer(t)
    }
}

impl Session {
    /// Answers what has arrived. A client that does not read its replies is answered on when it does.
    fn answer(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        while !t.is_writing_paused() && !t.is_closing() {
            while self.replies.len() < PIECE && !self.is_over && self.step()? {}
            if self.replies.is_empty() {
                break;
            }
            t.write(&self.replies)?;
            self.replies.clear();
            if self.is_over {
                t.close();
            }
        }
        Ok(())
    }

    /// Answers one request. False if none is whole.
    fn step(&mut self) -> HandlerResult<bool> {
        let reply = match self.request.read(self.input.unread()) {
            Ok(false) => return Ok(false),
            Ok(true) => {
                let words: Vec<_> = self.request.words.drain(..).map(|at| &self.input.unread()[at]).collect();
                let reply = self.store.lock().unwrap_or_else(PoisonError::into_inner).execute(&words);
                self.input.consume(std::mem::take(&mut self.request.len));
                reply
            }
            Err(why) => {
                self.is_over = true;
                Some(Frame::Error(format!("ERR Protocol error: {why}").into()))
            }
        };
        if let Some(reply) = reply {
            extend_encode(&mut self.replies, &reply, false)?;
        }
        Ok(true)
    }
}

impl Store {
    /// The reply to a request; an empty one has none.
    fn execute(&mut self, words: &[&[u8]]) -> Option<Frame> {
        let (name, args) = words.split_first()?;
        Some(match (name.to_ascii_uppercase().as_slice(), args) {
            (b"PING", []) => Frame::SimpleString("PONG".into()),
            (b"ECHO", [text]) => Frame::BulkString(Bytes::copy_from_slice(text)),
            (b"GET", [key]) => self.values.get(*key).map_or(Frame::Null, |value| Frame::BulkString(value.clone())),
            (b"SET", [key, value]) => self.set(key, value, Frame::SimpleString("OK".into())),
            (b"INCR", [key]) => {
                let old = self.values.get(*key).map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse().ok());
                match old.and_then(|number: i64| number.checked_add(1)) {
                    Some(number) => self.set(key, number.to_string().as_bytes(), Frame::Integer(number)),
                    None => Frame::Error("ERR value is not an integer or out of range".into()),
                }
            }
            (b"DEL", keys @ [_, ..]) => Frame::Integer(keys.iter().filter(|key| self.remove(key)).count() as i64),
            (b"DBSIZE", []) => Frame::Integer(self.values.len() as i64),
            // redis-cli and redis-benchmark ask, and can do without.
            (b"COMMAND", _) => Frame::Array(Vec::new()),
            (b"CONFIG", _) => Frame::Array(vec![Frame::Null, Frame::Null]),
            _ => Frame::Error(format!("ERR unknown command, or other arguments: '{}'", name.escape_ascii()).into()),
        })
    }

    /// Puts a value in place of what there was. The reply is as given, if there is room for it.
    fn set(&mut self, key: &[u8], value: &[u8], reply: Frame) -> Frame {
        let freed = self.values.get(key).map_or(0, |old| size(key, old));
        if self.used - freed + size(key, value) > self.most {
            return Frame::Error("OOM command not allowed when used memory > 'maxmemory'".into());
        }
        self.remove(key);
        self.used += size(key, value);
        self.values.insert(key.to_vec(), Bytes::copy_from_slice(value));
        reply
    }

    /// True if it was there.
    fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.values.remove(key);
        self.used -= removed.as_ref().map_or(0, |old| size(key, old));
        removed.is_some()
    }
}

/// What a value takes, roughly.
fn size(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + 100
}

fn main() -> socketserver::Result<()> {
    let own = [("memory MIB", "how much the keys and values may take [256]")];
    let about = "Keeps keys and values in memory. Processes of forking and preforking have a store each.";
    let args = common::args(about, &[STRATEGY, WORKERS, &own, common::LIMITS]);
    let most = args.get::<usize>("memory").unwrap_or(256) << 20;
    let store = Arc::new(Mutex::new(Store { values: HashMap::new(), used: 0, most }));
    let session = factory(move |_peer| Session {
        store: store.clone(),
        input: FrameBuffer::new(LONGEST),
        request: Request::default(),
        replies: BytesMut::new(),
        is_over: false,
    });
    let builder = args.limits(ServerBuilder::new().handle_signals());
    let mut server = args.bind(builder, Blocking(session.clone()), session)?;
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
