//! What is sent without being in memory as a whole: a reader, or a part of a file.
//!
//! A file is read, and not sent by sendfile(2), which takes no flags. On a socket whose peer is gone that raises
//! SIGPIPE, which would end the program. On an accepted socket, which blocks, it waits.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;

/// The most bytes that are read at once, and that a reader has in memory.
const CHUNK: usize = 64 << 10;

/// A reader in a queue of output, and the piece that it gave last.
pub(crate) struct Source {
    reader: Box<dyn Read>,
    /// Empty at first, and as long as a chunk from the first read on.
    buffer: Vec<u8>,
    filled: usize,
    size: usize,
}

impl Source {
    /// Makes a source that reads at most `most` bytes at once, and at most a chunk.
    pub(crate) fn new(reader: impl Read + 'static, most: usize) -> Self {
        Self { reader: Box::new(reader), buffer: Vec::new(), filled: 0, size: most.clamp(1, CHUNK) }
    }

    /// Returns the most bytes that it has in memory.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Returns what was read and is not sent.
    pub(crate) fn chunk(&self) -> &[u8] {
        self.buffer.get(..self.filled).unwrap_or_default()
    }

    pub(crate) fn empty(&mut self) {
        self.filled = 0;
    }

    /// Reads the next chunk; 0 at the end.
    pub(crate) fn fill(&mut self) -> io::Result<usize> {
        self.buffer.resize(self.size, 0);
        loop {
            match self.reader.read(&mut self.buffer) {
                Ok(n) => {
                    self.filled = n.min(self.size);
                    return Ok(self.filled);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("cannot read what is to be sent: {e}"))),
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("filled", &self.filled).finish_non_exhaustive()
    }
}

/// A part of a file, by its offsets. pread(2) neither uses nor moves the file's own position.
#[derive(Debug)]
pub(crate) struct FilePart {
    file: File,
    at: u64,
    /// `None` for as far as the file reaches.
    end: Option<u64>,
}

impl FilePart {
    pub(crate) fn new(file: File, range: &impl RangeBounds<u64>) -> Self {
        let at = match range.start_bound() {
            Bound::Included(&at) => at,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => Some(last.saturating_add(1)),
            Bound::Excluded(&end) => Some(end),
            // Its length now, so that an early end is seen. Files of /proc have length 0, whatever they contain.
            Bound::Unbounded => file.metadata().ok().map(|m| m.len()).filter(|len| *len > 0).map(|len| len.max(at)),
        };
        Self { file, at, end }
    }
}

impl Read for FilePart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.at));
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(buffer.get_mut(..most).unwrap_or_default(), self.at)?;
        match self.end {
            Some(end) if n == 0 => {
                let text = format!("the file ends at {} of {end} bytes; was it truncated meanwhile?", self.at);
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
            }
            _ => {
                self.at += n as u64;
                Ok(n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file without a name, with this in it.
    fn file(text: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("socketserver-source-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file.write_all_at(text, 0).unwrap();
        file
    }

    fn read(file: &File, range: impl RangeBounds<u64>) -> Result<String, io::ErrorKind> {
        let part = FilePart::new(file.try_clone().unwrap(), &range);
        io::read_to_string(part).map_err(|e| e.kind())
    }

    #[test]
    fn a_part_is_exact_and_a_file_that_is_shorter_an_error() {
        let file = file(b"0123456789");
        assert_eq!(read(&file, ..).unwrap(), "0123456789");
        assert_eq!(read(&file, 3..7).unwrap(), "3456");
        assert_eq!(read(&file, 3..=7).unwrap(), "34567");
        assert_eq!(read(&file, ..0).unwrap(), "");
        assert_eq!(read(&file, 8..).unwrap(), "89");
        assert_eq!(read(&file, 11..).unwrap(), "", "there is nothing");
        assert_eq!(read(&file, 7..12), Err(io::ErrorKind::UnexpectedEof));
        let mut whole = FilePart::new(file.try_clone().unwrap(), &(..));
        file.set_len(4).unwrap();
        let mut got = Vec::new();
        let error = whole.read_to_end(&mut got).unwrap_err();
        assert_eq!((got.as_slice(), error.kind()), (&b"0123"[..], io::ErrorKind::UnexpectedEof));
        assert!(error.to_string().contains("ends at 4 of 10 bytes"), "{error}");
    }
}
