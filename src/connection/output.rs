//! The write buffer: made at the first write.

use std::cell::Cell;
use std::io;

use super::wire::Wire;

thread_local! {
    /// The buffer of this thread's last connection, for the next: short connections then need no allocation.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Makes this thread's spare buffer known to the thread's end. A forking parent does that once, or every child would,
/// which costs it a dozen page faults in the dynamic linker.
pub(crate) fn warm_up() {
    SPARE.with(|_| ());
}

/// What has been written and not yet sent.
#[derive(Debug)]
pub(super) struct Output {
    buf: Vec<u8>,
    size: usize,
}

impl Output {
    pub(super) fn new(size: usize) -> Self {
        Self { buf: SPARE.try_with(Cell::take).unwrap_or_default(), size }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    /// Takes all of `data`: into the buffer, or, where that would be full, to the peer with what is buffered.
    pub(super) fn write(&mut self, wire: &Wire, data: &[u8]) -> io::Result<usize> {
        if self.buf.len() + data.len() < self.size {
            self.buf.extend_from_slice(data);
        } else {
            let sent = wire.send_all(&self.buf, data);
            self.buf.clear();
            sent?;
        }
        Ok(data.len())
    }

    /// Sends what is buffered. What could not be sent is given up, as the connection is.
    pub(super) fn send(&mut self, wire: &Wire) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let sent = wire.send_all(&self.buf, &[]);
        self.buf.clear();
        sent
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.buf.capacity() <= self.size {
            self.buf.clear();
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.buf)));
        }
    }
}
