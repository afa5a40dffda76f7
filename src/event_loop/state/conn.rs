//! One connection of a loop: the data that is kept between two callbacks.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admit::Permit;
use crate::config::{Limit, LimitExceeded, Limits};
use crate::connection::{Ending, Happened};
use crate::event_loop::clients::connect::Connector;
use crate::event_loop::io::outbox::Outbox;
use crate::event_loop::io::secured::Secured;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::group::Group;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::cold::ColdState;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::protocol::Protocol;
use crate::lifecycle::Core;
use crate::net::{Addr, Birth, Moved};
use crate::observe::{Account, Outcome};
use crate::proxy::ProxyHeader;
use crate::sys::Readiness;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// In conversation.
    #[default]
    Open,
    /// The connection closes when its output is sent. Nothing is read.
    Flushing,
    /// The output is sent, and not acknowledged: a close now might lose it. The loop looks again after the pause.
    Acknowledging { pause: Duration, until: Instant },
    /// The connection is half-closed. The peer's input is read and thrown away until it ends.
    Lingering { idle: Instant, until: Instant },
    /// The connection is taken out next.
    Over,
}

/// Why a connection is not read. The reasons are independent: each is withdrawn by the code that set it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paused {
    /// True if the protocol has asked for it.
    pub(crate) by_protocol: bool,
    /// True if too much is queued for the peer.
    pub(crate) by_output: bool,
    /// True if the queue of a connection that it is linked to is long.
    pub(crate) by_link: bool,
    /// True if it waits in line at a rate limit.
    pub(crate) by_rate: bool,
    /// True if a protocol that has taken over has still to get its predecessor's leftover.
    pub(crate) by_switch: bool,
    /// True if the peer's stream has ended.
    pub(crate) at_eof: bool,
    /// True if the protocol's pause is over, and `reading_resumed` is due.
    pub(crate) resumed: bool,
}

impl Paused {
    pub(crate) fn any(self) -> bool {
        self.holds_input() || self.by_output || self.at_eof
    }

    /// True if input may wait that will be read later.
    pub(crate) fn holds_input(self) -> bool {
        self.by_protocol || self.by_link || self.by_rate || self.by_switch
    }
}

/// The writing half of an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum WriteHalf {
    #[default]
    Open,
    /// It is shut when the output is sent. No more output is taken.
    Closing,
    /// It is shut: the peer reads end of stream.
    Shut,
}

/// What marks the beginning and the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum RequestMarks {
    /// Nothing: a request begins with input, and ends with the last byte of the answer.
    #[default]
    None,
    /// The protocol's calls.
    Explicit,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A listener accepted it: it is served and counted. The port, which may be closed now, and the number of the
    /// listener there; `None` if the listener is not the loop's.
    Accepted(Option<(Place, u32)>),
    /// A client of this loop made it.
    Made(Connector),
    /// The program gave it: a descriptor that is no socket.
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

    /// Reports the end of the connection. Only accepted connections are counted, and have an account.
    pub(crate) fn report_end(self, core: &Core, peer: &Addr, lost: bool, outcome: &Outcome, account: Option<Account>) {
        match self {
            Self::Accepted(_) => {
                core.monitor.report_end(peer, lost, outcome, core.stop_phase());
                account.into_iter().for_each(|account| core.monitor.tell_end(account, peer, lost, outcome));
            }
            Self::Made(_) | Self::Adopted => core.monitor.report_uncounted_end(peer, lost, outcome),
        }
    }
}

/// One connection of a loop.
pub(crate) struct Conn {
    /// Dropped first: a connection that was adopted leaves its server's registry before the socket is closed.
    pub(crate) cold: Option<Box<ColdState>>,
    pub(crate) entry: Entry,
    pub(crate) io: Io,
    pub(crate) peer: Addr,
    /// `None` while a callback of it runs.
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
    /// True if it is listed in `queues.dirty`, to be settled.
    pub(crate) dirty: bool,
    /// True if `shutting_down` was called.
    pub(crate) told_to_shut_down: bool,
}

/// How the connection came into the loop.
pub(crate) struct Entry {
    pub(crate) origin: Origin,
    /// Given back when the protocol is dropped.
    pub(crate) permit: Option<Permit>,
    /// What a proxy has told of it.
    pub(crate) proxy: Option<Arc<ProxyHeader>>,
    pub(crate) birth: Birth,
    pub(crate) moved: Moved,
}

