//! [`Address`], as users write it, and [`Addr`], as sockets have it.
//!
//! An `Address` stays text until the server is bound. So a string, a pair, a `SocketAddr` and a path all go
//! into one parameter, without a `Result` at each.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixSocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::numeric::{is_v6, numeric};

/// An address to listen on, as a user writes it: `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` (or a path that
/// begins with `/`), `unix:@NAME` (abstract), `fd:NUMBER` or `fd:NAME`.
///
/// A link-local IPv6 address needs its interface, by name or by number: `[fe80::1%eth0]:80`, `[fe80::1%2]:80`.
///
/// `fd:` is a socket that the program was started with. systemd counts from `fd:3` and may give names (`LISTEN_FDS`,
/// `LISTEN_FDNAMES`, sd_listen_fds(3)). inetd and other supervisors pass only a number. The first address of this
/// kind unsets these variables. Such a socket keeps its own options. Another process goes on with the socket, so
/// clients must not notice a stop. It spares those that have connected and not spoken yet, until the drain limit. A
/// host whose name is `fd` needs a final dot: `fd.:80`.
///
/// Strings, socket addresses, paths, and pairs as `("127.0.0.1", 1234)` convert into it. A string is checked, and a host
/// name is resolved, when the server is bound; [`FromStr`] checks at once. A name with several addresses gets
/// a listener on each; with port 0, all get the same port.
///
/// ```
/// use socketserver::Address;
/// assert_eq!("unix:/run/x.sock".parse::<Address>()?.to_string(), "unix:/run/x.sock");
/// // Python's form:
/// assert_eq!(Address::from(("127.0.0.1", 1234)).to_string(), "127.0.0.1:1234");
/// assert_eq!(Address::from(("::1", 1234)).to_string(), "[::1]:1234");
/// assert!("localhost".parse::<Address>().is_err());    // no port
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host and a port, as text.
    Tcp(String),
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(Vec<u8>),
    /// A socket that the program was started with: its number, or its name in `LISTEN_FDNAMES`.
    Descriptor(String),
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        if let Some(descriptor) = text.strip_prefix("fd:") {
            return Self::Descriptor(descriptor.to_owned());
        }
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
        // An IPv6 address needs brackets, or its last group would read as the port.
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
    /// [`io::ErrorKind::InvalidInput`] if a port or a path is missing or malformed, and for control characters. (A
    /// path or an abstract name as a value may have them: its text is escaped.)
    fn from_str(text: &str) -> io::Result<Self> {
        let address = Self::from(text);
        address.check()?;
        // Such an address could not be written as it was read.
        if !is_plain(text) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, UNPRINTABLE));
        }
        Ok(address)
    }
}

impl Address {
    /// Checks the form: there is a port, or a name.
    pub(crate) fn check(&self) -> io::Result<()> {
        let malformed = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match self {
            Self::Tcp(text) if !is_plain(text) => malformed(UNPRINTABLE),
            Self::Tcp(text) => match text.rsplit_once(':') {
                None => malformed("no port"),
                Some(("", _)) => malformed("no host; all of the machine's addresses are 0.0.0.0 or [::]"),
                Some((_, port)) if port.parse::<u16>().is_err() => malformed("the port is no number up to 65535"),
                Some((host, _)) if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
                    malformed("an IPv6 address stands in brackets")
                }
                Some((host, _)) if host.starts_with('[') && !is_v6(text) => {
                    malformed("no IPv6 address in the brackets")
                }
                Some(_) => Ok(()),
            },
            Self::Unix(path) => match path.as_os_str().as_bytes() {
                [] => malformed("no path"),
                path if path.contains(&0) => malformed("a path has no NUL in it"),
                path if path.len() > NAME_MAX => malformed("a socket's path has at most 107 bytes"),
                _ => Ok(()),
            },
            Self::Abstract(name) if name.is_empty() => malformed("no name"),
            Self::Abstract(name) if name.len() > NAME_MAX => malformed("a socket's name has at most 107 bytes"),
            Self::Abstract(_) => Ok(()),
            Self::Descriptor(text) if text.is_empty() => malformed("no number or name of a descriptor"),
            Self::Descriptor(text) if text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i32>().is_err() => {
                malformed("no descriptor has this number")
            }
            // systemd.socket(5), FileDescriptorName=
            Self::Descriptor(text) if text.contains(':') || text.chars().any(char::is_control) => {
                malformed("a descriptor's name has neither colons nor control characters")
            }
            Self::Descriptor(_) => Ok(()),
        }
    }
}

