//! [`Registry`]: the live connections of blocking threads. A drain wakes the idle ones and cuts the rest.
//!
//! A thread in a blocking read is woken by `shutdown(SHUT_RD)`: the read returns the end of the stream, which
//! any handler understands. Only a connection that waits for a request is woken so. In the middle of a
//! request, the handler would take the end of the stream for the client's. So each connection notes in its
//! slot when such a wait begins and ends.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::sync::atomic::{AtomicU8, Ordering::SeqCst};
use crate::sync::Mutex;
use crate::sys::socket;

/// The state of a connection, as far as a drain needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SlotState {
    /// In a request.
    Busy = 0,
    /// Waiting for a request: a drain may end the wait.
    Idle = 1,
    /// A drain has shut its reading side.
    Cut = 2,
    /// Waiting for its first request. A stop spares this wait if another process goes on with the sockets.
    New = 3,
    /// Waiting for a request without a thread. A drain ends the wait in the lot, and needs no system call for it.
    Parked = 4,
}

/// The slot of one connection. Slots are used again.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    /// Cleared under the lock before the descriptor is closed. So the drain never shuts a number that the
    /// kernel has given to another file.
    fd: Mutex<Option<RawFd>>,
    state: AtomicU8,
}

impl ConnectionSlot {
    /// True if the state was `from`, and is now `to`: a wait for a request begins or ends. False if a drain
    /// has cut the reading side in between.
    pub(crate) fn turn(&self, from: SlotState, to: SlotState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, SeqCst, SeqCst).is_ok()
    }
}

/// All slots of one server.
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
        // The state comes before the descriptor: a drain skips slots without one, and must not see the old
        // state.
        slot.state.store(SlotState::Busy as u8, SeqCst);
        *slot.fd.lock() = Some(fd);
        slot
    }

    /// Frees the slot. Call it before the descriptor is closed.
    pub(crate) fn leave(&self, slot: Arc<ConnectionSlot>) {
        *slot.fd.lock() = None;
        self.slots.lock().free.push(slot);
    }

    /// Ends the waits of all connections in the state `waiting`.
    pub(crate) fn wake(&self, waiting: SlotState) {
        self.each(|slot, fd| {
            // A connection that gets its request now has left the state, and is not touched.
            if slot.turn(waiting, SlotState::Cut) {
                let _ = socket::shut_read(fd);
            }
        });
    }

    /// Shuts every connection in both directions, and returns how many there were. Their waits then end with
    /// an error.
    pub(crate) fn cut_all(&self) -> usize {
        let mut cut = 0;
        self.each(|_, fd| {
            let _ = socket::shut_both(fd);
            cut += 1;
        });
        cut
    }

    fn each(&self, mut act: impl FnMut(&ConnectionSlot, RawFd)) {
        // Cloned, so that connections can enter and leave while `act` makes system calls.
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
