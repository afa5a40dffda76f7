//! The errors of frames.

use std::error::Error;
use std::fmt;
use std::io;

/// A line is longer than the reader's limit. As an [`io::Error`] it has the kind
/// [`InvalidData`](io::ErrorKind::InvalidData).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineTooLong {
    /// The most bytes that a line may have, without its end.
    pub limit: usize,
    /// The bytes of the line that had arrived, without its end. More may come.
    pub len: usize,
}

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a line of more than {} bytes", self.limit)
    }
}

impl Error for LineTooLong {}

impl From<LineTooLong> for io::Error {
    fn from(e: LineTooLong) -> Self {
        Self::new(io::ErrorKind::InvalidData, e)
    }
}

/// Why the bytes of a stream are no frame, or why a payload cannot be a frame.
///
/// As an [`io::Error`] it has the kind [`InvalidData`](io::ErrorKind::InvalidData). Inside is the
/// [`LineTooLong`], or the `FrameError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A line over the limit.
    LineTooLong(LineTooLong),
    /// A frame over the limit. The length is the frame's, or the announced one.
    TooLong {
        /// The most bytes that a payload may have.
        limit: usize,
        /// The length, as far as it was read. A decimal number is refused at the digit that takes it over the
        /// limit.
        len: usize,
    },
    /// The bytes can be no frame, whatever follows.
    Malformed(&'static str),
    /// The payload cannot be sent in this framing: a reader would see something else.
    Unencodable(&'static str),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineTooLong(e) => e.fmt(f),
            Self::TooLong { limit, len } => write!(f, "a frame of {len} bytes or more, where {limit} are allowed"),
            Self::Malformed(why) => write!(f, "not a frame: {why}"),
            Self::Unencodable(why) => write!(f, "cannot be sent as a frame: {why}"),
        }
    }
}

impl Error for FrameError {}

impl From<LineTooLong> for FrameError {
    fn from(e: LineTooLong) -> Self {
        Self::LineTooLong(e)
    }
}

impl From<FrameError> for io::Error {
    fn from(e: FrameError) -> Self {
        match e {
            FrameError::LineTooLong(e) => e.into(),
            e => Self::new(io::ErrorKind::InvalidData, e),
        }
    }
}
