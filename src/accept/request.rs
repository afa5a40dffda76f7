//! An admitted connection or datagram on its way to a handler.
//!
//! Permits, counters, hooks, refusals and the drain are the same for both. So a request holds either kind
//! together with its handler, and strategies need not know the kind.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lot::{Lot, Visit};
use crate::admit::Permit;
use crate::connection::{Connection, Datagram, StopNotice, Told};
use crate::error::HandlerResult;
use crate::finish;
use crate::greeting::{self, GreetingError};
use crate::handler;
use crate::handler::{DatagramRequestHandler, StreamRequestHandler};
use crate::hooks;
use crate::lifecycle::{Core, ServerHandle};
use crate::net::{Accepted, Addr, Arrival, Birth, DatagramSocket, Packet, PeerCredentials};
use crate::observe::{contain, InHandler, Outcome};
use crate::proxy::ProxyHeader;
use crate::sources::SourceRefusal;
use crate::sync::thread_local;
use crate::sys::shared::SharedRef;
use crate::tls::{Session, TlsInfo};

/// An admitted connection or datagram, with its permit and its handler. [`run`](Self::run) serves it on the
/// calling thread.
///
/// A request that is dropped without `run` is refused. Its client reads the server's message at the limit, if
/// there is one, and the end of the stream.
pub struct Request(Option<Parts>);

enum Parts {
    New {
        work: Work,
        permit: Permit,
        /// Where the connection is parked between two requests, if it is.
        lot: Option<Arc<Lot>>,
    },
    /// A connection that was parked.
    Again(Box<Visit>, Arc<Lot>),
}

/// What the parent of a forked child keeps of its request.
pub(crate) struct Kept {
    pub(crate) peer: Addr,
    pub(crate) birth: Birth,
    pub(crate) permit: Permit,
}

/// A connection or a datagram, with the handler that serves it.
pub(crate) enum Work {
    Connection(Accepted, Arc<dyn StreamRequestHandler>),
    Datagram(Box<Packet>, Arc<dyn DatagramRequestHandler>),
}

impl Arrival for Work {
    fn peer(&self) -> &Addr {
        self.arrival().peer()
    }

    fn local_addr(&self) -> Addr {
        self.arrival().local_addr()
    }

    fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.arrival().peer_credentials()
    }

    fn proxy_header(&self) -> Option<&Arc<ProxyHeader>> {
        self.arrival().proxy_header()
    }

    fn birth(&mut self) -> &mut Birth {
        match self {
            Self::Connection(accepted, _) => &mut accepted.birth,
            Self::Datagram(packet, _) => &mut packet.birth,
        }
    }

    fn say(&self, message: &[u8]) {
        self.arrival().say(message);
    }
}

impl Work {
    fn arrival(&self) -> &dyn Arrival {
        match self {
            Self::Connection(accepted, _) => accepted,
            Self::Datagram(packet, _) => &**packet,
        }
    }
}

impl Request {
    pub(crate) fn new(mut work: Work, permit: Permit) -> Self {
        *work.birth() = permit.core().note_accepted(work.peer(), || work.local_addr());
        Self(Some(Parts::New { work, permit, lot: None }))
    }

    pub(super) fn with_lot(mut self, of: &Arc<Lot>) -> Self {
        if let Some(Parts::New { lot, .. }) = &mut self.0 {
            *lot = Some(of.clone());
        }
        self
    }

    /// A connection that was parked, and has a request now.
    pub(super) fn again(visit: Box<Visit>, lot: &Arc<Lot>) -> Self {
        Self(Some(Parts::Again(visit, lot.clone())))
    }

    /// True for a connection that came before.
    pub(crate) fn is_again(&self) -> bool {
        matches!(self.0, Some(Parts::Again(..)))
    }

    /// As [`new`](Self::new), and counts a connection for its source. `None`: it was refused for that.
    pub(super) fn admit(work: Work, permit: Permit) -> Option<Self> {
        let mut request = Self::new(work, permit);
        let Some(Parts::New { work: Work::Connection(accepted, _), permit, .. }) = &mut request.0 else {
            return Some(request);
        };
        let Err(why) = permit.admit_source(accepted) else { return Some(request) };
        if let Some(Parts::New { work, permit, .. }) = request.0.take() {
            finish::refuse_source(permit.core(), work, why);
        }
        None
    }

