//! The listeners of a lot. One that cannot be accepted from is not watched for a while.

use crate::lifecycle::AtGate;
use crate::listen::Listener;
use crate::sync::Mutex;

use super::{Lot, LISTENER};

/// The listeners that are not watched.
#[derive(Debug, Default)]
pub(super) struct Listening(Mutex<Paused>);

#[derive(Debug, Default)]
struct Paused {
    /// Their indexes, each with the time at which it is watched again. `None`: when a permit comes back.
    listeners: Vec<(usize, Option<u64>)>,
    /// While it lives, each permit that comes back sets the gate's eventfd.
    at_gate: Option<AtGate>,
}

impl Lot {
    /// Watches a listener again.
    pub(in crate::accept) fn listen(&self, listeners: &[Listener], index: usize) {
        if let Some(listener) = listeners.get(index).filter(|listener| !listener.is_lost()) {
            let _ = self.set.arm(listener, LISTENER + index as u64);
        }
    }

    /// Watches a listener again when a permit comes back, or accepting is resumed, or after `rest` milliseconds.
    pub(in crate::accept) fn listen_later(&self, listeners: &[Listener], index: usize, rest: Option<u64>) {
        let until = rest.map(|rest| self.now().saturating_add(rest));
        self.listening.0.lock().listeners.push((index, until));
        until.into_iter().for_each(|until| self.clock.wake_at(until, self));
        self.await_gate();
        // The permit may have come back before the mark.
        if rest.is_none() && !self.core.control.paused() && !self.core.admission.permits.full() {
            self.listen_again(listeners);
        }
    }

    /// From here on, each permit that comes back wakes a thread.
    pub(in crate::accept) fn await_gate(&self) {
        self.listening.0.lock().at_gate.get_or_insert_with(|| AtGate::enter(&self.core));
    }

    /// A permit has come back, or accepting is resumed.
    pub(super) fn listen_again(&self, listeners: &[Listener]) {
        let Paused { listeners: paused, at_gate } = std::mem::take(&mut *self.listening.0.lock());
        drop(at_gate);
        // At a stop, the connections of the queue are counted, and taken without an event.
        if !self.core.control.stopping() {
            paused.into_iter().for_each(|(index, _)| self.listen(listeners, index));
        }
    }

    /// Watches the listeners again whose rest is over. Returns when the next one's is.
    pub(super) fn end_rests(&self, now: u64, listeners: &[Listener]) -> u64 {
        let (over, next) = {
            let paused = &mut self.listening.0.lock().listeners;
            let is_over = |(_, until): &(usize, Option<u64>)| until.is_some_and(|until| until <= now);
            let over: Vec<_> = paused.iter().copied().filter(is_over).collect();
            paused.retain(|listener| !is_over(listener));
            (over, paused.iter().filter_map(|(_, until)| *until).min())
        };
        over.into_iter().for_each(|(index, _)| self.listen(listeners, index));
        next.unwrap_or(u64::MAX)
    }
}
