//! What a loop does to the connections of the other loops of its server: by a call in their inbox, in order.

use std::any::Any;
use std::sync::Arc;

use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{LostReason, QueueFull};
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::net::Addr;

/// How many times the most bytes of one connection may wait for a loop that does not come to take them.
const ROOM: usize = 8;

impl State {
    /// Has the loop of another one's connection do something; `false` if there is no such loop any more.
    pub(crate) fn across(&self, id: ConnId, call: impl FnOnce(&mut Context<'_>) -> bool + Send + 'static) -> bool {
        let call = move |cx: &mut Context<'_>| {
            call(cx); // the answer is nobody's here
        };
        self.loops.group.inbox_at(id.home()).is_some_and(|inbox| inbox.send(Box::new(call)).is_ok())
    }

    /// Bytes for a connection of another loop; `None` if it is none, `false` if too much waits there, and it is cut.
    pub(crate) fn write_across(&self, id: ConnId, bytes: &[u8]) -> Option<bool> {
        let inbox = self.loops.group.inbox_at(id.home()).filter(|_| self.is_of_another_loop(id))?;
        if !inbox.reserve(bytes.len(), self.inbox_limit()) {
            let _ = inbox.send(Box::new(move |cx| cx.state.overflow(id)));
            return Some(false);
        }
        let text = bytes.to_vec();
        let write = move |cx: &mut Context<'_>| {
            cx.state.loops.inbox.release(text.len());
            cx.write_to(id, &text);
        };
        Some(inbox.send(Box::new(write)).is_ok())
    }

    /// A text for the members of a group in the other loops: one copy and one call for each loop. How many there are.
    pub(crate) fn broadcast_across(&self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        let others = self.loops.group.members_elsewhere(self.loops.number, group);
        if others.is_empty() {
            return 0;
        }
        let text: Arc<[u8]> = bytes.into();
        let mut reached = 0;
        for (number, members) in others {
            if self.send_text(number, group, &text, except) {
                let is_there = except.is_some_and(|id| id.home() == self.loops.group.home(number));
                reached += members.saturating_sub(usize::from(is_there));
            }
        }
        reached
    }

    /// Whether the loop gets it. One that stands still must not fill the memory, so at some point its members are those
    /// who do not read.
    fn send_text(&self, number: usize, group: Group, text: &Arc<[u8]>, except: Option<ConnId>) -> bool {
        let inbox = self.loops.group.inbox(number);
        if inbox.reserve(text.len(), self.inbox_limit()) {
            let text = text.clone();
            let broadcast = move |cx: &mut Context<'_>| {
                cx.state.loops.inbox.release(text.len());
                cx.state.broadcast(group, &text, except);
                cx.state.settle_above_high_water(text.len());
            };
            return inbox.send(Box::new(broadcast)).is_ok();
        }
        if !group.is_lossy() && self.loops.group.set_behind(number, group, true) {
            let _ = inbox.send(Box::new(move |cx| cx.state.cut_members(group)));
        }
        false
    }

    /// Many texts may have come while this loop was busy. They are no reason to cut who reads them, and so they are sent
    /// before more is queued than should be.
    fn settle_above_high_water(&mut self, bytes: usize) {
        self.loops.came_across += bytes;
        if self.loops.came_across > self.settings.high_water {
            self.settle();
        }
    }

    fn inbox_limit(&self) -> usize {
        self.settings.max_queued.saturating_mul(ROOM)
    }

    /// They have missed something.
    fn cut_members(&mut self, group: Group) {
        for id in self.groups.members(group).to_vec() {
            self.overflow(id);
        }
        self.loops.group.set_behind(self.loops.number, group, false);
    }

    fn overflow(&mut self, id: ConnId) {
        self.end(id, LostReason::Overflow(QueueFull { limit: self.settings.max_queued }));
    }

    /// The other loops end when this one does.
    pub(crate) fn stop_all(&mut self) {
        self.stop.asked = true;
        self.loops.group.call_others(self.loops.number, || Box::new(|cx| cx.state.stop.asked = true));
    }
}

impl Context<'_> {
    /// Queues bytes for another connection; `false` if it is gone or closing, or did not keep up and is aborted now.
    ///
    /// With [`Blocking`](crate::Blocking) each connection has its own loop, so no other connection can be reached.
    pub fn write_to(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        match self.state.write_across(id, bytes) {
            Some(sent) => sent,
            None => self.state.write(id, bytes).is_ok(),
        }
    }

    /// As [`write_to`](Self::write_to), with a line feed after the line.
    pub fn send_line_to(&mut self, id: ConnId, line: impl AsRef<[u8]>) -> bool {
        self.write_to(id, &[line.as_ref(), b"\n"].concat())
    }

    /// As [`broadcast`](Self::broadcast), with a line feed after the line.
    pub fn broadcast_line(&mut self, group: Group, line: impl AsRef<[u8]>, except: Option<ConnId>) -> usize {
        self.broadcast(group, &[line.as_ref(), b"\n"].concat(), except)
    }

    /// Queues bytes for all members of a group, but one if it is given; how many get them. Long texts are not copied
    /// for each. What becomes of a member who does not read, [`Group`] says.
    ///
    /// ```
    /// # use socketserver::{Context, Group};
    /// # use socketserver::event_loop::ConnId;
    /// fn tell_the_others(cx: &mut Context<'_>, room: Group, speaker: ConnId, text: &str) -> usize {
    ///     cx.broadcast(room, text.as_bytes(), Some(speaker))
    /// }
    /// ```
    ///
    /// Members on other loops of [`EventLoops`](crate::EventLoops) get it as well, by one call in each loop; of them all
    /// are counted who are members now, but the one that is left out.
    ///
    /// With [`Blocking`](crate::Blocking) each connection has its own loop: the group has one member, and nobody else
    /// gets it.
    pub fn broadcast(&mut self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        self.state.broadcast(group, bytes, except) + self.state.broadcast_across(group, bytes, except)
    }

    /// How many connections are in a group, those of other loops included.
    pub fn members(&self, group: Group) -> usize {
        if self.state.loops.group.is_alone() {
            self.state.groups.members(group).len()
        } else {
            self.state.loops.group.members(group)
        }
    }

    /// Sends `message` to another connection's [`Protocol::message`](crate::Protocol::message), which is called in this
    /// turn or the next, never within this callback; `false` if the connection is gone or closing. One that
    /// closes before gets none. For connections of this loop only; [`post_to`](Self::post_to) is for all.
    pub fn post(&mut self, id: ConnId, message: impl Any) -> bool {
        let there = self.state.is_open(id);
        if there {
            self.state.queues.deferred.push_back(Deferred::Message(id, Box::new(message)));
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

    /// Ends [`Reactor::run`](crate::Reactor::run) with this turn. Connections and listeners stay as they are. In a
    /// [`TcpServer`](crate::TcpServer) it ends `serve_forever`, without a drain: [`shutdown`](Self::shutdown), or that
    /// of [`server`](Self::server), is the way there.
    pub fn stop(&mut self) {
        self.state.stop_all();
    }
}