const UNPRINTABLE: &str = "an address has no control characters or other invisible ones";

/// The room in a Unix socket's address: a path and a NUL, or a NUL and a name (unix(7)).
const NAME_MAX: usize = 107;

/// Writes the form that [`FromStr`] reads. A peer may be bound to any name, so a name with control characters
/// or without UTF-8 is escaped. Such a name cannot be read back.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(text) => write_name(f, "", text.as_bytes()),
            Self::Unix(path) => write_path(f, path),
            Self::Abstract(name) => write_name(f, "unix:@", name),
            Self::Descriptor(text) => write_name(f, "fd:", text.as_bytes()),
        }
    }
}

/// Writes a path. A relative path that begins with `@` gets `./`, or it would read as an abstract name.
fn write_path(f: &mut fmt::Formatter<'_>, path: &Path) -> fmt::Result {
    let bytes = path.as_os_str().as_bytes();
    write_name(f, if bytes.starts_with(b"@") { "unix:./" } else { "unix:" }, bytes)
}

fn write_name(f: &mut fmt::Formatter<'_>, prefix: &str, name: &[u8]) -> fmt::Result {
    let text = std::str::from_utf8(name).map(|name| format!("{prefix}{name}"));
    match text {
        Ok(text) if is_plain(&text) => f.write_str(&text),
        _ => write!(f, "{prefix}{}", name.escape_ascii()),
    }
}

/// True if the text can be shown in a log line as it is. Control characters cannot, nor those that are invisible
/// or turn the text round.
fn is_plain(text: &str) -> bool {
    let as_it_is = |c: char| if matches!(c, '\\' | '"' | '\'') { 2 } else { 1 };
    text.escape_debug().count() == text.chars().map(as_it_is).sum::<usize>()
}

/// The address of a socket: ours or the peer's. Its text reads back:
///
/// ```
/// use socketserver::Addr;
/// for text in ["127.0.0.1:80", "[::1]:80", "unix:/run/x.sock", "unix:@name"] {
///     assert_eq!(text.parse::<Addr>()?.to_string(), text);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Addr {
    /// An IP address and a port.
    Ip(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace of Unix sockets.
    Abstract(Vec<u8>),
    /// A Unix socket without a name. Most clients have none.
    Unnamed,
}

impl Addr {
    /// Returns the IP address and port. `None` for Unix sockets.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix(_) | Self::Abstract(_) | Self::Unnamed => None,
        }
    }

    /// Returns the port. `None` for Unix sockets.
    pub fn port(&self) -> Option<u16> {
        self.socket_addr().map(|addr| addr.port())
    }

    /// Returns the IP address. An IPv4 address in the form `::ffff:a.b.c.d` becomes an IPv4 address. `None`
    /// for Unix sockets.
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

impl FromStr for Addr {
    type Err = io::Error;

    /// Reads the form that `Display` writes, `/PATH`, and an interface by its name. It resolves no other name.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for anything else.
    fn from_str(text: &str) -> io::Result<Self> {
        // As an `Address` this is an error: an unnamed socket can only be a peer.
        if text == "unix:" {
            return Ok(Self::Unnamed);
        }
        match text.parse()? {
            Address::Unix(path) => Ok(Self::Unix(path)),
            Address::Abstract(name) => Ok(Self::Abstract(name)),
            Address::Descriptor(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a descriptor is no address")),
            Address::Tcp(text) => {
                let name = || Err(io::Error::new(io::ErrorKind::InvalidInput, "a name is no address of a socket"));
                numeric(&text).unwrap_or_else(name).map(Self::Ip)
            }
        }
    }
}

/// Writes the form that [`FromStr`] reads. An [`Address`] of this text can be connected to, or bound again.
/// Only a name with control characters or without UTF-8 is escaped.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => write!(f, "{addr}"),
            Self::Unix(path) => write_path(f, path),
            Self::Abstract(name) => write_name(f, "unix:@", name),
            Self::Unnamed => f.write_str("unix:"),
        }
    }
}
