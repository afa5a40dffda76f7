//! [`Observer`]: it hears of each connection's beginning and end, whatever the end was.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::failure::brief;
use super::greeting::GreetingFailure;
use super::inside::InHandler;
use super::monitor::{ChildEnd, Monitor};
use super::outcome::{Cause, Outcome};
use crate::listen::Listener;
use crate::net::{Addr, Birth, BirthRecord, Moved};
use crate::panics::caught;
use crate::proxy::ProxyHeader;
use crate::sync::now;
use crate::tls::TlsInfo;

/// An observer hears of each connection twice: when it is open, and when it is closed. It writes an access log,
/// counts, or warns of what is slow. [`ServerBuilder::observer`](crate::ServerBuilder::observer) sets it. It changes
/// nothing: to refuse a connection, use [`verify_request`](crate::ServerBuilder::verify_request).
///
/// Every connection that [`Stats::accepted`](crate::Stats::accepted) counts has one `opened` and then one `closed`,
/// with the same `id` and `peer`. So has a connection that is refused, and one whose handler panics or dies. A
/// datagram counts as a connection.
///
/// # Where it is called
/// In the process that has accepted the connection, on the thread that serves it. With [`Forking`](crate::Forking)
/// that is the parent, and with an event loop the loop: there a slow observer holds the other connections up. With
/// [`PreForking`](crate::PreForking) it is the worker process. So each worker has an observer of its own, with its
/// own counts. If a worker crashes, its observer is not told of the ends of its connections;
/// [`Failure::Worker`](crate::Failure::Worker) has their number.
///
/// A panic in it is contained and logged. Without an observer the server does nothing for it: it does not even read the
/// clock. Several threads may call it at once.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use std::sync::Arc;
/// use socketserver::{handler, Closed, Observer, Sequential, ServerBuilder};
///
/// #[derive(Default)]
/// struct Sent(AtomicU64);
/// impl Observer for Sent {
///     fn closed(&self, closed: &Closed<'_>) {
///         self.0.fetch_add(closed.bytes_written, Relaxed);
///     }
/// }
///
/// let sent = Arc::new(Sent::default());
/// let mut server = ServerBuilder::new()
///     .observer(sent.clone())
///     .strategy(Sequential)
///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")))?;
/// let address = server.local_addr().socket_addr().unwrap();
/// let client = std::net::TcpStream::connect(address)?;
/// server.handle_request(None)?;
/// assert_eq!(std::io::read_to_string(client)?, "hello\n");
/// assert_eq!(sent.0.load(Relaxed), 6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "middleware")]
#[doc(alias = "access log")]
#[doc(alias = "access_log")]
#[doc(alias = "metrics")]
pub trait Observer: Send + Sync + 'static {
    /// A connection is open: it was accepted, and the client's address is known. Its handler has not begun, and TLS is
    /// still to come. It does nothing by default.
    fn opened(&self, opened: &Opened<'_>) {
        let _ = opened;
    }

    /// A connection is closed, counted and logged. It does nothing by default.
    fn closed(&self, closed: &Closed<'_>) {
        let _ = closed;
    }
}

/// For an observer that the program keeps a handle of.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn opened(&self, opened: &Opened<'_>) {
        (**self).opened(opened);
    }

    fn closed(&self, closed: &Closed<'_>) {
        (**self).closed(closed);
    }
}

/// Tells nobody. With it the server measures [`Stats::times`](crate::Stats::times), and
/// [`Connection::started`](crate::Connection::started).
impl Observer for () {}

/// The beginning of a connection, for [`Observer::opened`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Opened<'a> {
    /// The number of the connection: [`Connection::id`](crate::Connection::id). No other connection of the server has it.
    pub id: u64,
    /// The client's address; behind a proxy too.
    pub peer: &'a Addr,
    /// The address that the client has connected to, of this server.
    pub local: &'a Addr,
    /// When it was accepted.
    pub started: SystemTime,
    /// What a proxy has told. `None` as for [`Connection::proxy_header`](crate::Connection::proxy_header). With
    /// [`Forking`](crate::Forking) it has addresses and no TLVs.
    pub proxy: Option<&'a ProxyHeader>,
}

