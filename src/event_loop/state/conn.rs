//! One connection of a loop: what is known of it between two callbacks.

use std::io;
use std::time::{Duration, Instant};

use crate::admit::Permit;
use crate::config::{Limit, LimitExceeded, Limits};
use crate::event_loop::clients::connect::Connector;
use crate::event_loop::io::outbox::Outbox;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::cold::ColdState;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::protocol::Protocol;
use crate::lifecycle::Core;
use crate::net::Addr;
use crate::observe::Outcome;
use crate::sys::Readiness;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// In conversation.
    #[default]
    Open,
    /// To be closed when its output is sent; nothing is read.
    Flushing,
    /// Sent, but not acknowledged: a close now might lose it. Looked at again after the pause.
    Acknowledging { pause: Duration, until: Instant },
    /// Half-closed: the peer's input is read into the void until it ends.
    Lingering { idle: Instant, until: Instant },
    /// To be taken out.
    Over,
}

/// Why a connection is not read from: each reason is taken back by who gave it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paused {
    /// The protocol's wish.
    pub(crate) by_protocol: bool,
    /// Too much is queued for the peer.
    pub(crate) by_output: bool,
    /// The queue of a connection that it is linked to is long.
    pub(crate) by_link: bool,
    /// A rate limit has it wait.
    pub(crate) by_rate: bool,
    /// A protocol that has taken over is still to be given what the one before it has left.
    pub(crate) by_switch: bool,
    /// The peer's stream has ended.
    pub(crate) at_eof: bool,
    /// True if the protocol's pause is over, and `reading_resumed` is due.
    pub(crate) resumed: bool,
}

impl Paused {
    pub(crate) fn any(self) -> bool {
        self.holds_input() || self.by_output || self.at_eof
    }

    /// Whether input may wait that will be read later.
    pub(crate) fn holds_input(self) -> bool {
        self.by_protocol || self.by_link || self.by_rate || self.by_switch
    }
}

/// How far the writing half of an open connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum WriteHalf {
    #[default]
    Open,
    /// To be shut when the output is sent; no more of it is taken.
    Closing,
    /// The peer has been told that no more comes.
    Shut,
}

/// Who says when a request begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RequestMarks {
    /// Nobody: it begins with input, and ends with the answer's last byte.
    #[default]
    None,
    /// The protocol.
    Explicit,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A listener: it is served, and counted. Its port, which may be closed by now, and the number of the listener there;
    /// `None` where the listener is not the loop's.
    Accepted(Option<(Place, u32)>),
    /// This side has made it.
    Made(Connector),
    /// The program: a descriptor that is no socket.
    Adopted,
}

impl Origin {
    pub(crate) fn connector(self) -> Option<Connector> {
        match self {
            Self::Accepted(_) | Self::Adopted => None,
            Self::Made(connector) => Some(connector),
        }
    }

    pub(crate) fn port(self) -> Option<(Place, u32)> {
        match self {
            Self::Accepted(port) => port,
            Self::Made(_) | Self::Adopted => None,
        }
    }

    /// Only what was accepted is counted.
    pub(crate) fn report_end(self, core: &Core, peer: &Addr, lost: bool, outcome: &Outcome) {
        match self {
            Self::Accepted(_) => core.monitor.report_end(peer, lost, outcome, core.stop_phase()),
            Self::Made(_) | Self::Adopted => core.monitor.report_uncounted_end(peer, lost, outcome),
        }
    }
}

/// One connection of a loop.
pub(crate) struct Conn {
    pub(crate) entry: Entry,
    pub(crate) io: Io,
    pub(crate) peer: Addr,
    /// Taken out while a callback runs.
    pub(crate) protocol: Option<Box<dyn Protocol>>,
    pub(crate) out: Outbox,
    pub(crate) paused: Paused,
    pub(crate) watch: Watch,
    pub(crate) flow: Flow,
    pub(crate) request: Request,
    pub(crate) limits: ConnLimits,
    pub(crate) end: End,
    pub(crate) timers: Vec<TimerId>,
    pub(crate) groups: Vec<Group>,
    pub(crate) cold: Option<Box<ColdState>>,
    /// True if it is in the list of those to be settled at the end of the turn.
    pub(crate) dirty: bool,
    /// True if `shutting_down` was called.
    pub(crate) told_to_shut_down: bool,
}

/// How it came into the loop.
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    /// Given back when the protocol is dropped.
    pub(crate) permit: Option<Permit>,
}

/// What epoll watches for, and what it has told.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// `None` while epoll does not know the socket.
    pub(crate) interest: Option<Readiness>,
    /// True if input may be there which epoll has told of already, and does not tell again.
    pub(crate) unread: bool,
    /// True if a read that brings less than it might is not the last: epoll has told of something behind.
    pub(crate) more: bool,
    /// True if it is in the list of those to be read in the next turn, without being told.
    pub(crate) listed: bool,
    /// True if the peer has left, with input still to be read.
    pub(crate) hung_up: bool,
    /// True if input was thrown away at the close, so that more of it may be on its way.
    pub(crate) left_unread: bool,
}

