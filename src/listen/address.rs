//! Addresses: as users write them, and as sockets have them.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixSocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where to listen, as a user writes it: `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` (or a path from `/`), `unix:@NAME`
/// (abstract).
///
/// Strings, socket addresses, `(host, port)` pairs and paths convert into it. A host name is resolved, and a string
/// checked, when the server is bound; [`FromStr`] checks at once.
///
/// ```
/// use socketserver::Address;
/// assert_eq!("unix:/run/x.sock".parse::<Address>()?.to_string(), "unix:/run/x.sock");
/// assert_eq!(Address::from(("localhost", 80)).to_string(), "localhost:80");
/// assert!("localhost".parse::<Address>().is_err());    // no port
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host and a port, still as text.
    Tcp(String),
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(Vec<u8>),
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(rest) => match rest.strip_prefix('@') {
                Some(name) => Self::Abstract(name.into()),
                None => Self::Unix(rest.into()),
            },
            None if text.starts_with('/') => Self::Unix(text.into()),
            None => Self::Tcp(text.to_owned()),
        }
    }
}

impl From<String> for Address {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<&String> for Address {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr.to_string())
    }
}

impl From<(IpAddr, u16)> for Address {
    fn from(addr: (IpAddr, u16)) -> Self {
        SocketAddr::from(addr).into()
    }
}

impl From<(&str, u16)> for Address {
    fn from((host, port): (&str, u16)) -> Self {
        if host.contains(':') && !host.starts_with('[') {
            Self::Tcp(format!("[{host}]:{port}"))
        } else {
            Self::Tcp(format!("{host}:{port}"))
        }
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path)
    }
}

impl FromStr for Address {
    type Err = io::Error;

    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] where a port or a path is missing or malformed.
    fn from_str(text: &str) -> io::Result<Self> {
        let address = Self::from(text);
        address.check().map(|()| address)
    }
}

impl Address {
    /// Whether it can be one: there is a port, or a name.
    pub(super) fn check(&self) -> io::Result<()> {
        let malformed = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match self {
            Self::Tcp(text) => match text.rsplit_once(':') {
                None => malformed("no port"),
                Some((_, port)) if port.parse::<u16>().is_err() => malformed("the port is no number up to 65535"),
                Some((host, _)) if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
                    malformed("an IPv6 address stands in brackets")
                }
                Some(_) => Ok(()),
            },
            Self::Unix(path) if path.as_os_str().is_empty() => malformed("no path"),
            Self::Abstract(name) if name.is_empty() => malformed("no name"),
            Self::Unix(_) | Self::Abstract(_) => Ok(()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => f.write_str(text),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}

/// The address of a socket, ours or the peer's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addr {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(Vec<u8>),
    /// A Unix socket without a name, as most clients' are.
    Unnamed,
}

impl Addr {
    /// The IP address and port; `None` for Unix sockets.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix(_) | Self::Abstract(_) | Self::Unnamed => None,
        }
    }

    /// The port; `None` for Unix sockets.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|addr| addr.port())
    }

    /// The IP address, with IPv4 in its own form where the socket says `::ffff:a.b.c.d`; `None` for Unix sockets.
    pub fn ip(&self) -> Option<IpAddr> {
        self.socket_addr().map(|addr| addr.ip().to_canonical())
    }

    pub(crate) fn from_unix(addr: &UnixSocketAddr) -> Self {
        if let Some(path) = addr.as_pathname() {
            Self::Unix(path.to_owned())
        } else if let Some(name) = addr.as_abstract_name() {
            Self::Abstract(name.to_owned())
        } else {
            Self::Unnamed
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write!(f, "unix:{}", path.as_os_str().as_bytes().escape_ascii()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}
