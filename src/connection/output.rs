//! The write buffer. It is made at the first write.

use std::cell::Cell;
use std::io;

use super::wire::Wire;

thread_local! {
    /// The buffer of this thread's last connection. The next connection uses it, so short ones need no
    /// allocation.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The size of a forking parent's spare buffer, in bytes. A longer output is allocated by the child.
const WARM: usize = 1024;

/// Makes this thread's spare buffer, and registers its destructor. A forking parent does so once. Otherwise every
/// child would, at the price of page faults in the allocator and in the dynamic linker.
pub(super) fn warm_up() {
    SPARE.with(|spare| spare.set(Vec::with_capacity(WARM)));
}

/// The bytes that were written and not yet sent.
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

    /// Takes all of `data`. If the buffer would be full, it is sent together with `data`.
    pub(super) fn write(&mut self, wire: &Wire, data: &[u8]) -> io::Result<usize> {
        if self.buf.len() + data.len() < self.size {
            self.buf.extend_from_slice(data);
        } else {
            // One system call for both parts, and no copy of `data`.
            let sent = wire.send_all(&self.buf, data);
            self.buf.clear();
            sent?;
        }
        Ok(data.len())
    }

    /// The buffer, which is empty: for what must go before all that is written.
    pub(super) fn rest(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Sends the buffer. After an error the rest is dropped, because the connection cannot be written to any
    /// more.
    pub(super) fn send(&mut self, wire: &Wire) -> io::Result<()> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let sent = wire.send_all(&self.buf, &[]);
        self.buf.clear();
        sent
    }
}

impl Output {
    /// Gives the buffer to this thread's next connection. It is empty, unless the connection ends.
    pub(super) fn fold(&mut self) {
        // A buffer that has grown is not kept: memory must not follow the largest reply ever.
        let mut buf = std::mem::take(&mut self.buf);
        if (1..=self.size).contains(&buf.capacity()) {
            buf.clear();
            let _ = SPARE.try_with(|spare| spare.set(buf));
        }
    }

    /// Takes the buffer of this thread's last connection.
    pub(super) fn unfold(&mut self) {
        if self.buf.capacity() == 0 {
            self.buf = SPARE.try_with(Cell::take).unwrap_or_default();
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.fold();
    }
}
