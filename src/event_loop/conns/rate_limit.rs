//! Connections under a rate limit: how much each may read and send now, and when it goes on.
//!
//! A connection gets in line at the limit. It takes in advance what it waits for, and its timer is set for when that
//! has come. So connections have their turn in order, each gets as much, and newcomers do not overtake. Several loops
//! need not talk to each other. What is not used is given back.

use std::io;

use crate::event_loop::primitives::rate::RateLimit;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::cold::{Direction, RateWaiter};
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Limits how fast the connection is read. Connections with clones of the limit share it. Faster input waits in the
    /// kernel, and then at the peer. This pause is independent of the others, and does not count as idle time.
    pub fn limit_reading(&mut self, limit: &RateLimit) {
        let id = self.id();
        self.state.limit_rate(id, Direction::Reading, limit);
    }

    /// Limits how fast the connection sends. Connections with clones of the limit share it. Faster output is queued,
    /// within the water marks and the hard limit. The write limit counts only while the peer takes nothing. After
    /// [`close`](Self::close) the queue is sent at this rate too; [`set_total_timeout`](Self::set_total_timeout) bounds
    /// how long.
    pub fn limit_writing(&mut self, limit: &RateLimit) {
        let id = self.id();
        self.state.limit_rate(id, Direction::Writing, limit);
    }
}

impl Conn {
    fn rate_waiter(&mut self, direction: Direction) -> Option<&mut RateWaiter> {
        let cold = self.cold.as_mut()?;
        match direction {
            Direction::Reading => cold.reading.as_mut(),
            Direction::Writing => cold.writing.as_mut(),
        }
    }

    /// Gives back what was not used of the bytes that [`State::allowed`] has granted.
    pub(crate) fn give_back(&mut self, direction: Direction, allowed: usize, used: usize) {
        if let Some(waiter) = self.rate_waiter(direction) {
            waiter.limit.give_back(allowed - used);
        }
    }
}

impl State {
    /// Sets or replaces a rate limit.
    fn limit_rate(&mut self, id: ConnId, direction: Direction, limit: &RateLimit) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.rate_waiter(direction).is_some_and(|waiter| waiter.limit.is(limit)) {
            return;
        }
        let waiter = Some(RateWaiter::new(limit));
        let old = match direction {
            Direction::Reading => std::mem::replace(&mut conn.cold().reading, waiter),
            Direction::Writing => std::mem::replace(&mut conn.cold().writing, waiter),
        };
        conn.paused.by_rate &= direction == Direction::Writing;
        self.release_waiter(old);
        self.mark(id);
    }

    /// Leaves the line at a rate limit, and gives back what was taken in advance.
    pub(crate) fn release_waiter(&mut self, waiter: Option<RateWaiter>) {
        let Some(RateWaiter { limit, wait: Some((timer, reserved)), .. }) = waiter else { return };
        self.time.timers.cancel(timer);
        limit.give_back(reserved);
    }

    /// Returns how much may pass now, up to `most`. If it is 0, the connection has got in line.
    pub(crate) fn allowed(&mut self, id: ConnId, direction: Direction, most: usize) -> usize {
        let now = self.time.now;
        let waiter = self.conns.get_mut(id).and_then(|conn| conn.rate_waiter(direction));
        let Some(waiter) = waiter.filter(|waiter| waiter.wait.is_none()) else { return 0 };
        match waiter.take(now, most) {
            0 => {
                self.wait_for_rate(id, direction, most);
                0
            }
            n => n,
        }
    }

    /// Gets in line: reserves bytes, and sets the timer for when they have come.
    fn wait_for_rate(&mut self, id: ConnId, direction: Direction, most: usize) {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.paused.by_rate |= direction == Direction::Reading;
        let Some(waiter) = conn.rate_waiter(direction) else { return };
        let (reserved, wait) = waiter.limit.reserve(now, most);
        waiter.wait = Some((self.time.timers.set(now, wait, TimerTask::Rate(id, direction)), reserved));
        self.mark(id);
    }

    /// Reads or sends with the bytes that the connection has waited for.
    pub(crate) fn resume_at_rate(&mut self, id: ConnId, direction: Direction) {
        self.time.now = self.time.clock.now();
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(waiter) = conn.rate_waiter(direction) else { return };
        waiter.granted = waiter.wait.take().map_or(0, |(_, reserved)| reserved);
        if direction == Direction::Reading {
            conn.paused.by_rate = false;
            conn.limits.since = now; // this pause was not the peer's fault
            if conn.is_open() && conn.wanted().read {
                self.read(id);
            }
        } else {
            // A callback of this turn may have written. `resume_writing` comes only after `pause_writing`.
            self.pause_above_high_water(id);
            self.flush(id);
        }
        if let Some(waiter) = self.conns.get_mut(id).and_then(|conn| conn.rate_waiter(direction)) {
            waiter.limit.give_back(std::mem::take(&mut waiter.granted));
        }
        self.mark(id);
    }

    /// Reads once, and no more than the rate limit allows, if there is one.
    pub(crate) fn recv_limited(&mut self, id: ConnId, buffer: &mut [u8]) -> io::Result<usize> {
        let would_block = || Err(io::ErrorKind::WouldBlock.into());
        let Some(conn) = self.conns.get_mut(id) else { return would_block() };
        // Input that is thrown away is read as fast as it comes.
        if !conn.is_open() || conn.rate_waiter(Direction::Reading).is_none() {
            return conn.recv(buffer);
        }
        let size = buffer.len();
        let most = self.allowed(id, Direction::Reading, size);
        let (Some(conn), Some(part)) = (self.conns.get_mut(id), buffer.get_mut(..most)) else { return would_block() };
        if most == 0 {
            return would_block();
        }
        let read = conn.recv(part);
        let used = read.as_ref().map_or(0, |n| *n);
        conn.give_back(Direction::Reading, most, used);
        // All was used, so more is likely to be there: get in line at once.
        if used == most {
            let next = self.allowed(id, Direction::Reading, size);
            self.conns.get_mut(id).into_iter().for_each(|conn| conn.give_back(Direction::Reading, next, 0));
        }
        read
    }
}
