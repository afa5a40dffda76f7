//! The output that the kernel has not taken yet: pieces in order, some of them shared by many connections.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use crate::event_loop::io::source::Source;
use crate::event_loop::io::Io;
use crate::panics::forget;

/// A piece up to this size takes further writes.
const PIECE: usize = 64 << 10;
/// A shared text shorter than this is copied, which is cheaper. A piece of its own costs an entry in the queue, and a
/// part in the system call.
pub(crate) const WORTH_SHARING: usize = 512;
/// The most pieces in one system call (IOV_MAX).
const PARTS: usize = 1024;
/// How many buffers are kept for the next writer.
const SPARES: usize = 64;

#[derive(Debug)]
enum Piece {
    Own(Vec<u8>),
    Shared(Rc<[u8]>),
    /// A reader, which is read as the peer takes it.
    Source(Box<Source>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            Self::Source(source) => source.chunk(),
        }
    }

    fn is_source(&self) -> bool {
        matches!(self, Self::Source(_))
    }
}

/// A queue of output. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// How much of the first piece is sent; of a source, how much of its last chunk.
    head: usize,
    /// The bytes in the pieces, without sources.
    len: usize,
    sources: usize,
    /// The bytes that the sources behind the first count for.
    reserved: usize,
}

/// Buffers between two uses. So an idle connection has none, and a busy one allocates none.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    buffers: Vec<Vec<u8>>,
    queues: Vec<VecDeque<Piece>>,
}

