//! For the examples whose loop is their own: a listening socket, a descriptor that reports the stop, lines on stdout.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};
use socketserver::{Addr, Address};

use super::AnyError;

/// A listening socket; it never makes its thread wait, nor do the connections that it accepts.
pub enum Listener {
    Tcp(TcpListener),
    /// With its file, if it has one, and its address.
    Unix(UnixListener, Option<PathBuf>, Addr),
}

/// Listens, and says where.
pub fn listen(addr: &str) -> Result<Listener, AnyError> {
    let bound = match Address::from(addr) {
        Address::Tcp(text) => TcpListener::bind(text).map(Listener::Tcp),
        Address::Unix(path) => {
            UnixListener::bind(&path).map(|l| Listener::Unix(l, Some(path.clone()), Addr::Unix(path)))
        }
        Address::Abstract(name) => SocketAddr::from_abstract_name(&name)
            .and_then(|addr| UnixListener::bind_addr(&addr))
            .map(|l| Listener::Unix(l, None, Addr::Abstract(name))),
        _ => Err(io::Error::other("this example takes HOST:PORT, unix:PATH or unix:@NAME")),
    };
    let listener = bound.map_err(|e| format!("cannot listen on {addr}: {e}"))?;
    match &listener {
        Listener::Tcp(l) => {
            l.set_nonblocking(true)?;
            say(format_args!("listening on {}", l.local_addr()?));
        }
        Listener::Unix(l, _, addr) => {
            l.set_nonblocking(true)?;
            say(format_args!("listening on {addr}"));
        }
    }
    Ok(listener)
}

impl Listener {
    /// A connection, to be read and written like a file, and its client's address.
    pub fn accept(&self) -> io::Result<(File, String)> {
        let (stream, addr): (OwnedFd, String) = match self {
            Self::Tcp(l) => {
                let (stream, addr) = l.accept()?;
                stream.set_nonblocking(true)?;
                (stream.into(), addr.to_string())
            }
            Self::Unix(l, _, addr) => {
                let (stream, _) = l.accept()?;
                stream.set_nonblocking(true)?;
                (stream.into(), format!("a client of {addr}"))
            }
        };
        Ok((stream.into(), addr))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(l) => l.as_fd(),
            Self::Unix(l, ..) => l.as_fd(),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, Some(path), _) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Readable once SIGINT or SIGTERM has come. A second one ends the process at once.
pub fn stop_signal() -> io::Result<UnixStream> {
    let (stop, signalled) = UnixStream::pair()?;
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, seen.clone())?;
        flag::register(signal, seen.clone())?;
        pipe::register(signal, signalled.try_clone()?)?;
    }
    Ok(stop)
}

/// One line on stdout, at once. It is lost if nobody reads.
pub fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
