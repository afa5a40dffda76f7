//! A connection without a socket: what a test feeds, and what it takes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use crate::event_loop::primitives::slab::ConnId;
use crate::sys::Readiness;

/// Both ends of a connection in memory share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Rc<RefCell<Pipe>>);

#[derive(Debug)]
pub(crate) struct Pipe {
    /// Each piece is what one read brings.
    pub(crate) input: VecDeque<Vec<u8>>,
    pub(crate) eof: bool,
    pub(crate) broken: bool,
    pub(crate) output: Vec<u8>,
    /// How many bytes the peer still takes.
    pub(crate) room: usize,
    /// How many system calls the writes would have been.
    pub(crate) sends: usize,
    /// How the loop has ended its side.
    pub(crate) shut: bool,
    pub(crate) reset: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        let (input, output) = (VecDeque::new(), Vec::new());
        Self { input, eof: false, broken: false, output, room: usize::MAX, sends: 0, shut: false, reset: false }
    }
}

impl Memory {
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Pipe) -> R) -> R {
        act(&mut self.0.borrow_mut())
    }

    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.with(|pipe| {
            let Some(mut piece) = pipe.input.pop_front() else {
                return match (pipe.broken, pipe.eof) {
                    (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                    (_, true) => Ok(0),
                    _ => Err(io::ErrorKind::WouldBlock.into()),
                };
            };
            let n = piece.len().min(buf.len());
            buf[..n].copy_from_slice(&piece[..n]);
            if n < piece.len() {
                pipe.input.push_front(piece.split_off(n));
            }
            Ok(n)
        })
    }

    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|pipe| {
            if pipe.broken {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if pipe.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            pipe.sends += 1;
            let mut sent = 0;
            for part in parts {
                let n = part.len().min(pipe.room);
                pipe.output.extend_from_slice(&part[..n]);
                pipe.room -= n;
                sent += n;
            }
            Ok(sent)
        })
    }

    pub(crate) fn has_input(&self) -> bool {
        self.with(|pipe| !pipe.input.is_empty())
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.with(|pipe| pipe.broken)
    }

    pub(crate) fn shut_write(&self) {
        self.with(|pipe| pipe.shut = true);
    }

    pub(crate) fn reset(&self) {
        self.with(|pipe| pipe.reset = true);
    }

    /// Returns what epoll would report for this interest.
    pub(crate) fn readiness(&self, watched: Readiness) -> Option<Readiness> {
        self.with(|pipe| {
            let ready = Readiness {
                read: watched.read && (pipe.eof || pipe.broken || !pipe.input.is_empty()),
                write: watched.write && (pipe.room > 0 || pipe.broken),
                hangup: pipe.broken || (pipe.eof && pipe.shut),
                ..Readiness::default()
            };
            (ready != Readiness::default()).then_some(ready)
        })
    }
}

/// The results that a test has set for attempts to connect.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) outcomes: VecDeque<io::Result<()>>,
    /// The connections that were made, and their other ends.
    pub(crate) made: Vec<(ConnId, Memory)>,
}