    /// Serves the request on this thread: `verify_request`, `setup`, `handle`, `finish`, close, count. An
    /// error of the handler is logged and counted, and a panic too: `run` always returns.
    pub fn run(mut self) {
        let (work, mut permit, lot) = match self.0.take() {
            Some(Parts::New { work, permit, lot }) => (work, permit, lot),
            Some(Parts::Again(visit, lot)) => return visit.run(&lot),
            None => return,
        };

        // On the thread that accepts, no other thread could wake this connection at a stop. So it polls the
        // stop itself, at the price of a `ppoll` for each wait. On any other thread the registry wakes it,
        // which is free.
        let notice = if Accepting::is_here() { StopNotice::ByPolling } else { StopNotice::ByRegistry };

        // Behind a proxy, the client's address comes first: the hook and the handler see it.
        let Some(mut work) = meet(work, &mut permit, notice == StopNotice::ByPolling) else { return };
        let core = permit.core();
        core.tell_opened(&mut work);

        // The hook is asked before there is a `Connection`: it may outlive its time limit, and must not hold
        // the socket.
        if let Err(why) = hooks::verify(core, &work, notice == StopNotice::ByPolling) {
            return finish::refuse_unverified(core, work, &why);
        }

        // Last: neither the hook nor a refusal is worth a handshake.
        if let Err(why) = secure(core, &mut work, notice == StopNotice::ByPolling) {
            return finish::refuse_ungreeted(core, work, &why);
        }
        let server = ServerHandle { core: core.clone() };
        match work {
            Work::Connection(accepted, handler) => {
                let mut connection = Connection::new(accepted, server, notice);
                if let Some(lot) = lot {
                    return Visit::begin(connection, &*handler, permit, &lot);
                }
                let outcome = handled(core, || handler::run(&mut &*handler, &mut connection));
                return finish::finish_connection(&core.clone(), connection, outcome, permit);
            }
            Work::Datagram(packet, handler) => {
                let mut datagram = Datagram::new(*packet, server);
                let outcome = handled(core, || handler.handle(&mut datagram));
                finish::finish(core, datagram, outcome);
            }
        }
        // Last: the permit counts the connection until its socket is closed.
        drop(permit);
    }

    /// Returns the address of the client that has connected, or has sent the datagram.
    pub fn peer_addr(&self) -> &Addr {
        match &self.0 {
            Some(Parts::New { work, .. }) => work.peer(),
            Some(Parts::Again(visit, _)) => visit.connection().wire().peer(),
            None => &Addr::Unnamed,
        }
    }

    /// Returns what TLS has agreed upon, if observers are told of it.
    pub(crate) fn tls(&self) -> Option<TlsInfo> {
        let Parts::New { work: Work::Connection(accepted, _), permit, .. } = self.0.as_ref()? else { return None };
        accepted.tls.as_ref().filter(|_| permit.core().monitor.measures()).map(Session::info)
    }

