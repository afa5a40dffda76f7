//! The stage between `accept` and the handler: what a connection begins with before its handler may see it.
//!
//! A greeting is made of steps: the header of a proxy, and the handshake of TLS. A [`Step`] goes on as far as it can
//! without a wait. So one step serves both worlds. On the thread of a request, [`run`] waits. An event loop waits for
//! the socket as for any other.
//!
//! The order is fixed: the proxy's header, `verify_request`, then TLS, which is the client's own.
//! A wait ends with `handshake_timeout`, and at once with a stop: a connection that has said nothing yet is
//! idle. This folder closes and counts nothing; `finish` does.

mod header;
mod tls;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lifecycle::Core;
use crate::net::{Accepted, Addr, Socket};
use crate::observe::GreetingFailure;
use crate::proxy::{ProxyHeader, ProxyProtocol, Trust};
use crate::sys;

pub(crate) use header::HeaderStep;
pub(crate) use tls::TlsStep;

/// Why a greeting has failed.
#[derive(Debug)]
pub(crate) struct GreetingError {
    pub(crate) reason: GreetingFailure,
    pub(crate) error: io::Error,
}

/// How far a step has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Done,
    /// It goes on when the socket can be read.
    WantsRead,
    /// It goes on when the socket can be written to.
    WantsWrite,
}

/// One part of a greeting.
pub(crate) trait Step {
    /// Goes on without a wait.
    fn advance(&mut self, socket: &Socket) -> Result<Progress, GreetingError>;
}

impl GreetingError {
    pub(crate) fn new(reason: GreetingFailure, error: impl Into<io::Error>) -> Self {
        Self { reason, error: error.into() }
    }

    /// Makes the error for a socket that cannot be read any more.
    pub(crate) fn of_socket(error: io::Error) -> Self {
        Self::new(GreetingFailure::Left, error)
    }

    pub(crate) fn timed_out(core: &Core) -> Self {
        let text = format!("handshake limit of {:?} exceeded", core.settings.handshake_timeout);
        Self::new(GreetingFailure::TimedOut, io::Error::new(io::ErrorKind::TimedOut, text))
    }

    pub(crate) fn stopped() -> Self {
        Self::new(GreetingFailure::Stopped, io::Error::other("the server stops before this has begun"))
    }
}

/// Decides about a connection of a server that expects proxies. `Some` is the step that reads the header;
/// `None`: the client has come directly.
pub(crate) fn expect_proxy(proxies: &ProxyProtocol, peer: &Addr) -> Result<Option<HeaderStep>, GreetingError> {
    match proxies.trust(peer.ip()) {
        Trust::Proxy => Ok(Some(HeaderStep::default())),
        Trust::Direct => Ok(None),
        Trust::Refused => {
            let text = "it is no proxy; name its network in proxy_protocol, or serve it by or_direct";
            let error = io::Error::new(io::ErrorKind::PermissionDenied, text);
            Err(GreetingError::new(GreetingFailure::Source, error))
        }
    }
}

/// Gives a connection the header that its proxy has sent, and the client's address.
pub(crate) fn apply_header(core: &Core, accepted: &mut Accepted, mut header: ProxyHeader, waited: Duration) {
    header.received(accepted.peer.socket_addr(), waited);
    if let Some(client) = header.client() {
        let proxy = std::mem::replace(&mut accepted.peer, Addr::Ip(client));
        core.monitor.note_client(&proxy, &accepted.peer);
    }
    accepted.proxy = Some(Arc::new(header));
}

/// Reads the header of a proxy on this thread, which waits for it. `accepting` is true on the thread that
/// accepts.
pub(crate) fn meet_proxy(
    core: &Core,
    accepted: &mut Accepted,
    proxies: &ProxyProtocol,
    accepting: bool,
) -> Result<(), GreetingError> {
    let Some(mut step) = expect_proxy(proxies, &accepted.peer)? else { return Ok(()) };
    let waited = run(core, &accepted.socket, &mut step, Duration::ZERO, accepting)?;
    step.take().into_iter().for_each(|header| apply_header(core, accepted, header, waited));
    Ok(())
}

/// Shakes hands on this thread, if the server is one of TLS.
pub(crate) fn begin_tls(core: &Core, accepted: &mut Accepted, accepting: bool) -> Result<(), GreetingError> {
    let Some(config) = &core.settings.tls else { return Ok(()) };
    let mut step = TlsStep::new(config)?;
    run(core, &accepted.socket, &mut step, accepted.waited(), accepting)?;
    accepted.tls = step.into_session();
    Ok(())
}

/// Runs a step on a thread that may wait, within the time that earlier steps have left. Returns how long it has
/// waited.
fn run(
    core: &Core,
    socket: &Socket,
    step: &mut impl Step,
    waited: Duration,
    accepting: bool,
) -> Result<Duration, GreetingError> {
    let mut began = None;
    loop {
        // First the look at the stop, then the look at the socket: what came before the stop is served.
        let is_stopped = core.control.stopping() && !core.spares_newcomers();
        let progress = step.advance(socket)?;
        if progress == Progress::Done {
            return Ok(began.map_or(Duration::ZERO, |began: Instant| began.elapsed()));
        }
        if is_stopped {
            return Err(GreetingError::stopped());
        }
        // Usually the header is there, and nobody asks for the time.
        let began = *began.get_or_insert_with(Instant::now);
        let until = began + core.settings.handshake_timeout.saturating_sub(waited);
        wait(core, socket, progress, until, accepting)?;
    }
}

/// Waits until the socket is ready for the step, or the server stops.
fn wait(
    core: &Core,
    socket: &Socket,
    progress: Progress,
    until: Instant,
    accepting: bool,
) -> Result<(), GreetingError> {
    let control = &core.control;
    // A process with a successor spares a client that has just connected, as long as its drain lasts.
    let (stop, by) = match core.drain_deadline() {
        Some(drain) if core.spares_newcomers() => (core.end_of_grace(), until.min(drain)),
        _ => (Some(control.stop_fd()), until),
    };
    let left = by.saturating_duration_since(Instant::now());
    if left == Duration::ZERO {
        return Err(if by < until { GreetingError::stopped() } else { GreetingError::timed_out(core) });
    }
    // The heart of a worker beats on the thread that accepts, and must not stop here.
    let worker = core.worker().filter(|_| accepting && !control.in_child());
    worker.into_iter().for_each(|worker| worker.beat());
    let left = left.min(worker.and_then(|worker| worker.beats_every()).unwrap_or(left));
    let socket = Some(socket.as_fd());
    let (read, write) = if progress == Progress::WantsWrite { (None, socket) } else { (socket, None) };
    let waited = sys::poll([read, stop], write, Some(left));
    waited.map(drop).map_err(|e| GreetingError::new(GreetingFailure::System, e))
}