/// The end of a connection, for [`Observer::closed`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Closed<'a> {
    /// As in [`Opened`].
    pub id: u64,
    /// As in [`Opened`].
    pub peer: &'a Addr,
    /// As in [`Opened`].
    pub local: &'a Addr,
    /// As in [`Opened`].
    pub started: SystemTime,
    /// From the accept to the close, greeting and lingering close included. A change of the system's time does not
    /// change it.
    pub duration: Duration,
    /// What the handler's side has read from the peer, in bytes. Under TLS: the bytes that it protects.
    pub bytes_read: u64,
    /// What the kernel has taken for the peer, in bytes. Under TLS: the bytes that it protects. 0 for the datagrams of an
    /// event loop.
    pub bytes_written: u64,
    /// How it ended.
    pub outcome: ConnectionOutcome,
    /// Why it ended so, unless it was served: one line of about 100 characters at most. Control characters are escaped,
    /// as in the log.
    pub reason: Option<&'a str>,
    /// As in [`Opened`].
    pub proxy: Option<&'a ProxyHeader>,
    /// What TLS has agreed upon, if its handshake was done. With [`Forking`](crate::Forking) without the peer's
    /// certificates.
    #[cfg(feature = "__tls")]
    pub tls: Option<&'a TlsInfo>,
}

/// How a connection ended, as [`Stats`](crate::Stats) counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionOutcome {
    /// The handler returned `Ok`.
    Served,
    /// The handler returned an error.
    Failed,
    /// The handler panicked.
    Panicked,
    /// A time limit ended it.
    TimedOut,
    /// Its process exited by itself or was killed ([`Forking`](crate::Forking)).
    Crashed,
    /// The peer has sent what cannot be served ([`PeerFault`](crate::PeerFault)).
    PeerFault,
    /// The peer left before the handler was done.
    Disconnected,
    /// It was closed without a handler.
    Refused,
}

impl ConnectionOutcome {
    /// Returns it as one word, for logs and labels: `served`, `failed`, `panicked`, `timed_out`, `crashed`,
    /// `peer_fault`, `disconnected` or `refused`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Crashed => "crashed",
            Self::PeerFault => "peer_fault",
            Self::Disconnected => "disconnected",
            Self::Refused => "refused",
        }
    }
}

/// The word of [`as_str`](ConnectionOutcome::as_str).
impl fmt::Display for ConnectionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Cause> for ConnectionOutcome {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Handler => Self::Failed,
            Cause::Limit => Self::TimedOut,
            Cause::Peer => Self::Disconnected,
            Cause::PeerFault => Self::PeerFault,
        }
    }
}

impl From<GreetingFailure> for ConnectionOutcome {
    fn from(reason: GreetingFailure) -> Self {
        match reason {
            GreetingFailure::Left => Self::Disconnected,
            _ => Self::Refused,
        }
    }
}

/// What an observer is told at the end of a connection, besides how it ended. It is taken before the socket is closed.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) birth: Birth,
    pub(crate) moved: Moved,
    pub(crate) proxy: Option<Arc<ProxyHeader>>,
    /// True if a handler had it.
    pub(crate) was_handled: bool,
    /// Only a build with TLS tells it.
    #[cfg_attr(not(feature = "__tls"), allow(dead_code))]
    pub(crate) tls: Option<TlsInfo>,
}

/// The observers of one server.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    all: Vec<Arc<dyn Observer>>,
    /// The address of each connection's own end, if all have the same. That saves asking the kernel.
    local: Option<Addr>,
}

impl Observers {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.all.push(Arc::new(observer));
    }

    /// Takes over where the server listens.
    pub(crate) fn know(&mut self, listeners: &[Listener]) {
        let [only] = listeners else { return };
        let local = only.local_addr();
        self.local = Some(local.clone()).filter(|_| !local.ip().is_some_and(|ip| ip.is_unspecified()));
    }
}

impl Monitor {
    /// True if the time of connections is measured: somebody is to be told.
    pub(crate) fn measures(&self) -> bool {
        !self.observers.is_empty()
    }

    /// True if this process tells somebody. A forked child tells nobody: its parent does.
    pub(crate) fn observes(&self) -> bool {
        self.measures() && !self.is_in_child()
    }

    /// Makes the birth of a connection with this number.
    pub(crate) fn birth(&self, id: u64, local: impl FnOnce() -> Addr) -> Birth {
        let local = || self.observers.local.clone().unwrap_or_else(local);
        let record = || BirthRecord { since: SystemTime::now(), at: now(), local: local(), is_told: false };
        Birth { id, record: self.observes().then(|| Box::new(record())) }
    }

