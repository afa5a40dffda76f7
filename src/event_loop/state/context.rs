//! What a callback may do besides its own connection.

use std::any::Any;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::error::Error;
use crate::event_loop::io::outbox::WORTH_SHARING;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::reactor::handle::ReactorHandle;
use crate::event_loop::state::datagram_protocol::{DatagramPort, DatagramProtocol};
use crate::event_loop::state::lost::{LostReason, WriteError};
use crate::event_loop::state::{Soon, State, Task};
use crate::event_loop::turn::accept::ListeningPort;
use crate::lifecycle::ServerHandle;
use crate::net::{Addr, Address};

/// The loop, as callbacks see it: other connections by their [`ConnId`], groups, timers, the stop. A
/// [`Transport`](crate::Transport) is one as well, by `Deref`.
///
/// What is done to another connection touches its queue and its flags only: no callback of it runs before this one has
/// returned. An id of a connection that is gone stands for nothing, and the method says so by `false` or `None`.
///
/// With [`EventLoops`](crate::EventLoops), ids of the other loops' connections work as well: what is done to such a
/// connection is sent to its loop, in order, and done there. That it is gone is not known here, so `true` then only
/// means that its loop is there. Where not even that can be, the method says so. An id of a reactor that does not belong
/// to the same server stands for nothing.
pub struct Context<'a> {
    pub(crate) state: &'a mut State,
}

