//! What a loop does to the connections of the other loops of its server: by a call in their inbox, in order.

use std::sync::Arc;

use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{LostReason, QueueFull};
use crate::event_loop::state::State;

/// How many times the most bytes of one connection may wait for a loop that does not come to take them.
const ROOM: usize = 8;

impl State {
    /// Has the loop of another one's connection do something; `false` if there is no such loop any more.
    pub(crate) fn across(&self, id: ConnId, call: impl FnOnce(&mut Context<'_>) -> bool + Send + 'static) -> bool {
        let call = move |cx: &mut Context<'_>| {
            call(cx); // the answer is nobody's here
        };
        self.team.inbox_at(id.home()).is_some_and(|inbox| inbox.send(Box::new(call)).is_ok())
    }

    /// Bytes for a connection of another loop; `None` if it is none, `false` if too much waits there, and it is cut.
    pub(crate) fn write_across(&self, id: ConnId, bytes: &[u8]) -> Option<bool> {
        let inbox = self.team.inbox_at(id.home()).filter(|_| self.is_of_another_loop(id))?;
        if !inbox.reserve(bytes.len(), self.room_of_a_loop()) {
            let _ = inbox.send(Box::new(move |cx| cx.state.overflow(id)));
            return Some(false);
        }
        let text = bytes.to_vec();
        let write = move |cx: &mut Context<'_>| {
            cx.state.inbox.took(text.len());
            cx.write_to(id, &text);
        };
        Some(inbox.send(Box::new(write)).is_ok())
    }

    /// A text for the members of a group in the other loops: one copy and one call for each loop. How many there are.
    pub(crate) fn broadcast_across(&self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        let others = self.team.members_elsewhere(self.number, group);
        if others.is_empty() {
            return 0;
        }
        let text: Arc<[u8]> = bytes.into();
        let mut reached = 0;
        for (number, members) in others {
            if self.send_text(number, group, &text, except) {
                let is_there = except.is_some_and(|id| id.home() == self.team.home(number));
                reached += members.saturating_sub(usize::from(is_there));
            }
        }
        reached
    }

    /// Whether the loop gets it. One that stands still must not fill the memory, so at some point its members are those
    /// who do not read.
    fn send_text(&self, number: usize, group: Group, text: &Arc<[u8]>, except: Option<ConnId>) -> bool {
        let inbox = self.team.inbox(number);
        if inbox.reserve(text.len(), self.room_of_a_loop()) {
            let text = text.clone();
            let broadcast = move |cx: &mut Context<'_>| {
                cx.state.inbox.took(text.len());
                cx.state.broadcast(group, &text, except);
                cx.state.settle_if_much_came(text.len());
            };
            return inbox.send(Box::new(broadcast)).is_ok();
        }
        if !group.is_lossy() && self.team.set_behind(number, group, true) {
            let _ = inbox.send(Box::new(move |cx| cx.state.cut_the_members(group)));
        }
        false
    }

    /// Many texts may have come while this loop was busy. They are no reason to cut who reads them, and so they are sent
    /// before more is queued than should be.
    fn settle_if_much_came(&mut self, bytes: usize) {
        self.came_across += bytes;
        if self.came_across > self.settings.high_water {
            self.settle();
        }
    }

    fn room_of_a_loop(&self) -> usize {
        self.settings.max_queued.saturating_mul(ROOM)
    }

    pub(crate) fn join(&mut self, group: Group, id: ConnId) {
        self.groups.join(group, id);
        if !self.team.is_alone() {
            self.team.joined(self.number, group);
        }
    }

    /// `false` if it was not in.
    pub(crate) fn leave(&mut self, group: Group, id: ConnId) -> bool {
        let left = self.groups.leave(group, id);
        if left && !self.team.is_alone() {
            self.team.left(self.number, group);
        }
        left
    }

    /// They have missed something.
    fn cut_the_members(&mut self, group: Group) {
        for id in self.groups.members(group).to_vec() {
            self.overflow(id);
        }
        self.team.set_behind(self.number, group, false);
    }

    fn overflow(&mut self, id: ConnId) {
        self.end(id, LostReason::Overflow(QueueFull { limit: self.settings.max_queued }));
    }

    /// The other loops end when this one does.
    pub(crate) fn stop_all(&mut self) {
        self.stop = true;
        self.team.tell_others(self.number, || Box::new(|cx| cx.state.stop = true));
    }
}