/// What epoll watches for, and what it has reported.
///
/// TCP sockets are watched edge-triggered. Level-triggered, epoll looks at every reported socket once more in the next
/// wait, which costs a twentieth with 512 clients. In return the loop must remember what a read may have left.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// `None` while epoll does not know the socket.
    pub(crate) interest: Option<Readiness>,
    /// True if input may be there that epoll does not report again.
    pub(crate) unread: bool,
    /// True if a short read is not the last, because epoll has reported an end or urgent data behind it.
    pub(crate) more: bool,
    /// True if it is listed in `queues.unread`, to be read in the next turn.
    pub(crate) listed: bool,
    /// True if the peer has left, with input still to be read.
    pub(crate) hung_up: bool,
    /// True if input was thrown away at the close, so that more of it may be on its way.
    pub(crate) left_unread: bool,
    /// True if reading has failed.
    pub(crate) failed: bool,
}

/// The flow of the connection's output.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) write_half: WriteHalf,
    /// True if the kernel takes no more output for now.
    pub(crate) blocked: bool,
    /// True if output has gone past the queue since the last flush.
    pub(crate) sent: bool,
    /// True if `pause_writing` was called, and not yet `resume_writing`.
    pub(crate) told_to_pause: bool,
    /// True if sending has failed.
    pub(crate) broken: bool,
    /// True if the close is to be a reset.
    pub(crate) resets: bool,
}

/// The request in progress.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) marks: RequestMarks,
    /// True if the request ends once the queue is sent: an answer belongs to its request.
    pub(crate) ends_when_sent: bool,
    /// True if anything has been read at all.
    pub(crate) heard: bool,
}

/// The connection's time limits, and since when they count.
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

/// The end of the connection: its phase, and the reason.
#[derive(Debug, Default)]
pub(crate) struct End {
    pub(crate) phase: Phase,
    pub(crate) reason: Option<LostReason>,
}

