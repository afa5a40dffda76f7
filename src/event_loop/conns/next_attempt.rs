//! What follows for a client that has lost its connection: a wait for the next attempt, the attempt, or the end.
//!
//! It is here, below `services`, because it follows the end of a connection at once. The next callback finds the
//! client in its final state.

use std::rc::Rc;
use std::time::Duration;

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::clients::{Client, Stage};
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::work::{Deferred, TimerTask};
use crate::event_loop::state::State;

impl State {
    /// Plans what follows the loss of a client's connection, after `connection_lost`.
    pub(crate) fn plan_after_loss(&mut self, connector: Connector) {
        let delay = self.clients.all.get_mut(connector.0).and_then(Client::next_delay);
        self.plan_next_attempt(connector, delay);
    }

    /// Sets the timer for the next attempt, begins it, or releases the client. A loop that drains connects no more.
    pub(crate) fn plan_next_attempt(&mut self, connector: Connector, delay: Option<Duration>) {
        let (now, drains) = (self.time.clock.now(), self.stop.drain.is_some());
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let again = matches!(client.stage, Stage::Over { again: true });
        match delay.filter(|_| client.to.reconnect.is_some()) {
            _ if drains => self.release(connector),
            _ if again => {
                client.stage = Stage::Queued;
                self.queues.deferred.push_back(Deferred::Connect(connector));
            }
            Some(delay) => {
                client.stage = Stage::Waiting(self.time.timers.set(now, delay, TimerTask::Connect(connector)))
            }
            None => self.release(connector),
        }
    }

    /// Forgets a client. If it was the last user of its factory, `stop_factory` is called.
    pub(crate) fn release(&mut self, connector: Connector) {
        let Some(Client { factory, .. }) = self.clients.all.remove(connector.0) else { return };
        if self.ports.factory_refs.remove(&factory) && !self.cancel_start(&factory) {
            self.call_free("stop_factory", |cx| factory.stop_factory(cx));
        }
    }

    /// Cancels the call of `start_factory`. True if it was still to come.
    pub(crate) fn cancel_start(&mut self, factory: &Rc<dyn Factory>) -> bool {
        let is_it = |soon: &Deferred| matches!(soon, Deferred::Start(other) if other.identity() == factory.identity());
        let place = self.queues.deferred.iter().position(is_it);
        place.is_some_and(|place| self.queues.deferred.remove(place).is_some())
    }
}
