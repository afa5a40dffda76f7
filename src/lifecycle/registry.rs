//! The live connections of the threads, so that a drain can wake their idle readers and cut what is left.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::sync::atomic::{AtomicU8, Ordering::SeqCst};
use crate::sync::Mutex;
use crate::sys::socket;

/// What a connection is doing, as far as a drain must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SlotState {
    /// In a request.
    Busy = 0,
    /// Waiting for a request: a drain may end the wait.
    Idle = 1,
    /// A drain has ended its reading side.
    Cut = 2,
    /// Waiting for its first request, in a worker process: one that ends alone waits for it.
    New = 3,
}

/// The place of one connection. Places are used again; the descriptor is cleared under its lock before it is closed.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    fd: Mutex<Option<RawFd>>,
    state: AtomicU8,
}

impl ConnectionSlot {
    /// A wait for a request begins or ends; `false` if the drain has cut the reading side meanwhile.
    pub(crate) fn turn(&self, from: SlotState, to: SlotState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }
}

/// All the places of one server.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Arc<ConnectionSlot>>,
    free: Vec<Arc<ConnectionSlot>>,
}

impl Registry {
    pub(crate) fn enter(&self, fd: RawFd) -> Arc<ConnectionSlot> {
        let mut slots = self.slots.lock();
        let slot = slots.free.pop().unwrap_or_else(|| {
            let slot = Arc::new(ConnectionSlot { fd: Mutex::new(None), state: AtomicU8::new(0) });
            slots.all.push(slot.clone());
            slot
        });
        drop(slots);
        slot.state.store(SlotState::Busy as u8, SeqCst);
        *slot.fd.lock() = Some(fd);
        slot
    }

    /// To be called before the descriptor is closed.
    pub(crate) fn leave(&self, slot: Arc<ConnectionSlot>) {
        *slot.fd.lock() = None;
        self.slots.lock().free.push(slot);
    }

    /// Ends the waits of those who wait for a request: for another one, or for the first.
    pub(crate) fn wake(&self, waiting: SlotState) {
        self.each(|slot, fd| {
            if slot.turn(waiting, SlotState::Cut) {
                let _ = socket::shut_read(fd);
            }
        });
    }

    /// Ends every connection in both directions; how many there were.
    pub(crate) fn cut_all(&self) -> usize {
        let mut cut = 0;
        self.each(|_, fd| {
            let _ = socket::shut_both(fd);
            cut += 1;
        });
        cut
    }

    fn each(&self, mut act: impl FnMut(&ConnectionSlot, RawFd)) {
        let all = self.slots.lock().all.clone();
        for slot in all {
            let fd = slot.fd.lock();
            if let Some(fd) = *fd {
                act(&slot, fd);
            }
        }
    }
}

#[cfg(test)]
mod tests;