    /// Tells the observers, once, that a connection is open.
    pub(crate) fn tell_opened(&self, birth: &mut Birth, peer: &Addr, proxy: Option<&ProxyHeader>) {
        let Some(record) = birth.record.as_mut().filter(|record| !record.is_told && self.observes()) else { return };
        record.is_told = true;
        let opened = Opened { id: birth.id, peer, local: &record.local, started: record.since, proxy };
        self.tell(|observer| observer.opened(&opened));
    }

    /// Tells the observers that a connection is closed. `reason` is asked for only if they are told.
    pub(crate) fn tell_closed<R: fmt::Display>(
        &self,
        mut account: Account,
        peer: &Addr,
        outcome: ConnectionOutcome,
        reason: impl FnOnce() -> Option<R>,
    ) {
        self.tell_opened(&mut account.birth, peer, account.proxy.as_deref());
        let Some(record) = account.birth.record.filter(|_| self.observes()) else { return };
        // The text may be the user's, whose code may panic.
        let reason = caught(|| reason().map(|reason| brief(&reason)));
        let reason = reason.unwrap_or_else(|_| Some("(an error whose text panics)".to_owned()));
        let duration = now().saturating_duration_since(record.at);
        if account.was_handled && outcome != ConnectionOutcome::Refused {
            self.counters().times.count(duration);
        }
        let closed = Closed {
            id: account.birth.id,
            peer,
            local: &record.local,
            started: record.since,
            duration,
            bytes_read: account.moved.read,
            bytes_written: account.moved.written,
            outcome,
            reason: reason.as_deref(),
            proxy: account.proxy.as_deref(),
            #[cfg(feature = "__tls")]
            tls: account.tls.as_ref(),
        };
        self.tell(|observer| observer.closed(&closed));
    }

    /// Tells the observers how a handler has ended. `lost` is true if the peer had left before.
    pub(crate) fn tell_end(&self, account: Account, peer: &Addr, lost: bool, outcome: &Outcome) {
        if account.birth.record.is_none() {
            return;
        }
        match outcome {
            Outcome::Served => self.tell_closed(account, peer, ConnectionOutcome::Served, || None::<&str>),
            Outcome::NotServed(why) => self.tell_closed(account, peer, ConnectionOutcome::Refused, || Some(why)),
            Outcome::Panicked(text) => self.tell_closed(account, peer, ConnectionOutcome::Panicked, || Some(text)),
            Outcome::Failed(error) => {
                self.tell_closed(account, peer, Cause::of(&**error, lost).into(), || Some(error));
            }
        }
    }

    /// Tells the observers how a connection of another process has ended.
    pub(crate) fn tell_child_end(&self, account: Account, peer: &Addr, end: &ChildEnd) {
        use ConnectionOutcome as To;
        let (outcome, text) = match end {
            ChildEnd::Served => (To::Served, None),
            ChildEnd::Failed(text) => (To::Failed, Some(text)),
            ChildEnd::TimedOut(text) => (To::TimedOut, Some(text)),
            ChildEnd::Disconnected(text) => (To::Disconnected, Some(text)),
            ChildEnd::AtFault(text) => (To::PeerFault, Some(text)),
            ChildEnd::Panicked(text) => (To::Panicked, Some(text)),
            ChildEnd::Refused(_, text) => (To::Refused, Some(text)),
            ChildEnd::NotGreeted(reason, text) => ((*reason).into(), Some(text)),
            ChildEnd::NotAdmitted(why) => return self.tell_closed(account, peer, To::Refused, || Some(why)),
            ChildEnd::Exited(code) => {
                return self.tell_closed(account, peer, To::Crashed, || Some(format!("exited with {code}")))
            }
            ChildEnd::Killed { signal, limit: None } => {
                return self.tell_closed(account, peer, To::Crashed, || Some(format!("killed by {signal}")))
            }
            ChildEnd::Killed { signal, limit: Some(limit) } => {
                let why = || Some(format!("ended by {signal} at the {limit} limit"));
                return self.tell_closed(account, peer, To::TimedOut, why);
            }
        };
        self.tell_closed(account, peer, outcome, || text);
    }

    fn tell(&self, tell: impl Fn(&dyn Observer)) {
        // An observer that waits for the server's end gets an error: it would wait for itself.
        let _inside = InHandler::of(self.server);
        for observer in &self.observers.all {
            if let Err(message) = caught(|| tell(&**observer)) {
                self.report_hook_panic("observer", &message);
            }
        }
    }
}