    /// Returns the socket of a connection, for options and for looks at it. `None` for a datagram, which has no socket of
    /// its own. What is read from it, its handler misses.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self.0.as_ref()? {
            Parts::New { work: Work::Connection(accepted, _), .. } => Some(accepted.socket.as_fd()),
            Parts::New { work: Work::Datagram(..), .. } => None,
            Parts::Again(visit, _) => Some(visit.connection().wire().as_fd()),
        }
    }

    /// Returns what a proxy has told.
    pub(crate) fn proxy_header(&self) -> Option<&ProxyHeader> {
        match self.0.as_ref()? {
            Parts::New { work, .. } => work.proxy_header().map(|header| &**header),
            Parts::Again(visit, _) => visit.connection().proxy_header(),
        }
    }

    /// True if a proxy has sent a header.
    pub(crate) fn has_come_by_proxy(&self) -> bool {
        self.proxy_header().is_some()
    }

    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        self.0.as_ref().map(|parts| match parts {
            Parts::New { permit, .. } => permit.core(),
            Parts::Again(visit, _) => visit.core(),
        })
    }

    /// Returns the server's socket if this is a datagram: the reply is sent from it.
    pub(crate) fn shared_socket(&self) -> Option<Arc<DatagramSocket>> {
        match self.0.as_ref()? {
            Parts::New { work: Work::Datagram(packet, _), .. } => packet.socket.upgrade(),
            _ => None,
        }
    }

    /// Waits in a forked child for the header of a proxy, within the limit for that.
    pub(crate) fn greet_in_child(&mut self, deadline: &AtomicU64) -> Result<(), GreetingError> {
        let Some(Parts::New { work, permit, .. }) = &mut self.0 else { return Ok(()) };
        let core = permit.core();
        if core.settings.proxy_protocol.is_none() {
            return Ok(());
        }
        let limit = core.settings.handshake_timeout;
        before_the_request(core, deadline, limit, || greet(core, work, false))
    }

    /// Asks `verify_request` in a forked child. The hook has its own time limit.
    pub(crate) fn verify_in_child(&mut self, deadline: &AtomicU64) -> io::Result<()> {
        let Some(Parts::New { work, permit, .. }) = &self.0 else { return Ok(()) };
        let core = permit.core();
        if core.hooks.verify_request.is_none() {
            return Ok(());
        }
        before_the_request(core, deadline, core.settings.verify_timeout, || hooks::verify(core, work, true))
    }

    /// Shakes hands in a forked child, within the limit for that.
    pub(crate) fn secure_in_child(&mut self, deadline: &AtomicU64) -> Result<(), GreetingError> {
        let Some(Parts::New { work, permit, .. }) = &mut self.0 else { return Ok(()) };
        let core = permit.core();
        if core.settings.tls.is_none() {
            return Ok(());
        }
        before_the_request(core, deadline, core.settings.handshake_timeout, || secure(core, work, false))
    }

    /// Serves the request in a forked child. `judge` makes the verdict for the parent out of the outcome.
    pub(crate) fn run_in_child<T>(
        mut self,
        told: SharedRef<Told>,
        judge: impl FnOnce(&Outcome, bool, Option<TlsInfo>) -> T,
    ) -> Option<T> {
        let Some(Parts::New { work, permit, .. }) = self.0.take() else { return None };
        // Nothing is left to drop: the code of that would be a page more to map.
        std::mem::forget(self);
        // The permit is the parent's: the parent gives it back when this child ends.
        let permit = std::mem::ManuallyDrop::new(permit);
        let core = permit.core();
        let server = ServerHandle { core: core.clone() };
        Some(match work {
            Work::Connection(accepted, handler) => {
                let mut connection = Connection::new(accepted, server, StopNotice::ByPolling);
                connection.wire().share_deadlines(told);
                let outcome = handled(core, || handler::run(&mut &*handler, &mut connection));
                connection.wire().share_no_deadline();
                // The child exits next: a count that goes down would only copy a page.
                std::mem::forget(handler);
                finish::finish_in_child(core, connection, outcome, judge)
            }
            Work::Datagram(packet, handler) => {
                let mut datagram = Datagram::new(*packet, server);
                let outcome = handled(core, || handler.handle(&mut datagram));
                finish::finish_in_child(core, datagram, outcome, judge)
            }
        })
    }

    /// Closes this copy of the socket in the parent of a forked child, and keeps the permit.
    pub(crate) fn keep_permit(mut self) -> Option<Kept> {
        let Some(Parts::New { mut work, permit, .. }) = self.0.take() else { return None };
        let (peer, birth) = (work.peer().clone(), std::mem::take(work.birth()));
        drop(work);
        Some(Kept { peer, birth, permit })
    }

    fn refuse(&mut self, why: &io::Error) {
        match self.0.take() {
            Some(Parts::New { work, permit, .. }) => finish::refuse_admitted(permit.core(), work, why),
            // It has been served before: it ends, as by an error of its handler.
            Some(Parts::Again(visit, _)) => visit.give_up(why),
            None => {}
        }
    }
}

/// Waits for the header of a proxy, if the server expects one. `accepting` is true on the thread that accepts.
fn greet(core: &Core, work: &mut Work, accepting: bool) -> Result<(), GreetingError> {
    match (work, &core.settings.proxy_protocol) {
        (Work::Connection(accepted, _), Some(proxies)) => greeting::meet_proxy(core, accepted, proxies, accepting),
        _ => Ok(()),
    }
}

