//! A client has no connection any more: it waits for its next attempt, begins it, or is at its end.
//!
//! Here and not with the clients above, since it follows the end of a connection at once: whoever is called next finds the
//! client as it will stay.

use std::rc::Rc;
use std::time::Duration;

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::clients::{Dial, Stage};
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::work::{Soon, Task};
use crate::event_loop::state::State;

impl State {
    /// The protocol has been told.
    pub(crate) fn after_the_connection(&mut self, connector: Connector) {
        let delay = self.clients.all.get_mut(connector.0).and_then(Dial::next_delay);
        self.go_on_after_the_end(connector, delay);
    }

    pub(crate) fn go_on_after_the_end(&mut self, connector: Connector, delay: Option<Duration>) {
        let (now, drains) = (self.time.clock.now(), self.stop.drain.is_some());
        let Some(dial) = self.clients.all.get_mut(connector.0) else { return };
        let again = matches!(dial.stage, Stage::Over { again: true });
        match delay.filter(|_| dial.to.reconnect.is_some()) {
            _ if drains => self.release(connector),
            _ if again => {
                dial.stage = Stage::Queued;
                self.queues.soon.push_back(Soon::Connect(connector));
            }
            Some(delay) => dial.stage = Stage::Waiting(self.time.timers.set(now, delay, Task::Connect(connector))),
            None => self.release(connector),
        }
    }

    /// Nothing is left of it.
    pub(crate) fn release(&mut self, connector: Connector) {
        let Some(Dial { factory, .. }) = self.clients.all.remove(connector.0) else { return };
        if self.ports.users.remove(&factory) && !self.never_starts(&factory) {
            self.call_free("stop_factory", |cx| factory.stop_factory(cx));
        }
    }

    /// Whether it has not been started yet; then it is not going to be.
    pub(crate) fn never_starts(&mut self, factory: &Rc<dyn Factory>) -> bool {
        let is_it = |soon: &Soon| matches!(soon, Soon::Start(other) if other.identity() == factory.identity());
        let place = self.queues.soon.iter().position(is_it);
        place.is_some_and(|place| self.queues.soon.remove(place).is_some())
    }
}