impl Context<'_> {
    /// Queues bytes for another connection; `false` if it is gone or closing, or did not keep up and is aborted now.
    pub fn write_to(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        match self.state.write_across(id, bytes) {
            Some(sent) => sent,
            None => self.state.write(id, bytes).is_ok(),
        }
    }

    /// Queues bytes for all members of a group, but one if it is given; how many get them. Long texts are not copied
    /// for each. What becomes of a member who does not read, [`Group`] says.
    ///
    /// ```
    /// # use socketserver::{ConnId, Context, Group};
    /// fn tell_the_others(cx: &mut Context<'_>, room: Group, speaker: ConnId, text: &str) -> usize {
    ///     cx.broadcast(room, text.as_bytes(), Some(speaker))
    /// }
    /// ```
    ///
    /// Members on other loops of [`EventLoops`](crate::EventLoops) get it as well, by one call in each loop; of them all
    /// are counted who are members now, but the one that is left out.
    pub fn broadcast(&mut self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        self.state.broadcast(group, bytes, except) + self.state.broadcast_across(group, bytes, except)
    }

    /// How many connections are in a group, those of other loops included.
    pub fn members(&self, group: Group) -> usize {
        if self.state.team.is_alone() {
            self.state.groups.members(group).len()
        } else {
            self.state.team.members(group)
        }
    }

    /// Sends `message` to another connection's [`Protocol::message`](crate::Protocol::message), which is called in this
    /// turn or the next, never within this callback; `false` if the connection is gone or closing. One that
    /// closes before gets none. For connections of this loop only; [`post_to`](Self::post_to) is for all.
    pub fn post(&mut self, id: ConnId, message: impl Any) -> bool {
        let there = self.state.is_open(id);
        if there {
            self.state.soon.push_back(Soon::Message(id, Box::new(message)));
        }
        there
    }

    /// As [`post`](Self::post), with a message that may go to another loop.
    pub fn post_to(&mut self, id: ConnId, message: impl Any + Send) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.post(id, message));
        }
        self.post(id, message)
    }

    /// Closes another connection, as its own [`close`](crate::Transport::close) would; `false` if it is gone or
    /// closing.
    pub fn close_connection(&mut self, id: ConnId) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.close_connection(id));
        }
        let open = self.state.is_open(id);
        self.state.end(id, LostReason::Closed);
        open
    }

    /// Cuts another connection, as its own [`abort`](crate::Transport::abort) would; `false` if it is gone.
    pub fn abort_connection(&mut self, id: ConnId) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.abort_connection(id));
        }
        let there = self.state.conns.get(id).is_some();
        self.state.end(id, LostReason::Aborted);
        there
    }

    /// Stops reading from a connection; `false` if it is gone or closing.
    pub fn pause_connection(&mut self, id: ConnId) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.pause_connection(id));
        }
        self.state.pause(id)
    }

    /// Reads from it again; `false` if it is gone or closing.
    pub fn resume_connection(&mut self, id: ConnId) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.resume_connection(id));
        }
        self.state.resume(id)
    }

    /// The address of a connection's peer; `None` if the connection is gone, or another loop's.
    pub fn peer_of(&self, id: ConnId) -> Option<Addr> {
        self.state.conns.get(id).map(|conn| conn.peer.clone())
    }

    /// How many bytes are queued for a connection; `None` if it is gone, or another loop's.
    pub fn queued_of(&self, id: ConnId) -> Option<usize> {
        self.state.conns.get(id).map(|conn| conn.out.len())
    }

    /// How many connections this loop has.
    pub fn connections(&self) -> usize {
        self.state.conns.len()
    }

    /// Calls `call` when `delay` has passed, never within this callback. Equal times keep their order; the clock is
    /// monotonic.
    /// A panic in it is contained and logged.
    pub fn call_later(&mut self, delay: Duration, call: impl FnOnce(&mut Context<'_>) + 'static) -> TimerId {
        let now = self.now();
        self.state.timers.set(now, delay, Task::Call(Box::new(call)))
    }

    /// Cancels a timer; `false` if it has fired already, or was cancelled, or is another loop's.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.state.cancel(timer)
    }

    /// Sets a timer anew, `delay` from now; `false` if it has fired already, or was cancelled, or is another
    /// loop's.
    pub fn reset(&mut self, timer: TimerId, delay: Duration) -> bool {
        let now = self.now();
        self.state.timers.reset(timer, now, delay)
    }

    /// The time, by the loop's clock.
    pub fn now(&self) -> Instant {
        self.state.clock.now()
    }

    /// A handle for other threads.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle::new(&self.state.team, self.state.number, &self.state.core)
    }

    /// The server's remote control: its counters, its limits, its stop.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.state.core.clone() }
    }

    /// Accepts no more on this port. Connections stay.
    pub fn stop_listening(&mut self, port: &ListeningPort) {
        self.state.stop_listening(port.place);
    }

    /// As [`Reactor::listen_udp`](crate::Reactor::listen_udp); the protocol hears of its start when this callback has
    /// returned. Give an IP address: a name is looked up at once, and the loop waits for that.
    ///
    /// # Errors
    /// As there.
    pub fn listen_udp(
        &mut self,
        address: impl Into<Address>,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<DatagramPort, Error> {
        let port = self.state.listen_udp(&address.into(), Box::new(protocol))?;
        let place = port.place;
        self.state.soon.push_back(Soon::Call(Box::new(move |cx| cx.state.start_datagrams(place))));
        Ok(port)
    }

    /// Sends a datagram from a socket of this loop, whose protocol does not hear of it. `false`: there was no room, and it
    /// is dropped. As [`DatagramTransport::send_to`](crate::DatagramTransport::send_to).
    ///
    /// # Errors
    /// As there, and [`io::ErrorKind::NotConnected`] once the socket is closed, and for one of another loop.
    pub fn send_datagram(&mut self, port: &DatagramPort, to: &Addr, bytes: &[u8]) -> io::Result<bool> {
        self.state.send_datagram(port.place, None, to, bytes, None)
    }

    /// Closes a socket of datagrams; its protocol hears of it when this callback has returned.
    pub fn stop_listening_udp(&mut self, port: &DatagramPort) {
        self.state.close_datagrams(port.place);
    }

    /// Ends [`Reactor::run`](crate::Reactor::run) with this turn. Connections and listeners stay as they are. In a
    /// [`TcpServer`](crate::TcpServer) it ends `serve_forever`, without a drain: [`shutdown`](Self::shutdown), or that
    /// of [`server`](Self::server), is the way there.
    pub fn stop(&mut self) {
        self.state.stop_all();
    }

    /// Stops listening, tells every protocol, closes connections when they are idle, cuts those that are not when
    /// `grace` has passed, and ends [`Reactor::run`](crate::Reactor::run).
    pub fn shutdown(&mut self, grace: Duration) {
        self.state.shutdown(grace);
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("connections", &self.state.conns.len()).finish_non_exhaustive()
    }
}

