//! A connection, as its protocol sees it.

use std::ops::{Deref, DerefMut};
use std::time::Duration;
use std::{fmt, io};

use crate::config::Limit;
use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::conn::{Conn, Marks};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{LostReason, WriteError};
use crate::event_loop::state::{State, Task};
use crate::net::{Addr, PeerCredentials};

/// The protocol's own connection, lent to each callback; by `Deref` also the [`Context`], for all the rest.
///
/// What is written is queued, and sent in one system call when the callback has returned; what others write to the
/// connection, when the turn ends. A piece of 16 KiB and more with nothing before it is offered to the kernel at once, and
/// only what that does not take is copied into the queue. Formatted text goes by
/// `write!(transport, "...")?`, without any trait in scope.
pub struct Transport<'a> {
    cx: Context<'a>,
    id: ConnId,
}

impl<'a> Transport<'a> {
    pub(crate) fn new(state: &'a mut State, id: ConnId) -> Self {
        Self { cx: Context { state }, id }
    }

    /// The same transport for a shorter time, as adapters that lend it on need it.
    pub fn reborrow(&mut self) -> Transport<'_> {
        Transport { cx: Context { state: self.cx.state }, id: self.id }
    }

    /// Queues bytes for the peer.
    ///
    /// # Errors
    /// [`WriteError::Closed`] after `close`, `abort` or a loss. [`WriteError::QueueFull`] when more than the loop's
    /// limit (8 MiB) would be queued: nothing of it is, and the connection is aborted. A protocol that has more to say
    /// than a peer may take at once writes until [`is_writing_paused`](Self::is_writing_paused), and goes on at
    /// [`resume_writing`](crate::Protocol::resume_writing).
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.cx.state.write(self.id, bytes)
    }

    /// What `write!` and `writeln!` call.
    ///
    /// # Errors
    /// As [`write`](Self::write). A `Display` that fails writes what it had until then.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<(), WriteError> {
        match text.as_str() {
            Some(text) => self.write(text.as_bytes()),
            None => {
                let mut formatted = String::new();
                let _ = fmt::write(&mut formatted, text);
                self.write(formatted.as_bytes())
            }
        }
    }

    /// Closes: no more is read, what is queued is sent, then the connection ends, with care for what the peer has
    /// still to read ([`LingeringClose`](crate::LingeringClose)). Once is enough.
    pub fn close(&mut self) {
        self.cx.state.end(self.id, LostReason::Closed);
    }

    /// Cuts: what is queued is given up, and the peer's kernel is told by a reset. What the kernel has been given before, as
    /// it is with large pieces, may still have left.
    pub fn abort(&mut self) {
        self.cx.state.end(self.id, LostReason::Aborted);
    }

    /// Whether the connection is being closed, by whomever.
    pub fn is_closing(&self) -> bool {
        !self.cx.state.is_open(self.id)
    }

    /// Reads no more until [`resume_reading`](Self::resume_reading); the peer's data waits in the kernel. A broken
    /// connection is noticed all the same.
    pub fn pause_reading(&mut self) {
        self.cx.state.pause(self.id);
    }

    /// Reads again; [`reading_resumed`](crate::Protocol::reading_resumed) is called when this callback has returned.
    pub fn resume_reading(&mut self) {
        self.cx.state.resume(self.id);
    }

    /// Whether the protocol has paused reading.
    pub fn is_reading_paused(&self) -> bool {
        self.conn().is_some_and(|conn| conn.paused.by_protocol)
    }

    /// Bytes that are written and not yet taken by the kernel.
    pub fn queued(&self) -> usize {
        self.conn().map_or(0, |conn| conn.out.len())
    }

    /// Whether more than the high-water mark is queued, or has been and is not yet down to the low one: the time to
    /// stop writing until [`resume_writing`](crate::Protocol::resume_writing).
    pub fn is_writing_paused(&self) -> bool {
        let high = self.cx.state.settings.high_water;
        self.conn().is_some_and(|conn| conn.told_to_pause || conn.out.load() > high)
    }

    /// The connection's id, for others to write to.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The peer's address, as `accept` told it, or as it was connected to.
    pub fn peer_addr(&self) -> Addr {
        self.conn().map_or(Addr::Unnamed, |conn| conn.peer.clone())
    }

    /// Who the peer is, on a Unix socket: its process, user and group when it connected. `None` for TCP, in memory, and
    /// once the connection is gone.
    ///
    /// # Errors
    /// As getsockopt(2) fails.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        self.conn().map_or(Ok(None), |conn| conn.io.peer_credentials())
    }

    /// The address of the listener that accepted it; where that is closed, or this side has connected, and with
    /// [`Blocking`](crate::Blocking), that of this end.
    pub fn local_addr(&self) -> Addr {
        let Some(conn) = self.conn() else { return Addr::Unnamed };
        let of_port = |(place, number)| Some(self.cx.state.ports.get(place)?.local_addr(number as usize));
        conn.port.and_then(of_port).unwrap_or_else(|| conn.io.local_addr())
    }

    /// Whose connection it is, where this side has made it.
    pub fn connector(&self) -> Option<Connector> {
        self.conn()?.origin.connector()
    }

    /// Joins a group; `false` if it is in it already.
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

    /// Leaves a group; `false` if it is not in it.
    pub fn leave(&mut self, group: Group) -> bool {
        self.conn_mut().into_iter().for_each(|conn| conn.groups.retain(|g| *g != group));
        self.cx.state.leave(group, self.id)
    }

    /// A timer of this connection: [`timer`](crate::Protocol::timer) is called when `delay` has passed. It ends with
    /// the connection. [`cancel`](Context::cancel) and [`reset`](Context::reset) take it as well.
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        let (now, id) = (self.cx.now(), self.id);
        let timer = self.cx.state.timers.set(now, delay, Task::Protocol(id));
        self.cx.state.keep_timer(id, timer);
        timer
    }

    /// Tells the request limit and the drain that a request is in progress from here on, until
    /// [`request_ends`](Self::request_ends). A protocol that calls neither has a request, for the request limit, from
    /// the first byte after an answer was sent until the last byte of the next; for a drain it is idle whenever nothing
    /// is queued
    /// and reading is not paused. Receivers of lines and strings tell by themselves.
    pub fn request_begins(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.marks = Marks::Explicit;
            conn.request_since = Some(now);
            conn.ends_when_sent = false;
        }
        self.cx.state.mark(self.id);
    }

    /// The request is over as soon as what is queued is sent, since an answer belongs to its request: then the idle
    /// limit counts, and a drain closes the connection.
    pub fn request_ends(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.marks = Marks::Explicit;
            if !conn.out.is_empty() {
                conn.request_since.get_or_insert(now);
                conn.ends_when_sent = true;
            } else if conn.request_since.take().is_some() {
                conn.since = now;
            }
        }
        self.cx.state.mark(self.id);
    }

    /// How long the connection may wait for a request; `None`: for ever. Overrides the server's setting. At this limit,
    /// as at the others, the connection is closed as [`LostReason::TimedOut`] and counted as failed; what is queued is
    /// sent before, but at the write limit.
    pub fn set_idle_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Idle, limit);
    }

    /// How long it may wait for more of a request, each time; `None`: for ever. Overrides the server's setting.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Read, limit);
    }

    /// How long the peer may take nothing of what is queued; `None`: for ever. Overrides the server's setting.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Write, limit);
    }

    /// How long a request may take in all; `None`: for ever. Overrides the server's setting.
    pub fn set_request_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Request, limit);
    }

    /// How long the connection may last in all, from its beginning; `None`: for ever, the default. At this limit it
    /// ends whatever is under way, an answer included: what is queued is sent as far as the kernel takes it at once.
    pub fn set_total_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Total, limit);
    }

    /// Whether small pieces of output are sent at once (`TCP_NODELAY`). As the listener, which has it on by default
    /// ([`ServerBuilder::no_delay`](crate::ServerBuilder::no_delay)). Of no effect but for TCP.
    ///
    /// # Errors
    /// As setsockopt(2) fails.
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_no_delay(on))
    }

    /// Finds out about a peer that has vanished: after this time of silence, probes included, the connection is
    /// broken; also when what was sent is not acknowledged for so long. From 6 to 32767 s, and whole seconds count;
    /// `None`: no probes. As the listener, see
    /// [`ServerBuilder::keep_alive_time`](crate::ServerBuilder::keep_alive_time). Of no effect but for TCP.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for another time, with nothing changed; else as setsockopt(2) fails.
    pub fn set_keep_alive(&mut self, time: Option<Duration>) -> io::Result<()> {
        self.conn().map_or(Ok(()), |conn| conn.io.set_keep_alive(time))
    }

    fn set_limit(&mut self, limit: Limit, value: Option<Duration>) {
        let default = self.cx.state.core.settings.limits;
        if let Some(conn) = self.conn_mut() {
            conn.limits.get_or_insert_with(|| Box::new(default)).set(limit, value);
        }
        self.cx.state.mark(self.id);
    }

    /// Whether what has arrived is to be given to the protocol now.
    pub(crate) fn wants_input(&self) -> bool {
        self.conn().is_some_and(|conn| conn.is_open() && !conn.paused.by_protocol && !conn.is_switching())
    }

    /// Input that was read is thrown away: the connection is closed as if it were still in the kernel.
    pub(crate) fn leaves_unread(&mut self) {
        if let Some(conn) = self.conn_mut() {
            conn.left_unread = true;
        }
    }

    /// The server's limit on lines.
    pub(crate) fn max_line_length(&self) -> usize {
        self.cx.state.core.settings.line_limit
    }

    fn conn(&self) -> Option<&Conn> {
        self.cx.state.conns.get(self.id)
    }

    fn conn_mut(&mut self) -> Option<&mut Conn> {
        self.cx.state.conns.get_mut(self.id)
    }
}

impl<'a> Deref for Transport<'a> {
    type Target = Context<'a>;

    fn deref(&self) -> &Context<'a> {
        &self.cx
    }
}

impl<'a> DerefMut for Transport<'a> {
    fn deref_mut(&mut self) -> &mut Context<'a> {
        &mut self.cx
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("id", &self.id).finish_non_exhaustive()
    }
}