/// How its output flows.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) write_half: WriteHalf,
    /// True if the kernel takes no more output for now.
    pub(crate) blocked: bool,
    /// True if output has gone past the queue, since that was flushed last.
    pub(crate) sent: bool,
    /// True if `pause_writing` was the last that the protocol heard.
    pub(crate) told_to_pause: bool,
}

/// The request that it is at.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) marks: RequestMarks,
    /// True if the request is over once what is queued is sent: an answer belongs to its request.
    pub(crate) ends_when_sent: bool,
    /// True if anything has been read at all.
    pub(crate) heard: bool,
}

/// Its time limits, and since when they count.
#[derive(Debug)]
pub(crate) struct ConnLimits {
    /// Overrides the server's limits.
    pub(crate) own: Option<Box<Limits>>,
    /// The timer for the next limit, and when it fires: never later than the limit.
    pub(crate) timer: Option<(TimerId, Instant)>,
    /// When the connection began.
    pub(crate) began: Instant,
    /// When the connection began, or was last read from or flushed.
    pub(crate) since: Instant,
    /// When the request began; `None` between two requests.
    pub(crate) request_since: Option<Instant>,
    /// When the kernel last took output, or was first offered what it does not take.
    pub(crate) blocked_since: Instant,
}

/// How far it is on its way to its end.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) phase: Phase,
    pub(crate) reason: Option<LostReason>,
}

impl Conn {
    pub(crate) fn new(io: Io, peer: Addr, origin: Origin, permit: Option<Permit>, now: Instant) -> Self {
        Self {
            entry: Entry { origin, permit },
            io,
            peer,
            protocol: None,
            out: Outbox::default(),
            paused: Paused::default(),
            watch: Watch::default(),
            flow: Flow::default(),
            request: Request::default(),
            limits: ConnLimits {
                own: None,
                timer: None,
                began: now,
                since: now,
                request_since: None,
                blocked_since: now,
            },
            end: End::default(),
            timers: Vec::new(),
            groups: Vec::new(),
            cold: None,
            dirty: false,
            told_to_shut_down: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.end.phase == Phase::Open
    }

    /// Whether more may be queued.
    pub(crate) fn takes_output(&self) -> bool {
        self.is_open() && self.flow.write_half == WriteHalf::Open
    }

    /// Whether a stop may close it: nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        let in_request = self.request.marks == RequestMarks::Explicit && self.limits.request_since.is_some();
        // Whoever keeps the connection open after the end of the input has an answer to give.
        self.is_open() && self.out.is_empty() && !self.paused.holds_input() && !self.paused.at_eof && !in_request
    }

    /// Reads once, without a wait. What brings less than it might is all, unless there is something behind.
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.io.recv(buf);
        self.watch.unread = match &read {
            Ok(n) => *n == buf.len() || (*n > 0 && self.watch.more),
            Err(e) => e.kind() == io::ErrorKind::Interrupted,
        };
        read
    }

    /// Where nothing is left to send, the answer to a request is complete.
    pub(crate) fn end_request_when_sent(&mut self) {
        if self.out.is_empty() && (self.request.marks == RequestMarks::None || self.request.ends_when_sent) {
            self.limits.request_since = None;
            self.request.ends_when_sent = false;
        }
    }

    /// What epoll shall watch for.
    pub(crate) fn wanted(&self) -> Readiness {
        let read = match self.end.phase {
            Phase::Open => !self.paused.any(),
            Phase::Lingering { .. } => true,
            Phase::Flushing | Phase::Acknowledging { .. } | Phase::Over => false,
        };
        Readiness { read, write: self.flow.blocked, edge: self.io.is_told_once(), ..Readiness::default() }
    }

    /// When the next limit is over, and which it is.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, LimitExceeded)> {
        let at = |since: Instant, limit, after: Option<Duration>| {
            let after = after?;
            Some((since.checked_add(after)?, LimitExceeded { limit, after }))
        };
        let write = at(self.limits.blocked_since, Limit::Write, limits.write).filter(|_| self.flow.blocked);
        let request = self.limits.request_since.and_then(|since| at(since, Limit::Request, limits.request));
        let total = at(self.limits.began, Limit::Total, limits.total);
        if self.end.phase != Phase::Open {
            return [write, request, total].into_iter().flatten().min_by_key(|(at, _)| *at);
        }
        let waits = self.out.is_empty() && !self.paused.holds_input() && !self.paused.at_eof;
        let between = self.request.marks == RequestMarks::None || self.limits.request_since.is_none();
        let idle = at(self.limits.since, Limit::Idle, limits.idle).filter(|_| waits && between);
        let read =
            at(self.limits.since, Limit::Read, limits.read).filter(|_| waits && self.limits.request_since.is_some());
        [write, idle, read, request, total].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// An idle connection costs little more than this.
    #[test]
    fn a_connection_of_a_loop_stays_small() {
        assert!(size_of::<Conn>() <= 440, "{} bytes", size_of::<Conn>());
    }

    #[test]
    fn its_parts_stay_small() {
        assert!(size_of::<Io>() <= 16, "{} bytes", size_of::<Io>());
        assert!(size_of::<Outbox>() <= 64, "{} bytes", size_of::<Outbox>());
        assert!(size_of::<ColdState>() <= 232, "{} bytes", size_of::<ColdState>());
    }
}