/// A list of timers shorter than this is not worth sweeping.
const MANY: usize = 16;

impl State {
    /// Whether the id is none of this loop's.
    pub(crate) fn is_of_another_loop(&self, id: ConnId) -> bool {
        id.home() != self.conns.home()
    }

    /// The members in this loop.
    pub(crate) fn broadcast(&mut self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        let shared: Option<Rc<[u8]>> = (bytes.len() >= WORTH_SHARING).then(|| bytes.into());
        let mut reached = 0;
        for place in 0..self.groups.members(group).len() {
            let Some(&id) = self.groups.members(group).get(place) else { break };
            let misses = group.is_lossy() && self.is_behind(id);
            if Some(id) == except || misses {
                continue;
            }
            let queued = match &shared {
                Some(shared) => self.write_shared(id, shared),
                None => self.write(id, bytes),
            };
            reached += usize::from(queued.is_ok());
        }
        reached
    }

    pub(crate) fn write(&mut self, id: ConnId, bytes: &[u8]) -> Result<(), WriteError> {
        self.room(id, bytes.len())?;
        let left = self.send_at_once(id, bytes);
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push(left, &mut self.spares);
        }
        self.mark(id);
        Ok(())
    }

    fn write_shared(&mut self, id: ConnId, bytes: &Rc<[u8]>) -> Result<(), WriteError> {
        self.room(id, bytes.len())?;
        if let Some(conn) = self.conns.get_mut(id) {
            conn.out.push_shared(bytes, &mut self.spares);
        }
        self.mark(id);
        Ok(())
    }

    /// Whether so much may be queued; whose queue is full is cut.
    pub(crate) fn room(&mut self, id: ConnId, more: usize) -> Result<(), WriteError> {
        let Some(conn) = self.conns.get(id).filter(|conn| conn.takes_output()) else {
            return Err(WriteError::Closed);
        };
        let limit = self.settings.max_queued;
        if conn.out.load().saturating_add(more) <= limit {
            return Ok(());
        }
        let full = crate::event_loop::state::lost::QueueFull { limit };
        self.end(id, LostReason::Overflow(full));
        Err(WriteError::QueueFull(full))
    }

    fn is_behind(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.told_to_pause || conn.out.load() > self.settings.high_water)
    }

    pub(crate) fn takes_output(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.takes_output())
    }

    pub(crate) fn is_open(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.is_open())
    }

    pub(crate) fn pause(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return false };
        conn.paused.by_protocol = true;
        conn.resumed = false;
        self.mark(id);
        true
    }

    pub(crate) fn resume(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return false };
        if std::mem::take(&mut conn.paused.by_protocol) {
            conn.resumed = true;
            self.mark(id);
        }
        true
    }

    /// The connection's timers end with it. Those that have fired are swept out when the list has doubled.
    pub(crate) fn keep_timer(&mut self, id: ConnId, timer: TimerId) {
        let Some(conn) = self.conns.get_mut(id) else { return drop(self.timers.cancel(timer)) };
        if conn.timers.len() >= MANY && conn.timers.len().is_power_of_two() {
            conn.timers.retain(|timer| self.timers.is_pending(*timer));
        }
        conn.timers.push(timer);
    }

    pub(crate) fn cancel(&mut self, timer: TimerId) -> bool {
        self.timers.cancel(timer).is_some()
    }
}
