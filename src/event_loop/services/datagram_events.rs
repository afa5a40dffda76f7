//! Timers and messages of datagram sockets.

use std::any::Any;
use std::time::Duration;

use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::datagram_protocol::{DatagramPort, DatagramTransport, Delivery};
use crate::event_loop::state::work::{Deferred, TimerTask};
use crate::event_loop::state::State;
use crate::panics::forget;

/// A list of timers shorter than this is not worth sweeping.
const MANY: usize = 16;

impl DatagramTransport<'_> {
    /// Sets a timer of this socket: [`timer`](crate::event_loop::DatagramProtocol::timer) is called after `delay`. It
    /// ends with the socket. [`cancel`](Context::cancel) and [`reset`](Context::reset) take it as well.
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        let (now, place, state) = (self.cx.now(), self.place, &mut *self.cx.state);
        let timer = state.time.timers.set(now, delay, TimerTask::Datagrams(place));
        match state.datagrams.list.get_mut(place) {
            Some(port) => {
                // Fired ones are swept out when the list has doubled.
                if port.timers.len() >= MANY && port.timers.len().is_power_of_two() {
                    port.timers.retain(|timer| state.time.timers.is_pending(*timer));
                }
                port.timers.push(timer);
            }
            None => drop(state.time.timers.cancel(timer)),
        }
        timer
    }
}

impl Context<'_> {
    /// Sends `message` to the protocol of a datagram socket of this loop. Its
    /// [`message`](crate::event_loop::DatagramProtocol::message) is called in this turn or the next, never within this
    /// callback. `false` if the socket is closed. If it closes before the call, the message is dropped. Another thread
    /// does so by [`call_from_thread`](crate::event_loop::ReactorHandle::call_from_thread).
    pub fn post_to_port(&mut self, port: &DatagramPort, message: impl Any) -> bool {
        let is_open = self.state.is_receiving(port.place);
        if is_open {
            self.state.queues.deferred.push_back(Deferred::DatagramMessage(port.place, Box::new(message)));
        }
        is_open
    }
}

impl State {
    /// True if the port is open.
    fn is_receiving(&self, place: Place) -> bool {
        self.datagrams.list.get(place).is_some_and(|port| !port.sockets.is_empty())
    }

    pub(crate) fn fire_datagram_timer(&mut self, place: Place, timer: TimerId) {
        if self.is_receiving(place) {
            self.call_datagrams(place, Delivery::default(), "timer", |p, t| p.timer(t, timer));
        }
    }

    pub(crate) fn deliver_datagram_message(&mut self, place: Place, message: Box<dyn Any>) {
        if self.is_receiving(place) {
            self.call_datagrams(place, Delivery::default(), "message", |p, t| p.message(t, message));
        } else {
            forget(message);
        }
    }
}
