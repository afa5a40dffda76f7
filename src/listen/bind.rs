//! From an [`Address`] to listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::path::Path;

use nix::sys::socket::UnixAddr;

use super::address::Address;
use super::file::{listen_at, Access};
use super::listener::Listener;
use crate::error::{Error, Result};
use crate::sys::socket::{self, Act, TcpOptions};

/// How to listen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BindOptions {
    /// The backlog is that of Unix sockets too.
    pub(crate) tcp: TcpOptions,
    pub(crate) access: Access,
}

/// How often a free port is looked for that two families have in common.
const PORT_TRIES: usize = 8;

/// Listens on every address that the text stands for: a name that has several gets a listener on each.
pub(crate) fn bind(address: &Address, options: BindOptions) -> Result<Vec<Listener>> {
    let failed = |(act, source): (Act, io::Error)| Error::Listen { act, address: address.to_string(), source };
    // Without a name for a Unix socket, the kernel would choose one that nobody knows.
    address.check().map_err(|e| failed(("listen on", e)))?;
    match address {
        Address::Tcp(text) => {
            let resolved = resolve(text).map_err(|e| failed(("resolve", e)))?;
            bind_all(&resolved, options.tcp).map_err(failed)
        }
        Address::Unix(path) => bind_path(path, options).map(|l| vec![l]).map_err(failed),
        Address::Abstract(name) => {
            let fd = UnixAddr::new_abstract(name)
                .map_err(|e| ("bind", e.into()))
                .and_then(|addr| socket::bind_unix(&addr, None))
                .map_err(failed)?;
            socket::listen(&fd, options.tcp.backlog).map_err(failed)?;
            let local = UnixSocketAddr::from_abstract_name(name).map_err(|e| failed(("bind", e)))?;
            Ok(vec![Listener::unix(UnixListener::from(fd), &local, None)])
        }
    }
}

/// All addresses, each once, in the resolver's order.
pub(crate) fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for addr in text.to_socket_addrs()? {
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

/// With port 0, all get the port that the first one is given; another is looked for where it is not free on all.
fn bind_all(addrs: &[SocketAddr], options: TcpOptions) -> std::result::Result<Vec<Listener>, (Act, io::Error)> {
    let mut tries = PORT_TRIES;
    loop {
        tries -= 1;
        match bind_each(addrs, options) {
            Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse && addrs[0].port() == 0 && tries > 0 => continue,
            done => return done,
        }
    }
}

fn bind_each(addrs: &[SocketAddr], options: TcpOptions) -> std::result::Result<Vec<Listener>, (Act, io::Error)> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut port = addrs[0].port();
    let mut unavailable = None;
    for addr in addrs {
        let fd = match socket::listen_tcp(SocketAddr::new(addr.ip(), port), options) {
            Ok(fd) => fd,
            // A name may stand for a family that this machine does not have.
            Err((act, e)) if addrs.len() > 1 && is_unavailable(&e) => {
                unavailable = Some((act, e));
                continue;
            }
            Err(failed) => return Err(failed),
        };
        let listener = TcpListener::from(fd);
        let local = listener.local_addr().map_err(|e| ("ask for the address of", e))?;
        port = local.port();
        listeners.push(Listener::tcp(listener, local));
    }
    match unavailable {
        Some(failed) if listeners.is_empty() => Err(failed),
        _ => Ok(listeners),
    }
}

fn is_unavailable(e: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(e.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

fn bind_path(path: &Path, options: BindOptions) -> std::result::Result<Listener, (Act, io::Error)> {
    let (listener, file) = listen_at(path, options.access, options.tcp.backlog)?;
    let local = listener.local_addr().map_err(|e| ("ask for the address of", e))?;
    Ok(Listener::unix(listener, &local, Some(file)))
}
