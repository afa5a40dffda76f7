//! What a connection has written and the kernel has not taken: pieces in order, some of them shared by many connections.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use super::io::Io;

/// A piece up to this size takes further writes.
const PIECE: usize = 64 << 10;
/// A shared text shorter than this is copied: that is cheaper than a piece of its own.
pub(super) const WORTH_SHARING: usize = 512;
/// Most pieces in one system call (IOV_MAX).
const PARTS: usize = 1024;
/// Buffers kept for the next writer.
const SPARES: usize = 64;

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// A queue of output. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has been sent.
    head: usize,
    len: usize,
}

/// Buffers between two uses, so that a connection that is idle has none and a busy one allocates none.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<Vec<u8>>,
    queues: Vec<VecDeque<Piece>>,
}

impl Spares {
    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    fn keep(&mut self, piece: Piece) {
        let Piece::Own(mut buffer) = piece else { return };
        if self.buffers.len() < SPARES && buffer.capacity() <= PIECE {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

impl Outbox {
    /// Bytes that are queued.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, bytes: &[u8], spares: &mut Spares) {
        if bytes.is_empty() {
            return;
        }
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Own(tail)) if tail.len() + bytes.len() <= PIECE => tail.extend_from_slice(bytes),
            _ => {
                let mut buffer = spares.buffer();
                buffer.extend_from_slice(bytes);
                self.enqueue(Piece::Own(buffer), spares);
            }
        }
    }

    /// A text that others get as well: no copy is made.
    pub(super) fn push_shared(&mut self, bytes: &Rc<[u8]>, spares: &mut Spares) {
        self.len += bytes.len();
        self.enqueue(Piece::Shared(bytes.clone()), spares);
    }

    fn enqueue(&mut self, piece: Piece, spares: &mut Spares) {
        if self.pieces.capacity() == 0 {
            self.pieces = spares.queues.pop().unwrap_or_default();
        }
        self.pieces.push_back(piece);
    }

    /// Gives the kernel as much as it takes in one call; whether that was all that it was offered.
    pub(super) fn send(&mut self, io: &Io, spares: &mut Spares) -> io::Result<bool> {
        let Some(first) = self.pieces.front() else { return Ok(true) };
        let first = first.bytes().get(self.head..).unwrap_or_default();
        let (sent, offered) = if self.pieces.len() == 1 {
            (io.send(first)?, first.len())
        } else {
            let others = self.pieces.iter().skip(1).map(Piece::bytes);
            let parts: Vec<IoSlice<'_>> = std::iter::once(first).chain(others).take(PARTS).map(IoSlice::new).collect();
            (io.send_parts(&parts)?, parts.iter().map(|part| part.len()).sum())
        };
        self.advance(sent, spares);
        Ok(sent == offered)
    }

    fn advance(&mut self, sent: usize, spares: &mut Spares) {
        self.len -= sent;
        self.head += sent;
        while let Some(first) = self.pieces.front() {
            let size = first.bytes().len();
            if self.head < size {
                return;
            }
            self.head -= size;
            self.pieces.pop_front().into_iter().for_each(|piece| spares.keep(piece));
        }
        self.let_go(spares);
    }

    /// Gives up what is queued.
    pub(super) fn clear(&mut self, spares: &mut Spares) {
        self.pieces.drain(..).for_each(|piece| spares.keep(piece));
        (self.head, self.len) = (0, 0);
        self.let_go(spares);
    }

    fn let_go(&mut self, spares: &mut Spares) {
        let queue = std::mem::take(&mut self.pieces);
        if queue.capacity() > 0 && queue.capacity() <= PARTS && spares.queues.len() < SPARES {
            spares.queues.push(queue);
        }
    }
}
