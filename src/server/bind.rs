//! The `bind` methods of [`ServerBuilder`]: from settings to a server that listens.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use super::builder::ServerBuilder;
use super::engine::{Bound, Engine};
use super::udp::{Datagrams, UdpServer, UnixDatagramServer};
use super::TcpServer;
use crate::accept::ServingStrategy;
use crate::config::{check_limit, check_needed_time};
use crate::error::{Error, Result};
use crate::handler::DatagramRequestHandler;
use crate::lifecycle::{Core, Restarts};
use crate::listen::{bind, check_sockets, BindOptions, Listener};
use crate::net::Address;
use crate::observe::log_line;
use crate::privileges::RunAs;
use crate::sys::limits;
use crate::sys::socket::{SockType, TcpOptions};
use crate::systemd::Notifier;

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
        self.more.insert(0, address.into());
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
        self.more.insert(0, address.into());
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
        self.adopted.push(adopted.map_err(failed));
        self.finish(handler)
    }

    /// True if an address or a socket to listen on was given.
    #[cfg(feature = "testing")]
    pub(crate) fn has_addresses(&self) -> bool {
        !self.more.is_empty() || !self.adopted.is_empty()
    }

    pub(crate) fn finish<H>(self, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.finish_as(SockType::Stream, handler)
    }

    fn finish_as<H>(mut self, kind: SockType, handler: H) -> Result<TcpServer<H, S>>
    where
        S: Engine<H>,
    {
        self.settings.check()?;
        self.hooks.check()?;
        self.check_restarts()?;
        let run_as = self.run_as.as_deref().map(RunAs::named).transpose()?;
        // Before the strategy is asked: its default limit depends on the descriptors.
        if self.raises_descriptor_limit {
            let wanted = self.max_connections.unwrap_or(1024).saturating_add(64);
            limits::raise_descriptors(wanted).map_err(Error::system("raise RLIMIT_NOFILE"))?;
        }
        let (default, capacity) = self.strategy.connection_limits(&handler)?;
        let limit = self.max_connections.unwrap_or(default);
        check_limit(limit)?;
        self.check_descriptors(limit, capacity)?;
        let restarts = self.restarts()?;
        // All settings are checked before the first socket: a mistake must not leave a bound address.
        let listeners = self.open(kind)?;
        let mut hooks = self.hooks;
        if self.notifies_systemd {
            hooks.notifier = reach_manager();
        }
        hooks.observers.know(&listeners);
        hooks.restarts = restarts.map(|(restarts, _)| restarts);
        let core =
            Core::new(self.settings, hooks, limit, capacity).map_err(Error::system("make the server's wake-ups"))?;
        // The program that has passed a socket keeps it, and starts another one when this ends.
        if listeners.iter().any(Listener::is_adopted) {
            core.control.is_to_be_succeeded();
        }
        core.has_taken_over(listeners.iter().filter(|listener| listener.is_handed_over()).count());
        let mut server = TcpServer {
            bound: Bound { core, listeners: Arc::new(listeners) },
            handler: Arc::new(handler),
            strategy: self.strategy,
            handles_signals: self.handles_signals,
            signals: None,
        };
        // From here on, a drop closes what was opened. Engines make no thread here: `PreForking` forks later.
        server.strategy.prepare(&server.bound, self.max_connections.is_none(), &server.handler)?;
        if let Some((restarts, limit)) = restarts {
            restarts.add(&server.bound.core, &server.bound.listeners, limit);
        }
        server.install_signals()?;
        run_as.iter().try_for_each(RunAs::become_it)?;
        Ok(server)
    }
}

/// Connects to the service manager. A server that cannot report serves all the same, as sd_notify(3) advises.
fn reach_manager() -> Option<Notifier> {
    Notifier::from_environment().unwrap_or_else(|e| {
        let text = format_args!("cannot reach the service manager, and serves without its reports: {e}");
        log_line(Level::Warn, "socketserver::server", text);
        None
    })
}

impl<S> ServerBuilder<S> {
    /// Opens the sockets on all addresses, behind those that were given.
    fn open(&mut self, kind: SockType) -> Result<Vec<Listener>> {
        let tcp = TcpOptions {
            backlog: i32::try_from(self.settings.backlog).unwrap_or(i32::MAX),
            reuse_port: self.reuse_port,
            only_v6: self.only_v6,
            no_delay: self.no_delay,
            keep_alive: self.keep_alive,
            keep_alive_time: self.keep_alive_time,
        };
        check_sockets(tcp, self.access)?;
        let options = BindOptions { kind, tcp, access: self.access };
        let mut listeners = std::mem::take(&mut self.adopted).into_iter().collect::<Result<Vec<_>>>()?;
        for address in &self.more {
            listeners.extend(bind(address, options)?);
        }
        Ok(listeners)
    }

    fn check_restarts(&self) -> Result<()> {
        let Some(limit) = self.restart_limit else { return Ok(()) };
        check_needed_time("restartable", limit)?;
        if !self.adopted.is_empty() {
            let why =
                "the successor would bind a socket of from_listener itself, in vain; give its address, or fd:NUMBER";
            return Err(Error::setting("restartable", why));
        }
        Ok(())
    }

    /// Returns the restarts of this process, if the server is to take part in them, and the time for each.
    fn restarts(&self) -> Result<Option<(&'static Restarts, Duration)>> {
        let Some(limit) = self.restart_limit else { return Ok(None) };
        let restarts = Restarts::of_this_process().map_err(Error::system("prepare for restarts"))?;
        Ok(Some((restarts, limit)))
    }

    /// Checks that the process may open what the server needs: a server that has said that it listens must be able
    /// to serve.
    fn check_descriptors<H>(&self, limit: usize, capacity: usize) -> Result<()>
    where
        S: Engine<H>,
    {
        // A pool of N threads promises N connections. Without such a number, connections beyond the descriptors
        // wait in the kernel's queue.
        let connections = if capacity == usize::MAX { 1 } else { limit.min(capacity) };
        // A Unix socket has its lock and its folder open.
        let of_each = |address: &Address| if matches!(address, Address::Unix(_)) { 3 } else { 1 };
        let own = OF_A_CORE
            + usize::from(self.notifies_systemd)
            + if self.restart_limit.is_some() { OF_RESTARTS } else { 0 }
            + self.more.iter().map(of_each).sum::<usize>();
        let needed = own.saturating_add(self.strategy.descriptors(connections));
        if self.raises_descriptor_limit && capacity != usize::MAX {
            limits::raise_descriptors(needed.saturating_add(64)).map_err(Error::system("raise RLIMIT_NOFILE"))?;
        }
        let (free, most) = (limits::free_descriptors(needed), limits::descriptors());
        if free >= needed {
            return Ok(());
        }
        let why = format!(
            "to serve {connections} at once, the server needs {needed} descriptors, and may open {free}: RLIMIT_NOFILE \
             is {most}; raise it (ulimit -n, or raise_descriptor_limit()), or serve fewer"
        );
        Err(Error::setting("max_connections", why))
    }
}

/// The descriptors by which a process waits for restarts, and the set of an accepting thread that watches them.
const OF_RESTARTS: usize = 3;

/// The descriptors of a server's wake-ups, and the one that it refuses with.
const OF_A_CORE: usize = 5;

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
