//! [`bind()`]: from the text of an [`Address`] to sockets that listen, or receive.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixListener};
use std::path::Path;

use nix::sys::socket::UnixAddr;

use super::file::{bind_at, Access, SocketFile};
use super::handover;
use super::inherited;
use super::listener::Listener;
use crate::error::{Error, Result, USE};
use crate::net::{numeric, Addr, Address};
use crate::sys::datagram;
use crate::sys::socket::{self, Act, SockType, TcpOptions, SILENCE};

/// The options of a bind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindOptions {
    /// Stream or datagram.
    pub(crate) kind: SockType,
    /// The options of TCP sockets. Unix sockets use the backlog too; UDP sockets use only `only_v6`.
    pub(crate) tcp: TcpOptions,
    pub(crate) access: Access,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { kind: SockType::Stream, tcp: TcpOptions::default(), access: Access::default() }
    }
}

impl BindOptions {
    /// Returns the defaults for datagrams.
    pub(crate) fn datagrams() -> Self {
        Self { kind: SockType::Datagram, ..Self::default() }
    }
}

/// Checks the settings of the listening sockets.
pub(crate) fn check_sockets(tcp: TcpOptions, access: Access) -> Result<()> {
    if access.mode > 0o777 {
        return Err(Error::setting("unix_mode", format!("{:#o} is not from 0 to 0o777", access.mode)));
    }
    match tcp.keep_alive_time {
        Some(time) if !SILENCE.contains(&time.as_secs()) => {
            Err(Error::setting("keep_alive_time", format!("{time:?} is not from 6 to 32767 s")))
        }
        _ => Ok(()),
    }
}

/// The number of tries to find a port that is free in both families.
const PORT_TRIES: usize = 8;

/// Listens on each address that the text stands for. A name may have several.
pub(crate) fn bind(address: &Address, options: BindOptions) -> Result<Vec<Listener>> {
    let failed = |(act, source): (Act, io::Error)| Error::Listen { act, address: address.to_string(), source };
    // For a Unix socket without a name, the kernel would choose a name that no client knows.
    address.check().map_err(|e| failed(("listen on", e)))?;
    let name = handover::name(address, options.kind);
    let mut listeners = match handover::take(&name).map_err(|e| failed((TAKE_OVER, e)))? {
        Some(handed) => {
            let taken_over = handed.into_iter().map(|handed| Listener::take_over(address, handed, options));
            taken_over.collect::<std::result::Result<_, _>>().map_err(failed)?
        }
        None => bind_anew(address, options)?,
    };
    listeners.iter_mut().for_each(|listener| listener.is_bound_as(&name));
    Ok(listeners)
}

/// The act of taking over a socket of a former process, as an error names it.
const TAKE_OVER: &str = "take over";

fn bind_anew(address: &Address, options: BindOptions) -> Result<Vec<Listener>> {
    let failed = |(act, source): (Act, io::Error)| Error::Listen { act, address: address.to_string(), source };
    match address {
        Address::Tcp(text) => {
            let resolved = resolve(text).map_err(|e| failed(("resolve", e)))?;
            bind_all(&resolved, options).map_err(failed)
        }
        Address::Unix(path) => bind_path(path, options).map(|l| vec![l]).map_err(failed),
        Address::Abstract(name) => {
            let fd = UnixAddr::new_abstract(name)
                .map_err(|e| ("bind", e.into()))
                .and_then(|addr| socket::bind_unix(&addr, options.kind, None))
                .map_err(failed)?;
            let local = UnixSocketAddr::from_abstract_name(name).map_err(|e| failed(("bind", e)))?;
            listen_unix(fd, &local, None, options).map(|l| vec![l]).map_err(failed)
        }
        Address::Descriptor(text) => {
            let sockets = inherited::take(text).map_err(|e| failed((USE, e)))?;
            sockets.into_iter().map(|fd| Listener::adopt(fd, options.kind).map_err(failed)).collect()
        }
    }
}

/// Resolves a name. Each address occurs once, in the resolver's order.
pub(crate) fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    if let Some(addr) = numeric(text) {
        return addr.map(|addr| vec![addr]);
    }
    let mut found: Vec<SocketAddr> = Vec::new();
    for addr in text.to_socket_addrs()? {
        // A resolver may give an address once for each protocol.
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

/// Binds all addresses. With port 0, all get the port of the first one. If that port is not free on all, it
/// tries another.
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
    let mut listeners: Vec<Listener> = Vec::new();
    let mut port = addrs[0].port();
    let mut unavailable = None;
    for addr in addrs {
        // Not a new address of the IP address and the port: a link-local one has its interface too.
        let mut addr = *addr;
        addr.set_port(port);
        let listener = match listen_ip(addr, options) {
            Ok(listener) => listener,
            // A name may have an address of a family that this machine lacks. It is skipped, if others work.
            Err((act, e)) if addrs.len() > 1 && is_unavailable(&e) => {
                unavailable = Some((act, e));
                continue;
            }
            Err(failed) => return Err(failed),
        };
        // With port 0, the first listener has chosen the port for all.
        port = listener.local_addr().port().unwrap_or(port);
        listeners.push(listener);
    }
    match unavailable {
        Some(failed) if listeners.is_empty() => Err(failed),
        _ => Ok(listeners),
    }
}

fn listen_ip(addr: SocketAddr, options: BindOptions) -> std::result::Result<Listener, (Act, io::Error)> {
    let unknown = |e| ("ask for the address of", e);
    if options.kind == SockType::Datagram {
        let socket = UdpSocket::from(datagram::bind_udp(addr, options.tcp.only_v6)?);
        let local = socket.local_addr().map_err(unknown)?;
        return Ok(Listener::datagrams(socket.into(), Addr::Ip(local), None));
    }
    let listener = TcpListener::from(socket::listen_tcp(addr, options.tcp)?);
    let local = listener.local_addr().map_err(unknown)?;
    Ok(Listener::tcp(listener, local))
}

fn is_unavailable(e: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(e.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

fn bind_path(path: &Path, options: BindOptions) -> std::result::Result<Listener, (Act, io::Error)> {
    let (fd, file) = bind_at(path, options.kind, options.access)?;
    let local = UnixSocketAddr::from_pathname(path).map_err(|e| ("bind", e))?;
    listen_unix(fd, &local, Some(file), options)
}

fn listen_unix(
    fd: OwnedFd,
    local: &UnixSocketAddr,
    file: Option<SocketFile>,
    options: BindOptions,
) -> std::result::Result<Listener, (Act, io::Error)> {
    if options.kind == SockType::Datagram {
        return Ok(Listener::datagrams(fd, Addr::from_unix(local), file));
    }
    socket::listen(&fd, options.tcp.backlog)?;
    Ok(Listener::unix(UnixListener::from(fd), local, file))
}
