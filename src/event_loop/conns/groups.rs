//! Groups: joining, leaving, and sending to all members.

use std::rc::Rc;
use std::sync::Once;

use log::Level;

use crate::event_loop::io::outbox::WORTH_SHARING;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;
use crate::observe::log_line;

impl State {
    /// Queues a text for the members in this loop, and returns how many it has reached.
    pub(crate) fn broadcast(&mut self, group: Group, bytes: &[u8], except: Option<ConnId>) -> usize {
        // One copy that all queues refer to.
        let shared: Option<Rc<[u8]>> = (bytes.len() >= WORTH_SHARING).then(|| bytes.into());
        let mut reached = 0;
        for place in 0..self.groups.members(group).len() {
            let Some(&id) = self.groups.members(group).get(place) else { break };
            // A member of a lossy group that is behind misses the text, and stays.
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

    /// True if the connection's queue is long.
    fn is_behind(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.flow.told_to_pause || conn.out.load() > self.settings.high_water)
    }

    /// Joins a group, and lets the other loops know that it has members here.
    pub(crate) fn join(&mut self, group: Group, id: ConnId) {
        self.groups.join(group, id);
        if self.is_solo(id) {
            self.warn_of_small_groups();
        }
        if !self.loops.group.is_alone() {
            self.loops.group.joined(self.loops.number, group);
        }
    }

    /// Warns once in the process that a group does not reach across the loops of [`Blocking`](crate::Blocking). A child
    /// of `Forking` does not: each child would.
    fn warn_of_small_groups(&self) {
        static WARNED: Once = Once::new();
        if !self.core.control.in_child() {
            let text = "with Blocking a Group has one connection of the server: a broadcast reaches no other one";
            WARNED.call_once(|| log_line(Level::Warn, "socketserver::event_loop", format_args!("{text}")));
        }
    }

    /// Leaves a group; `false` if the connection was no member.
    pub(crate) fn leave(&mut self, group: Group, id: ConnId) -> bool {
        let left = self.groups.leave(group, id);
        if left && !self.loops.group.is_alone() {
            self.loops.group.left(self.loops.number, group);
        }
        left
    }
}

impl Transport<'_> {
    /// Joins a group; `false` if the connection is a member already.
    pub fn join(&mut self, group: Group) -> bool {
        let joined = self.conn_mut().is_some_and(|conn| {
            let joins = !conn.groups.contains(&group);
            if joins {
                conn.groups.push(group);
            }
            joins
        });
        if joined {
            self.cx.state.join(group, self.id);
        }
        joined
    }

    /// Leaves a group; `false` if the connection is no member.
    pub fn leave(&mut self, group: Group) -> bool {
        self.conn_mut().into_iter().for_each(|conn| conn.groups.retain(|g| *g != group));
        self.cx.state.leave(group, self.id)
    }
}
