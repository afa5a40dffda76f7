//! Reading parsed items.

use std::io;

use super::{Connection, ReadHalf};
use crate::framing::{Parser, Parsing};

impl Connection {
    /// Returns the next item that `parser` makes of the input, or `None` at the end of the stream. It is
    /// [`read_frame`](Self::read_frame) for values in place of bytes: one item is a [request](Self#requests).
    ///
    /// ```
    /// use std::io::Write;
    /// use socketserver::framing::{FrameError, Parser};
    /// use socketserver::Connection;
    ///
    /// /// Numbers of two bytes.
    /// struct Numbers;
    ///
    /// impl Parser for Numbers {
    ///     type Item = u16;
    ///
    ///     fn parse(&mut self, unread: &[u8]) -> Result<Option<(u16, usize)>, FrameError> {
    ///         let Some(&[high, low]) = unread.get(..2) else { return Ok(None) };
    ///         Ok(Some((u16::from_be_bytes([high, low]), 2)))
    ///     }
    /// }
    ///
    /// let (mut conn, mut client) = Connection::pair()?;
    /// client.write_all(&[0, 1, 1, 1])?;
    /// assert_eq!(conn.read_item(&mut Numbers)?, Some(1));
    /// assert_eq!(conn.try_read_item(&mut Numbers)?, Some(257));
    /// assert_eq!(conn.try_read_item(&mut Numbers)?, None);
    /// drop(client);
    /// assert_eq!(conn.read_item(&mut Numbers)?, None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_frame`](Self::read_frame), with the parser's error.
    pub fn read_item<P: Parser>(&mut self, parser: &mut P) -> io::Result<Option<P::Item>> {
        self.halves().0.read_item(parser)
    }

    /// Returns the next item, if a whole one has come. It never waits: it is for [`read_item`](Self::read_item) what
    /// [`try_next_line`](Self::try_next_line) is for [`next_line`](Self::next_line).
    ///
    /// # Errors
    /// As [`try_read_frame`](Self::try_read_frame), with the parser's error.
    pub fn try_read_item<P: Parser>(&mut self, parser: &mut P) -> io::Result<Option<P::Item>> {
        self.halves().0.try_read_item(parser)
    }
}

impl ReadHalf<'_> {
    /// As [`Connection::read_item`](crate::Connection::read_item).
    ///
    /// # Errors
    /// The same.
    pub fn read_item<P: Parser>(&mut self, parser: &mut P) -> io::Result<Option<P::Item>> {
        let mut parsing = Parsing::new(parser);
        self.read_frame(&mut parsing)?;
        Ok(parsing.into_item())
    }

    /// As [`Connection::try_read_item`](crate::Connection::try_read_item).
    ///
    /// # Errors
    /// The same.
    pub fn try_read_item<P: Parser>(&mut self, parser: &mut P) -> io::Result<Option<P::Item>> {
        let mut parsing = Parsing::new(parser);
        self.try_read_frame(&mut parsing)?;
        Ok(parsing.into_item())
    }
}
