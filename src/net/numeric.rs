//! IP addresses as text, with the interface of a link-local one.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

/// The parts of `[IPV6%INTERFACE]:PORT`, where the interface has a name.
struct Scoped<'a> {
    ip: Ipv6Addr,
    interface: &'a str,
    port: u16,
}

impl<'a> Scoped<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = text.strip_prefix('[')?.rsplit_once("]:")?;
        let (ip, interface) = host.split_once('%')?;
        // The kernel's rules for a name (dev_valid_name). A colon would be that of an alias.
        let is_name = !interface.is_empty() && !interface.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        Some(Self { ip: ip.parse().ok()?, interface, port: port.parse().ok()? }).filter(|_| is_name)
    }
}

/// True if the text is `[IPV6]:PORT`, perhaps with an interface: `[fe80::1%eth0]:80` or `[fe80::1%2]:80`.
pub(crate) fn is_v6(text: &str) -> bool {
    text.parse::<SocketAddrV6>().is_ok() || Scoped::parse(text).is_some()
}

/// Reads `IP:PORT`. `None` for a name, which must be resolved.
///
/// A link-local address is one of each interface's network, so it says the interface, by its name or its number
/// (RFC 4007). The standard library reads the number only.
pub(crate) fn numeric(text: &str) -> Option<io::Result<SocketAddr>> {
    if let Ok(addr) = text.parse() {
        return Some(Ok(addr));
    }
    let Scoped { ip, interface, port } = Scoped::parse(text)?;
    let unknown = |_| {
        io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("no interface has the name {}", interface.escape_debug()),
        )
    };
    Some(if_nametoindex(interface).map_err(unknown).map(|index| SocketAddrV6::new(ip, port, 0, index).into()))
}
