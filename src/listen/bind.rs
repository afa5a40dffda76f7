//! From an [`Address`] to listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::UnixAddr;

use super::address::Address;
use super::listener::Listener;
use crate::error::{Error, Result};
use crate::sys::socket::{self, Act, TcpOptions};

/// How to listen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindOptions {
    pub(crate) backlog: i32,
    pub(crate) only_v6: Option<bool>,
    pub(crate) no_delay: bool,
    pub(crate) keep_alive: bool,
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
            bind_all(&resolved, options).map_err(failed)
        }
        Address::Unix(path) => bind_path(path, options.backlog).map(|l| vec![l]).map_err(failed),
        Address::Abstract(name) => {
            let fd = UnixAddr::new_abstract(name)
                .map_err(|e| ("bind", e.into()))
                .and_then(|addr| socket::listen_unix(&addr, options.backlog))
                .map_err(failed)?;
            let local = UnixSocketAddr::from_abstract_name(name).map_err(|e| failed(("bind", e)))?;
            Ok(vec![Listener::unix(UnixListener::from(fd), &local, None)])
        }
    }
}

/// All addresses, each once, in the resolver's order.
fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
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
fn bind_all(addrs: &[SocketAddr], options: BindOptions) -> std::result::Result<Vec<Listener>, (Act, io::Error)> {
    let mut tries = PORT_TRIES;
    loop {
        tries -= 1;
        match bind_each(addrs, options) {
            Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse && addrs[0].port() == 0 && tries > 0 => continue,
            done => return done,
        }
    }
}

fn bind_each(addrs: &[SocketAddr], options: BindOptions) -> std::result::Result<Vec<Listener>, (Act, io::Error)> {
    let BindOptions { backlog, only_v6, no_delay, keep_alive } = options;
    let mut listeners: Vec<Listener> = Vec::new();
    let mut port = addrs[0].port();
    let mut unavailable = None;
    for addr in addrs {
        let tcp = TcpOptions { backlog, only_v6, no_delay, keep_alive };
        let fd = match socket::listen_tcp(SocketAddr::new(addr.ip(), port), tcp) {
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

/// A socket file that nobody listens on any more is replaced; a living one, or any other file, is in use.
fn bind_path(path: &Path, backlog: i32) -> std::result::Result<Listener, (Act, io::Error)> {
    let addr = UnixAddr::new(path).map_err(|e| ("bind", io::Error::from(e)))?;
    let fd = match socket::listen_unix(&addr, backlog) {
        Err((_, e)) if e.kind() == io::ErrorKind::AddrInUse && is_dead_socket(path) => {
            std::fs::remove_file(path).map_err(|e| ("remove the dead socket", e))?;
            socket::listen_unix(&addr, backlog)
        }
        done => done,
    }?;
    let listener = UnixListener::from(fd);
    let local = listener.local_addr().map_err(|e| ("ask for the address of", e))?;
    Ok(Listener::unix(listener, &local, Some(path)))
}

fn is_dead_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}