impl Conn {
    pub(crate) fn new(io: Io, peer: Addr, origin: Origin, permit: Option<Permit>, now: Instant) -> Self {
        Self {
            entry: Entry { origin, permit, proxy: None, birth: Birth::default(), moved: Moved::default() },
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

    /// True if more output may be queued.
    pub(crate) fn takes_output(&self) -> bool {
        self.is_open() && self.flow.write_half == WriteHalf::Open
    }

    /// True if a stop may close the connection, because nothing is under way. A pause of reading counts as work: a
    /// protocol pauses while a thread works for it.
    pub(crate) fn is_idle(&self) -> bool {
        let in_request = self.request.marks == RequestMarks::Explicit && self.limits.request_since.is_some();
        // A protocol that keeps the connection open after the end of the input has an answer to give.
        self.is_open() && self.out.is_empty() && !self.paused.holds_input() && !self.paused.at_eof && !in_request
    }

    /// Reads once, without a wait, and notes if more may be there.
    pub(crate) fn recv(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.io.is_handshaking() {
            return self.shake_hands().and(Err(io::ErrorKind::WouldBlock.into()));
        }
        let read = self.io.recv(buf);
        self.entry.moved.read += *read.as_ref().unwrap_or(&0) as u64;
        // A short read has brought everything, unless epoll has reported something behind it.
        self.watch.unread = match &read {
            Ok(n) => *n == buf.len() || (*n > 0 && self.watch.more) || self.io.holds_input(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.io.holds_input(),
            Err(e) => e.kind() == io::ErrorKind::Interrupted,
        };
        match read {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && self.is_between_requests() => Ok(0),
            read => read,
        }
    }

    /// Goes on with the handshake of TLS. After it, what came behind its last bytes is read.
    fn shake_hands(&mut self) -> io::Result<()> {
        let shaken = self.io.secured().map_or(Ok(()), Secured::handshake);
        self.watch.unread = shaken.is_ok() && (self.watch.more || self.io.holds_input());
        shaken
    }

    /// True if no request is under way. Many clients end TLS without close_notify then, and nothing can be missing.
    fn is_between_requests(&self) -> bool {
        self.io.secured().is_some() && self.limits.request_since.is_none() && self.out.is_empty()
    }

    /// Counts bytes that the kernel has taken.
    pub(crate) fn note_written(&mut self, n: usize) {
        self.entry.moved.written += n as u64;
    }

    /// Takes what observers are told at the end, before the socket is closed.
    pub(crate) fn take_account(&mut self) -> Account {
        Account {
            birth: std::mem::take(&mut self.entry.birth),
            moved: self.entry.moved,
            was_handled: true,
            proxy: self.entry.proxy.take(),
            tls: self.io.secured().filter(|tls| !tls.session().is_handshaking()).map(|tls| tls.session().info()),
        }
    }

    /// Makes the close that follows a reset.
    pub(crate) fn reset_at_close(&mut self) {
        self.flow.resets = true;
        self.io.reset_at_close();
    }

    /// Returns what the owner of a solo connection must know to close it.
    pub(crate) fn happened(&self) -> Happened {
        let keeps_input = self.cold.as_ref().is_some_and(|cold| !cold.leftover.is_empty());
        let ending = match (self.flow.resets, self.watch.left_unread || keeps_input) {
            (true, _) => Ending::Reset,
            (false, true) => Ending::LeavesUnread,
            (false, false) => Ending::Usual,
        };
        Happened {
            heard: self.request.heard,
            ended: self.paused.at_eof,
            broken: self.flow.broken,
            failed: self.watch.failed,
            stopped: matches!(self.end.reason, None | Some(LostReason::Shutdown)),
            ending,
            moved: self.entry.moved,
        }
    }

    /// Ends the request if nothing is left to send: its answer is complete.
    pub(crate) fn end_request_when_sent(&mut self) {
        if self.out.is_empty() && (self.request.marks == RequestMarks::None || self.request.ends_when_sent) {
            self.limits.request_since = None;
            self.request.ends_when_sent = false;
        }
    }

    /// Returns what epoll is to watch for. While nothing is wanted, it still reports a hang-up.
    pub(crate) fn wanted(&self) -> Readiness {
        let read = match self.end.phase {
            Phase::Open => !self.paused.any() || self.io.is_handshaking(),
            Phase::Lingering { .. } => true,
            Phase::Flushing | Phase::Acknowledging { .. } | Phase::Over => false,
        };
        Readiness { read, write: self.flow.blocked, edge: self.io.is_told_once(), ..Readiness::default() }
    }

    /// Returns when the next limit is over, and which limit it is.
    pub(crate) fn deadline(&self, limits: &Limits) -> Option<(Instant, LimitExceeded)> {
        let mut next = None::<(Instant, LimitExceeded)>;
        let mut consider = |since: Instant, limit, after: Option<Duration>| {
            let Some((after, at)) = after.and_then(|after| Some((after, since.checked_add(after)?))) else { return };
            if next.map_or(true, |(first, _)| at < first) {
                next = Some((at, LimitExceeded { limit, after }));
            }
        };
        if self.flow.blocked {
            consider(self.limits.blocked_since, Limit::Write, limits.write);
        }
        // The peer is waited for only while nothing is queued and reading is not held back. A connection that is ending
        // waits for no input.
        let is_open = self.end.phase == Phase::Open;
        if is_open && self.out.is_empty() && !self.paused.holds_input() && !self.paused.at_eof {
            if self.request.marks == RequestMarks::None || self.limits.request_since.is_none() {
                let (limit, after) = limits.of_idle_wait();
                consider(self.limits.since, limit, after);
            }
            if self.limits.request_since.is_some() {
                consider(self.limits.since, Limit::Read, limits.read);
            }
        }
        if let Some(since) = self.limits.request_since {
            consider(since, Limit::Request, limits.request);
        }
        consider(self.limits.began, Limit::Total, limits.total);
        if let Some((began, within)) = self.io.secured().filter(|_| is_open).and_then(Secured::handshake_limit) {
            consider(began, Limit::Handshake, Some(within));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::*;

    /// An idle connection costs little more than this.
    #[test]
    fn a_connection_of_a_loop_stays_small() {
        assert!(size_of::<Conn>() <= 472, "{} bytes", size_of::<Conn>());
    }

    #[test]
    fn its_parts_stay_small() {
        assert!(size_of::<Io>() <= 16, "{} bytes", size_of::<Io>());
        assert!(size_of::<Outbox>() <= 64, "{} bytes", size_of::<Outbox>());
        assert!(size_of::<ColdState>() <= 240, "{} bytes", size_of::<ColdState>());
    }
}
