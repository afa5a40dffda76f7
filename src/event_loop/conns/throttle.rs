//! Connections under a rate limit: how much each may read and send now, and when it goes on.

use std::io;

use crate::event_loop::primitives::rate::RateLimit;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::rare::{Direction, Throttle};
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::work::Task;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Reads no faster than this; connections that are given clones of the limit share it. What comes faster waits in
    /// the kernel, and then at the peer. To wait for it is a reason of its own not to be read from, and is no idling.
    pub fn limit_reading(&mut self, limit: &RateLimit) {
        let id = self.id();
        self.state.limit_rate(id, Direction::Reading, limit);
    }

    /// Sends no faster than this; connections that are given clones of the limit share it. What is written faster is
    /// queued, and the water marks and the hard limit hold for it. The write limit counts only while it is the peer
    /// who takes nothing. After [`close`](Self::close) the queue is sent at this rate too, however long that takes:
    /// [`set_total_timeout`](Self::set_total_timeout) bounds it.
    pub fn limit_writing(&mut self, limit: &RateLimit) {
        let id = self.id();
        self.state.limit_rate(id, Direction::Writing, limit);
    }
}

impl Conn {
    fn throttle(&mut self, direction: Direction) -> Option<&mut Throttle> {
        let rare = self.rare.as_mut()?;
        match direction {
            Direction::Reading => rare.reading.as_mut(),
            Direction::Writing => rare.writing.as_mut(),
        }
    }

    /// Of what [`State::allowed`] has said, so much was used.
    pub(crate) fn give_back(&mut self, direction: Direction, allowed: usize, used: usize) {
        if let Some(throttle) = self.throttle(direction) {
            throttle.limit.give_back(allowed - used);
        }
    }
}

impl State {
    fn limit_rate(&mut self, id: ConnId, direction: Direction, limit: &RateLimit) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.throttle(direction).is_some_and(|throttle| throttle.limit.is(limit)) {
            return;
        }
        let throttle = Some(Throttle::new(limit));
        let old = match direction {
            Direction::Reading => std::mem::replace(&mut conn.rare().reading, throttle),
            Direction::Writing => std::mem::replace(&mut conn.rare().writing, throttle),
        };
        conn.paused.by_rate &= direction == Direction::Writing;
        self.let_go(old);
        self.mark(id);
    }

    /// Gives up a place at a bucket.
    pub(crate) fn let_go(&mut self, throttle: Option<Throttle>) {
        let Some(Throttle { limit, wait: Some((timer, reserved)), .. }) = throttle else { return };
        self.time.timers.cancel(timer);
        limit.give_back(reserved);
    }

    /// How much may pass now, up to `most`. Where that is nothing, the connection has got in line.
    pub(crate) fn allowed(&mut self, id: ConnId, direction: Direction, most: usize) -> usize {
        let now = self.time.now;
        let throttle = self.conns.get_mut(id).and_then(|conn| conn.throttle(direction));
        let Some(throttle) = throttle.filter(|throttle| throttle.wait.is_none()) else { return 0 };
        match throttle.take(now, most) {
            0 => {
                self.get_in_line(id, direction, most);
                0
            }
            n => n,
        }
    }

    fn get_in_line(&mut self, id: ConnId, direction: Direction, most: usize) {
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.paused.by_rate |= direction == Direction::Reading;
        let Some(throttle) = conn.throttle(direction) else { return };
        let (reserved, wait) = throttle.limit.reserve(now, most);
        throttle.wait = Some((self.time.timers.set(now, wait, Task::Throttle(id, direction)), reserved));
        self.mark(id);
    }

    /// Its turn has come.
    pub(crate) fn may_go_on(&mut self, id: ConnId, direction: Direction) {
        self.time.now = self.time.clock.now();
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(throttle) = conn.throttle(direction) else { return };
        throttle.granted = throttle.wait.take().map_or(0, |(_, reserved)| reserved);
        if direction == Direction::Reading {
            conn.paused.by_rate = false;
            conn.since = now; // it was not the peer who was waited for
            if conn.is_open() && conn.wanted().read {
                self.read(id);
            }
        } else {
            self.mind_the_rise(id); // a callback of this turn may have written; it is told of the fall only then
            self.flush(id);
        }
        if let Some(throttle) = self.conns.get_mut(id).and_then(|conn| conn.throttle(direction)) {
            throttle.limit.give_back(std::mem::take(&mut throttle.granted));
        }
        self.mark(id);
    }

    /// Reads once, from a connection that may have a rate limit: no more than that allows, and not at all until it is
    /// its turn.
    pub(crate) fn recv_limited(&mut self, id: ConnId, buffer: &mut [u8]) -> io::Result<usize> {
        let would_block = || Err(io::ErrorKind::WouldBlock.into());
        let Some(conn) = self.conns.get_mut(id) else { return would_block() };
        if !conn.is_open() || conn.throttle(Direction::Reading).is_none() {
            return conn.recv(buffer); // into the void it is read as fast as it comes
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
        if used == most {
            let next = self.allowed(id, Direction::Reading, size); // more is likely to be there: in line at once
            self.conns.get_mut(id).into_iter().for_each(|conn| conn.give_back(Direction::Reading, next, 0));
        }
        read
    }
}
