//! What a loop does to connections of the other loops of its server: it sends a call to their inbox.
//!
//! So no connection is ever touched by two threads, and the calls keep their order.

use std::any::Any;
use std::sync::Arc;

use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{LostReason, QueueFull};
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::net::Addr;

/// How many times `max_queued` may wait in the inbox of a loop that does not take it.
const ROOM: usize = 8;

impl State {
    /// Sends a call to the loop of a connection; `false` if that loop is gone.
    pub(crate) fn across(&self, id: ConnId, call: impl FnOnce(&mut Context<'_>) -> bool + Send + 'static) -> bool {
        let call = move |cx: &mut Context<'_>| {
            call(cx); // no caller waits for the answer
        };
        self.loops.group.inbox_at(id.home()).is_some_and(|inbox| inbox.send(Box::new(call)).is_ok())
    }

    /// Sends bytes to a connection of another loop; `None` if it belongs to this one. `false` if too much waits there;
    /// then the connection is cut.
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

    /// Sends a text to the members of a group in the other loops, by one call for each loop. Returns how many members
    /// it reaches.
    pub(crate) fn broadcast_across(&self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        let others = self.loops.group.members_elsewhere(self.loops.number, group);
        if others.is_empty() {
            return 0;
        }
        // One copy for all loops.
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

    /// Sends a text to one loop. `false` if too much waits for that loop. A loop that hangs must not fill the memory,
    /// so its members are then treated as peers that do not read: they are cut.
    fn send_text(&self, number: usize, group: Group, text: &Arc<[u8]>, except: Option<ConnId>) -> bool {
        // The bytes in an inbox are bounded, as those in a queue are.
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

    /// Sends what other loops have queued, once it is much. Many texts may have come while this loop was busy. Members
    /// that read must not be cut for that.
    fn settle_above_high_water(&mut self, bytes: usize) {
        self.loops.came_across += bytes;
        if self.loops.came_across > self.settings.high_water {
            self.settle();
        }
    }

    /// Sends a copy of a message to the members of a group in this loop, and returns to how many.
    fn post_to_members(&mut self, group: Group, message: &(impl Any + Clone), except: Option<ConnId>) -> usize {
        let members = self.groups.members(group).iter().filter(|id| Some(**id) != except);
        let open: Vec<_> = members.copied().filter(|id| self.is_open(*id)).collect();
        let posts = open.iter().map(|id| Deferred::Message(*id, Box::new(message.clone())));
        self.queues.deferred.extend(posts);
        open.len()
    }

    fn inbox_limit(&self) -> usize {
        self.settings.max_queued.saturating_mul(ROOM)
    }

    /// Cuts the members of a group in this loop, because they have missed a text.
    fn cut_members(&mut self, group: Group) {
        for id in self.groups.members(group).to_vec() {
            self.overflow(id);
        }
        self.loops.group.set_behind(self.loops.number, group, false);
    }

    fn overflow(&mut self, id: ConnId) {
        self.end(id, LostReason::Overflow(QueueFull { limit: self.settings.max_queued }));
    }

    /// Ends this loop, and the other loops of the server.
    pub(crate) fn stop_all(&mut self) {
        self.stop.asked = true;
        self.loops.group.call_others(self.loops.number, || Box::new(|cx| cx.state.stop.asked = true));
    }
}

impl Context<'_> {
    /// Queues bytes for another connection. `false` if it is gone or closing, or is aborted now because it did not keep
    /// up.
    ///
    /// With [`Blocking`](crate::Blocking) each connection has its own loop. It reaches the clients and inputs that
    /// its protocol makes, and no other connection of the server.
    pub fn write_to(&mut self, id: ConnId, bytes: &[u8]) -> bool {
        match self.state.write_across(id, bytes) {
            Some(sent) => sent,
            None => self.state.write(id, bytes).is_ok(),
        }
    }

    /// Queues a line and a line feed, as [`write_to`](Self::write_to) does.
    pub fn send_line_to(&mut self, id: ConnId, line: impl AsRef<[u8]>) -> bool {
        self.write_to(id, &[line.as_ref(), b"\n"].concat())
    }

    /// Broadcasts a line and a line feed, as [`broadcast`](Self::broadcast) does.
    pub fn broadcast_line(&mut self, group: Group, line: impl AsRef<[u8]>, except: Option<ConnId>) -> usize {
        self.broadcast(group, &[line.as_ref(), b"\n"].concat(), except)
    }

    /// Queues bytes for all members of a group except `except`, and returns how many it reaches. Members share one copy
    /// of a long text. [`Group`] says what happens to a member that does not read.
    ///
    /// ```
    /// # use socketserver::{Context, Group};
    /// # use socketserver::event_loop::ConnId;
    /// fn tell_the_others(
    ///     cx: &mut Context<'_>,
    ///     room: Group,
    ///     speaker: ConnId,
    ///     text: &str,
    /// ) -> usize {
    ///     cx.broadcast(room, text.as_bytes(), Some(speaker))
    /// }
    /// ```
    ///
    /// Members on other loops of [`EventLoops`](crate::EventLoops) get it as well, by one call in each loop. There,
    /// every present member counts as reached, except `except`.
    pub fn broadcast(&mut self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        self.state.broadcast(group, bytes, except) + self.state.broadcast_across(group, bytes, except)
    }

    /// Returns how many connections are in a group, those of other loops included.
    pub fn members(&self, group: Group) -> usize {
        if self.state.loops.group.is_alone() {
            self.state.groups.members(group).len()
        } else {
            self.state.loops.group.members(group)
        }
    }

    /// Sends `message` to another connection of this loop. Its [`Protocol::message`](crate::Protocol::message) is
    /// called in this turn or the next, never within this callback. `false` if the connection is gone or closing. If
    /// it closes before the call, the message is dropped. [`post_to`](Self::post_to) works for connections of all
    /// loops.
    pub fn post(&mut self, id: ConnId, message: impl Any) -> bool {
        let there = self.state.is_open(id);
        if there {
            self.state.queues.deferred.push_back(Deferred::Message(id, Box::new(message)));
        }
        there
    }

    /// Sends a message as [`post`](Self::post) does, also to a connection of another loop.
    pub fn post_to(&mut self, id: ConnId, message: impl Any + Send) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.post(id, message));
        }
        self.post(id, message)
    }

    /// Sends a copy of `message` to each member of a group except `except`, as [`post_to`](Self::post_to) does.
    /// Returns the number of members that it was sent to. Each member makes its own output of the message. For text
    /// that is the same for all, [`broadcast`](Self::broadcast) is cheaper.
    ///
    /// The members get it in the order in which they joined. Each other loop gets one call. No limit counts messages.
    ///
    /// ```
    /// use std::any::Any;
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{Group, HandlerResult, Protocol, Transport};
    ///
    /// struct Member(Group);
    ///
    /// impl Protocol for Member {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
    ///         transport.join(self.0);
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
    ///         let me = transport.id();
    ///         transport.post_to_group(self.0, data.to_vec(), Some(me));
    ///         Ok(())
    ///     }
    ///
    ///     fn message(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         message: Box<dyn Any>,
    ///     ) -> HandlerResult {
    ///         let text = message.downcast::<Vec<u8>>().map_err(|_| "what is this?")?;
    ///         transport.send_line(&*text)
    ///     }
    /// }
    ///
    /// let (mut test, room) = (TestLoop::new()?, Group::new());
    /// let [ada, bob] = [0, 1].map(|_| test.connect(Member(room)));
    /// test.feed(ada, b"hello");
    /// assert_eq!((test.output(ada), test.output(bob)), (vec![], b"hello\n".to_vec()));
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn post_to_group(&mut self, group: Group, message: impl Any + Clone + Send, except: Option<ConnId>) -> usize {
        let mut reached = 0;
        for (number, members) in self.state.loops.group.members_elsewhere(self.state.loops.number, group) {
            let message = message.clone();
            let post = move |cx: &mut Context<'_>| {
                cx.state.post_to_members(group, &message, except);
            };
            if self.state.loops.group.inbox(number).send(Box::new(post)).is_ok() {
                let is_there = except.is_some_and(|id| id.home() == self.state.loops.group.home(number));
                reached += members.saturating_sub(usize::from(is_there));
            }
        }
        self.state.post_to_members(group, &message, except) + reached
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

    /// Resumes reading from a connection; `false` if it is gone or closing.
    pub fn resume_connection(&mut self, id: ConnId) -> bool {
        if self.state.is_of_another_loop(id) {
            return self.state.across(id, move |cx| cx.resume_connection(id));
        }
        self.state.resume(id)
    }

    /// Returns the address of a connection's peer. `None` if the connection is gone, or belongs to another loop.
    pub fn peer_of(&self, id: ConnId) -> Option<Addr> {
        self.state.conns.get(id).map(|conn| conn.peer.clone())
    }

    /// Returns how many bytes are queued for a connection. `None` if it is gone, or belongs to another loop.
    pub fn queued_of(&self, id: ConnId) -> Option<usize> {
        self.state.conns.get(id).map(|conn| conn.out.len())
    }

    /// Returns how many connections this loop has.
    pub fn connections(&self) -> usize {
        self.state.conns.len()
    }

    /// Ends [`Reactor::run`](crate::Reactor::run) with this turn. Connections and listeners stay as they are. In a
    /// [`TcpServer`](crate::TcpServer) it ends `serve_forever` without a drain; for a drain call
    /// [`shutdown`](Self::shutdown), here or on [`server`](Self::server).
    pub fn stop(&mut self) {
        self.state.stop_all();
    }
}