/// Waits for the header of a proxy, and counts the connection for the client that it names. `None`: it was refused.
fn meet(mut work: Work, permit: &mut Permit, accepting: bool) -> Option<Work> {
    if let Err(why) = greet(permit.core(), &mut work, accepting) {
        finish::refuse_ungreeted(permit.core(), work, &why);
        return None;
    }
    if let Err(why) = admit_client(permit, &work) {
        finish::refuse_source(permit.core(), work, why);
        return None;
    }
    Some(work)
}

/// Counts the connection for the client that its proxy has named. Any other one was counted when it was accepted.
fn admit_client(permit: &mut Permit, work: &Work) -> Result<(), SourceRefusal> {
    match work {
        Work::Connection(accepted, _) if accepted.proxy.is_some() => permit.admit_source(accepted),
        _ => Ok(()),
    }
}

/// Does what comes before a request, in a forked child, within a limit of its own. The parent ends a child at
/// the deadline written here. So it covers this act first, then the request.
fn before_the_request<R>(core: &Core, deadline: &AtomicU64, limit: Duration, act: impl FnOnce() -> R) -> R {
    let Some(of_request) = core.settings.limits.request else { return act() };
    deadline.store(core.control.millis(Instant::now() + limit), SeqCst);
    let done = act();
    deadline.store(core.control.millis(Instant::now() + of_request), SeqCst);
    done
}

/// Shakes hands, if the server is one of TLS.
fn secure(core: &Core, work: &mut Work, accepting: bool) -> Result<(), GreetingError> {
    match work {
        Work::Connection(accepted, _) => greeting::begin_tls(core, accepted, accepting),
        Work::Datagram(..) => Ok(()),
    }
}

/// Runs a handler, and marks the thread as inside a handler of this server meanwhile.
fn handled(core: &Core, run: impl FnOnce() -> HandlerResult) -> Outcome {
    let _inside = InHandler::of(core.monitor.server);
    contain(run)
}

impl Drop for Request {
    fn drop(&mut self) {
        // An error takes memory, and most requests have been served.
        if self.0.is_some() {
            self.refuse(&io::Error::other("the strategy dropped it"));
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("peer", self.peer_addr()).finish_non_exhaustive()
    }
}

/// A request that a strategy could not take, handed back with the cause.
#[derive(Debug)]
pub struct Rejected {
    /// The connection, or datagram.
    pub request: Request,
    /// Why it was not taken.
    pub why: io::Error,
}

impl Rejected {
    /// A request, and why it was not taken.
    pub fn new(request: Request, why: io::Error) -> Self {
        Self { request, why }
    }

    /// True if the system lacks threads, processes, memory or descriptors. Accepting then rests before it
    /// tries again.
    pub(crate) fn is_for_want_of_resources(&self) -> bool {
        use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM};
        matches!(self.why.raw_os_error(), Some(EAGAIN | EMFILE | ENFILE | ENOBUFS | ENOMEM))
    }

    pub(crate) fn refuse(mut self) {
        self.request.refuse(&self.why);
    }
}

impl Service {
    /// True if the handler is called for each request.
    pub(super) fn is_per_request(&self) -> bool {
        matches!(self, Self::Connections(handler) if handler.is_per_request())
    }
}

/// The handler of a server. Its kind decides whether requests are connections or datagrams.
#[derive(Clone)]
pub(crate) enum Service {
    Connections(Arc<dyn StreamRequestHandler>),
    Datagrams(Arc<dyn DatagramRequestHandler>),
}

impl<H: StreamRequestHandler> From<Arc<H>> for Service {
    fn from(handler: Arc<H>) -> Self {
        Self::Connections(handler)
    }
}

thread_local! {
    static ACCEPTING: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as the one in `serve_forever`, while the value lives. A request that runs here must
/// watch for the stop itself: the thread that would wake it is this one. `Sequential` needs this, and any
/// strategy that runs requests inside [`Acceptor::run`](super::Acceptor::run).
pub(crate) struct Accepting(bool);

impl Accepting {
    pub(crate) fn here() -> Self {
        Self(ACCEPTING.with(|here| here.replace(true)))
    }

    pub(crate) fn is_here() -> bool {
        ACCEPTING.with(Cell::get)
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        ACCEPTING.with(|here| here.set(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thread pools move requests through queues.
    #[test]
    fn a_request_stays_small() {
        let size = std::mem::size_of::<Request>();
        assert!(size <= 112, "{size} bytes"); // with a session of TLS
    }
}
