//! [`Parser`]: values in place of ranges, for formats whose parts must be parsed anyhow.

use super::{Decoded, Decoder, Frame, FrameError};

/// Turns the front of a stream into values: the head of a request, a command, a number. Where a [`Decoder`] says which bytes
/// are a frame, a parser gives what they mean, so that nothing is parsed twice. It does no I/O and keeps no bytes.
///
/// [`Connection::read_item`](crate::Connection::read_item), [`try_read_item`](crate::Connection::try_read_item) and
/// [`FrameBuffer::next_item`](super::FrameBuffer::next_item) read with it. A parser from another crate takes a few lines:
///
/// ```
/// use socketserver::framing::{FrameBuffer, FrameError, Parser};
///
/// #[derive(Debug, PartialEq)]
/// enum Value {
///     Number(i64),
///     Text(String),
/// }
///
/// /// A part of RESP, the protocol of Redis: `:NUMBER\r\n` and `+TEXT\r\n`.
/// struct Resp;
///
/// impl Parser for Resp {
///     type Item = Value;
///
///     fn parse(
///         &mut self,
///         unread: &[u8],
///     ) -> Result<Option<(Value, usize)>, FrameError> {
///         let Some(end) = unread.windows(2).position(|pair| pair == b"\r\n") else {
///             let (limit, len) = (1024, unread.len());
///             if len > limit {
///                 return Err(FrameError::TooLong { limit, len });
///             }
///             return Ok(None);
///         };
///         let malformed = |_| FrameError::Malformed("not UTF-8");
///         let text = std::str::from_utf8(&unread[..end]).map_err(malformed)?;
///         let value = match (text.chars().next(), text.get(1..)) {
///             (Some(':'), Some(number)) => match number.parse() {
///                 Ok(number) => Value::Number(number),
///                 Err(_) => return Err(FrameError::Malformed("no number")),
///             },
///             (Some('+'), Some(text)) => Value::Text(text.to_owned()),
///             _ => return Err(FrameError::Malformed("neither : nor +")),
///         };
///         Ok(Some((value, end + 2)))
///     }
/// }
///
/// let mut buffer = FrameBuffer::new(4096);
/// buffer.push(b":42\r\n+hel")?;
/// assert_eq!(buffer.next_item(&mut Resp)?, Some(Value::Number(42)));
/// assert_eq!(buffer.next_item(&mut Resp)?, None);
/// buffer.push(b"lo\r\n")?;
/// assert_eq!(buffer.next_item(&mut Resp)?, Some(Value::Text("hello".to_owned())));
/// # Ok::<(), FrameError>(())
/// ```
pub trait Parser {
    /// What it makes of the bytes. It is owned: the bytes are consumed with it.
    type Item;

    /// Parses what is at the front of `unread`, which is all that has arrived and is not yet consumed. Returns the item and
    /// its length in bytes, at least 1; `None` if more must come first. Then it is called again with the same bytes and more
    /// behind them.
    ///
    /// It must bound an item: a peer could send one without end, and each call begins at its front.
    ///
    /// # Errors
    /// The front is no item, or it is too long. Nothing is consumed.
    fn parse(&mut self, unread: &[u8]) -> Result<Option<(Self::Item, usize)>, FrameError>;
}

/// A parser as a decoder, which keeps the item of its last frame.
pub(crate) struct Parsing<'a, P: Parser> {
    parser: &'a mut P,
    item: Option<P::Item>,
}

impl<'a, P: Parser> Parsing<'a, P> {
    pub(crate) fn new(parser: &'a mut P) -> Self {
        Self { parser, item: None }
    }

    pub(crate) fn into_item(self) -> Option<P::Item> {
        self.item
    }
}

impl<P: Parser> Decoder for Parsing<'_, P> {
    fn decode(&mut self, unread: &[u8]) -> Result<Decoded, FrameError> {
        if unread.is_empty() {
            return Ok(Decoded::More);
        }
        Ok(match self.parser.parse(unread)? {
            Some((item, len)) => {
                self.item = Some(item);
                Decoded::Frame(Frame { payload: 0..0, len: len.min(unread.len()) })
            }
            None => Decoded::More,
        })
    }

    fn reset(&mut self) {}
}
