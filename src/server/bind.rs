//! The `bind` methods of [`ServerBuilder`]: from settings to a server that listens.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use super::bound::Signals;
use super::builder::ServerBuilder;
use super::engine::Engine;
use super::udp::{Datagrams, UdpServer, UnixDatagramServer};
use super::TcpServer;
use crate::accept::ServingStrategy;
use crate::error::{Error, Result};
use crate::handler::DatagramRequestHandler;
use crate::listen::Listener;
use crate::net::Address;
use crate::privileges::RunAs;
use crate::sys::socket::SockType;

/// Binding.
impl<S> ServerBuilder<S> {
    /// Listens on an address of any kind.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a setting that makes no sense,
    /// [`Error::Listen`](crate::Error::Listen) for an address that cannot be bound.
    pub fn bind<H>(mut self, address: impl Into<Address>, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.plan.addresses.insert(0, address.into());
        self.finish(handler)
    }

    /// Listens on `HOST:PORT`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_tcp<H>(self, address: impl Into<Address>, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.bind(address, handler)
    }

    /// Listens on a Unix socket. Its file has the [mode](Self::unix_mode) 0o600 by default. It is removed
    /// when the server is dropped, if it is still the same file, also after a change of the working
    /// directory. After a fork, it is the file of the process that serves.
    ///
    /// A file `PATH.lock` beside it is locked (flock(2)) while the server lives. If several servers start at
    /// once, one gets the path. A dead socket, left behind by a program that was killed, is replaced. A
    /// living socket and any other file are never touched, and no symbolic link is followed.
    ///
    /// # Errors
    /// As [`bind`](Self::bind):
    /// - [`AddrInUse`](std::io::ErrorKind::AddrInUse) if another process has the socket or the lock;
    /// - [`AlreadyExists`](std::io::ErrorKind::AlreadyExists) if another kind of file stands there;
    /// - [`InvalidInput`](std::io::ErrorKind::InvalidInput) for a path that is empty, contains a NUL or has
    ///   more than 107 bytes.
    ///
    /// The folder must be writable, for the socket and for the lock. It should belong to the server's user:
    /// any user that may write there can hold the lock, and so keep the server from starting.
    pub fn bind_unix<H>(self, path: impl Into<PathBuf>, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.bind(path.into(), handler)
    }

    /// Receives datagrams on an address of any kind: `HOST:PORT` is UDP, a path or a name is a Unix datagram
    /// socket. [`UdpServer`] lists the settings that hold for them. `SO_REUSEADDR` is not set: on Linux it
    /// would let a second server bind the same address and take the datagrams of the first.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_udp<H>(mut self, address: impl Into<Address>, handler: H) -> Result<UdpServer<H, S>>
    where
        H: DatagramRequestHandler,
        S: ServingStrategy,
    {
        self.plan.addresses.insert(0, address.into());
        let handler = Datagrams(Arc::new(handler));
        self.finish_as(SockType::Datagram, handler).map(|server| UdpServer { server })
    }

    /// Receives datagrams on a Unix socket. Its file, mode and lock are those of
    /// [`bind_unix`](Self::bind_unix).
    ///
    /// # Errors
    /// As [`bind_unix`](Self::bind_unix).
    pub fn bind_unix_datagram<H>(self, path: impl Into<PathBuf>, handler: H) -> Result<UnixDatagramServer<H, S>>
    where
        H: DatagramRequestHandler,
        S: ServingStrategy,
    {
        self.bind_udp(path.into(), handler)
    }

    /// Takes over a socket that listens already: an inherited one, or one with options of your own. It
    /// becomes non-blocking. [`listen`](Self::listen) adds further addresses.
    ///
    /// Another process may go on with the socket. So a stop spares clients that have connected and not spoken yet,
    /// until the drain limit.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), and if the socket does not listen.
    pub fn from_listener<H>(mut self, listener: impl Into<ListeningSocket>, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        let adopted = match listener.into() {
            ListeningSocket::Tcp(listener) => Listener::adopt(listener.into(), SockType::Stream),
            ListeningSocket::Unix(listener) => Listener::adopt(listener.into(), SockType::Stream),
            #[cfg(feature = "testing")]
            ListeningSocket::Failing(listener) => Listener::adopt_failing(listener),
        };
        let failed = |(act, source)| Error::Listen { act, address: "the given socket".to_owned(), source };
        self.plan.adopted.push(adopted.map_err(failed));
        self.finish(handler)
    }

    /// True if an address or a socket to listen on was given.
    #[cfg(feature = "testing")]
    pub(crate) fn has_addresses(&self) -> bool {
        !self.plan.addresses.is_empty() || !self.plan.adopted.is_empty()
    }

    pub(crate) fn finish<H>(self, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.finish_as(SockType::Stream, handler)
    }

    /// What does not depend on the two types is done by [`Plan`], and compiled once.
    fn finish_as<H>(self, kind: SockType, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        let Self { strategy, plan } = self;
        let run_as = plan.check()?;
        let (follows, signals) = (plan.max_connections.is_none(), Signals::new(plan.handles_signals));
        let limits = strategy.connection_limits(&handler)?;
        let opened = plan.open(kind, limits, &|connections| strategy.descriptors(connections))?;
        let mut server = TcpServer { bound: opened.bound, handler: Arc::new(handler), strategy, signals };
        // From here on, a drop closes what was opened. Engines make no thread here: `PreForking` forks later.
        server.strategy.prepare(&server.bound, follows, &server.handler)?;
        server.bound.take_part_in(opened.restarts);
        server.signals.install(&server.bound.core, server.strategy.has_workers())?;
        run_as.iter().try_for_each(RunAs::become_it)?;
        Ok(server)
    }
}

/// A socket for [`ServerBuilder::from_listener`].
#[derive(Debug)]
#[non_exhaustive]
pub enum ListeningSocket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
    /// A TCP socket whose failures a test sets (feature `testing`).
    #[cfg(feature = "testing")]
    Failing(crate::listen::FailingListener),
}

#[cfg(feature = "testing")]
impl From<crate::listen::FailingListener> for ListeningSocket {
    fn from(listener: crate::listen::FailingListener) -> Self {
        Self::Failing(listener)
    }
}

impl From<TcpListener> for ListeningSocket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for ListeningSocket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}