impl Spares {
    fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    fn keep(&mut self, piece: Piece) {
        let mut buffer = match piece {
            Piece::Own(buffer) => buffer,
            Piece::Shared(_) => return,
            Piece::Source(source) => return forget(source),
        };
        if self.buffers.len() < SPARES && buffer.capacity() <= PIECE {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

impl Outbox {
    /// Returns the bytes that are queued, without those of readers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns what the water marks and the hard limit count: bytes, and all readers but the first.
    pub(crate) fn load(&self) -> usize {
        self.len + self.reserved
    }

    /// Returns what another reader would count for: as much as it may have in memory.
    pub(crate) fn load_of(&self, source: &Source) -> usize {
        if self.sources > 0 {
            source.size()
        } else {
            0
        }
    }

    /// True if nothing is left to send, readers included.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Queues a copy. Small pieces share a buffer.
    pub(crate) fn push(&mut self, bytes: &[u8], spares: &mut Spares) {
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

    /// Queues a text that other queues have as well, without a copy.
    pub(crate) fn push_shared(&mut self, bytes: &Rc<[u8]>, spares: &mut Spares) {
        self.len += bytes.len();
        self.enqueue(Piece::Shared(bytes.clone()), spares);
    }

    /// Queues a reader, which is read when its turn comes.
    pub(crate) fn push_source(&mut self, source: Source, spares: &mut Spares) {
        self.reserved += self.load_of(&source);
        self.sources += 1;
        self.enqueue(Piece::Source(Box::new(source)), spares);
    }

    /// Returns the first piece if it is a reader that must give its next chunk.
    pub(crate) fn hungry(&mut self) -> Option<&mut Source> {
        match self.pieces.front_mut() {
            Some(Piece::Source(source)) if source.chunk().is_empty() => Some(source),
            _ => None,
        }
    }

    /// Removes the first reader, which has come to its end.
    pub(crate) fn pop_source(&mut self, spares: &mut Spares) {
        let Some(first) = self.pieces.pop_front() else { return };
        if let Piece::Source(source) = &first {
            self.sources -= 1;
            self.reserved = self.reserved.saturating_sub(source.size()); // the next one is the first now
        }
        spares.keep(first);
        if self.pieces.is_empty() {
            self.keep_queue(spares);
        }
    }

    fn enqueue(&mut self, piece: Piece, spares: &mut Spares) {
        if self.pieces.capacity() == 0 {
            self.pieces = spares.queues.pop().unwrap_or_default();
        }
        self.pieces.push_back(piece);
    }

    /// Returns how much a [`send`](Self::send) with a limit offers to the kernel.
    pub(crate) fn first_len(&self) -> usize {
        self.pieces.front().map_or(0, |first| first.bytes().len() - self.head)
    }

    /// Gives the kernel as much as it takes in one call, and at most `at_most`. Returns how much that was; the `bool`
    /// is true if it was everything offered.
    pub(crate) fn send(&mut self, io: &Io, spares: &mut Spares, at_most: usize) -> io::Result<(usize, bool)> {
        let Some(front) = self.pieces.front() else { return Ok((0, true)) };
        let first = front.bytes().get(self.head..).unwrap_or_default();
        let is_source = front.is_source();
        // One piece by `send`, which is cheaper; several by one vectored call.
        let (sent, offered) = if self.pieces.len() == 1 || is_source || at_most < usize::MAX {
            let first = first.get(..at_most).unwrap_or(first);
            (io.send(first)?, first.len())
        } else {
            let others = self.pieces.iter().skip(1).take_while(|piece| !piece.is_source()).map(Piece::bytes);
            let parts: Vec<IoSlice<'_>> = std::iter::once(first).chain(others).take(PARTS).map(IoSlice::new).collect();
            (io.send_parts(&parts)?, parts.iter().map(|part| part.len()).sum())
        };
        self.len -= if is_source { 0 } else { sent };
        self.advance(sent, spares);
        Ok((sent, sent == offered))
    }

    /// Drops the pieces that are sent. A source stays, because it may have another chunk.
    fn advance(&mut self, sent: usize, spares: &mut Spares) {
        self.head += sent;
        while let Some(first) = self.pieces.front_mut() {
            let size = first.bytes().len();
            if self.head < size {
                return;
            }
            self.head -= size;
            if let Piece::Source(source) = first {
                return source.empty();
            }
            self.pieces.pop_front().into_iter().for_each(|piece| spares.keep(piece));
        }
        self.keep_queue(spares);
    }

    /// Takes all bytes out. `None`, and nothing is taken, if a reader is among them.
    #[cfg(feature = "__tls")]
    pub(crate) fn take_bytes(&mut self, spares: &mut Spares) -> Option<Vec<u8>> {
        if self.sources > 0 {
            return None;
        }
        let all: Vec<&[u8]> = self.pieces.iter().map(Piece::bytes).collect();
        let mut bytes = all.concat();
        bytes.drain(..self.head);
        self.clear(spares);
        Some(bytes)
    }

    /// Drops what is queued.
    pub(crate) fn clear(&mut self, spares: &mut Spares) {
        self.pieces.drain(..).for_each(|piece| spares.keep(piece));
        (self.head, self.len, self.sources, self.reserved) = (0, 0, 0, 0);
        self.keep_queue(spares);
    }

    /// Gives the empty queue's memory to the spares.
    fn keep_queue(&mut self, spares: &mut Spares) {
        let queue = std::mem::take(&mut self.pieces);
        if queue.capacity() > 0 && queue.capacity() <= PARTS && spares.queues.len() < SPARES {
            spares.queues.push(queue);
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::event_loop::io::memory::Memory;

    /// Makes an output that takes `room` bytes.
    fn io(room: usize) -> (Io, Memory) {
        let memory = Memory::default();
        memory.with(|pipe| pipe.room = room);
        (Io::Memory(memory.clone()), memory)
    }

    /// Makes pieces of all kinds and sizes, and returns their bytes too.
    fn filled(spares: &mut Spares) -> (Outbox, Vec<u8>) {
        let (mut out, mut all) = (Outbox::default(), Vec::new());
        for n in 0..50usize {
            let text: Vec<u8> = (0..n * 37 % 1000).map(|i| (i + n) as u8).collect();
            if text.len() >= WORTH_SHARING {
                out.push_shared(&text.as_slice().into(), spares);
            } else {
                out.push(&text, spares);
            }
            all.extend(text);
        }
        (out, all)
    }

    #[test]
    fn what_is_sent_in_parts_arrives_whole_wherever_it_is_cut() {
        let mut spares = Spares::default();
        for step in [1, 7, 511, 512, 513, 4000] {
            let (mut out, all) = filled(&mut spares);
            let (io, memory) = io(0);
            while !out.is_empty() {
                memory.with(|pipe| pipe.room = step);
                let (before, whole) = (out.len(), out.send(&io, &mut spares, usize::MAX).unwrap().1);
                assert_eq!((before - out.len(), whole), (before.min(step), before <= step));
            }
            assert!(memory.with(|pipe| pipe.output == all), "{step}");
            assert_eq!((out.head, out.pieces.capacity()), (0, 0), "empty, it holds nothing");
        }
    }

    #[test]
    fn more_pieces_than_one_call_takes_go_in_several() {
        let (mut out, mut spares, (io, memory)) = (Outbox::default(), Spares::default(), io(usize::MAX));
        let text: Rc<[u8]> = vec![b'x'; WORTH_SHARING].as_slice().into();
        (0..PARTS + 1).for_each(|_| out.push_shared(&text, &mut spares));
        assert!(out.send(&io, &mut spares, usize::MAX).unwrap().1 && !out.is_empty());
        assert!(out.send(&io, &mut spares, usize::MAX).unwrap().1 && out.is_empty());
        assert_eq!(memory.with(|pipe| (pipe.sends, pipe.output.len())), (2, (PARTS + 1) * WORTH_SHARING));
        assert_eq!(Rc::strong_count(&text), 1);
        assert!(spares.queues.is_empty(), "a queue that has grown large is not kept");
    }

    #[test]
    fn small_writes_share_a_piece_and_large_ones_do_not_grow_it() {
        let (mut out, mut spares) = (Outbox::default(), Spares::default());
        (0..PIECE).for_each(|_| out.push(b"x", &mut spares));
        assert_eq!(out.pieces.len(), 1);
        out.push(b"y", &mut spares);
        assert_eq!((out.pieces.len(), out.len()), (2, PIECE + 1));
        out.push(b"", &mut spares);
        assert_eq!(out.len(), PIECE + 1);
    }

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let (mut spares, (io, _memory)) = (Spares::default(), io(usize::MAX));
        let mut many: Vec<Outbox> = (0..2 * SPARES).map(|_| Outbox::default()).collect();
        many.iter_mut().for_each(|out| out.push(b"hello", &mut spares));
        many.iter_mut().for_each(|out| assert!(out.send(&io, &mut spares, usize::MAX).unwrap().1));
        assert_eq!((spares.buffers.len(), spares.queues.len()), (SPARES, SPARES));
        let mut next = Outbox::default();
        next.push(b"next", &mut spares);
        assert_eq!((spares.buffers.len(), spares.queues.len()), (SPARES - 1, SPARES - 1));
        assert!(matches!(next.pieces.front(), Some(Piece::Own(bytes)) if bytes == b"next"), "without what was there");
        next.push(&vec![0; PIECE + 1], &mut spares);
        next.clear(&mut spares);
        assert_eq!((next.len(), next.is_empty(), spares.buffers.len()), (0, true, SPARES - 1));
        assert!(spares.buffers.iter().all(|buffer| buffer.is_empty() && buffer.capacity() <= PIECE));
    }
}
