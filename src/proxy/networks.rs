//! [`ProxyProtocol`]: the networks whose connections begin with a header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// From where the server takes the PROXY protocol: the setting of
/// [`ServerBuilder::proxy_protocol`](crate::ServerBuilder::proxy_protocol).
///
/// A network is `10.0.0.0/8`, `2001:db8::/32`, a single address, or `unix:` for connections over Unix
/// sockets. An array, a slice or a `Vec` of texts converts into it.
///
/// ```
/// use socketserver::{handler, proxy::ProxyProtocol, ServerBuilder};
///
/// // Clients of the same machine come without a proxy.
/// let proxies = ProxyProtocol::from(["10.0.0.0/8", "fd00::/8"]).or_direct();
/// let server = ServerBuilder::new()
///     .proxy_protocol(proxies)
///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")))?;
/// # drop(server);
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The networks, or the fault of the first text that is none.
    networks: std::result::Result<Vec<Network>, String>,
    direct: bool,
}

/// What a connection's source says of its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// It is a proxy: a header comes.
    Proxy,
    /// It is no proxy, and is served as it is.
    Direct,
    /// It is no proxy, and is refused.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// All Unix sockets.
    Unix,
    V4(Ipv4Addr, u32),
    V6(Ipv6Addr, u32),
}

impl ProxyProtocol {
    /// Serves connections from other networks too, as they are: their first byte is the client's. Without
    /// this they are refused.
    ///
    /// It decides by the address alone. A connection from a named network must still begin with a header.
    #[must_use]
    pub fn or_direct(mut self) -> Self {
        self.direct = true;
        self
    }

    fn of<T: AsRef<str>>(texts: &[T]) -> Self {
        let networks = match texts {
            [] => Err("no network is named; give those of the proxies, such as 10.0.0.0/8".to_owned()),
            texts => texts.iter().map(|text| network(text.as_ref())).collect(),
        };
        Self { networks, direct: false }
    }

    /// Checks that all texts are networks.
    pub(crate) fn check(&self) -> Result<()> {
        self.networks.as_ref().map(drop).map_err(|why| Error::setting("proxy_protocol", why))
    }

    /// Decides about a source. `None` is a Unix socket.
    pub(crate) fn trust(&self, source: Option<IpAddr>) -> Trust {
        let is_named = self.networks.iter().flatten().any(|network| network.contains(source));
        match (is_named, self.direct) {
            (true, _) => Trust::Proxy,
            (false, true) => Trust::Direct,
            (false, false) => Trust::Refused,
        }
    }
}

impl<T: AsRef<str>, const N: usize> From<[T; N]> for ProxyProtocol {
    fn from(texts: [T; N]) -> Self {
        Self::of(&texts)
    }
}

impl<T: AsRef<str>> From<&[T]> for ProxyProtocol {
    fn from(texts: &[T]) -> Self {
        Self::of(texts)
    }
}

impl<T: AsRef<str>> From<Vec<T>> for ProxyProtocol {
    fn from(texts: Vec<T>) -> Self {
        Self::of(&texts)
    }
}

impl Network {
    fn contains(&self, source: Option<IpAddr>) -> bool {
        match (*self, source.map(|ip| ip.to_canonical())) {
            (Self::Unix, None) => true,
            (Self::V4(base, bits), Some(IpAddr::V4(ip))) => (u32::from(base) ^ u32::from(ip)) & mask_v4(bits) == 0,
            (Self::V6(base, bits), Some(IpAddr::V6(ip))) => (u128::from(base) ^ u128::from(ip)) & mask_v6(bits) == 0,
            _ => false,
        }
    }
}

fn mask_v4(bits: u32) -> u32 {
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

fn mask_v6(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// Parses one network. The error names the text, and says what to write.
fn network(text: &str) -> std::result::Result<Network, String> {
    if text == "unix:" {
        return Ok(Network::Unix);
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(ip) = address.parse::<IpAddr>() else {
        return Err(format!("{text:?} is no network; write an address, 10.0.0.0/8, fd00::/8, or unix:"));
    };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => longest,
        Some(bits) => match bits.parse() {
            Ok(number) if number <= longest && bits.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(format!("{text:?} has no prefix length from 0 to {longest} after the slash")),
        },
    };
    let base = match ip {
        IpAddr::V4(ip) => IpAddr::from(Ipv4Addr::from(u32::from(ip) & mask_v4(bits))),
        IpAddr::V6(ip) => IpAddr::from(Ipv6Addr::from(u128::from(ip) & mask_v6(bits))),
    };
    if base != ip {
        return Err(format!("{text:?} has bits after its prefix; write {base}/{bits}, or {ip} for one address"));
    }
    // A listener on both families shows IPv4 clients as ::ffff:a.b.c.d.
    Ok(match (base, base.to_canonical()) {
        (IpAddr::V6(_), IpAddr::V4(ip)) if bits >= 96 => Network::V4(ip, bits - 96),
        (IpAddr::V6(ip), _) => Network::V6(ip, bits),
        (IpAddr::V4(ip), _) => Network::V4(ip, bits),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(networks: &[&str], source: &str) -> bool {
        ProxyProtocol::from(networks).trust(source.parse().ok()) == Trust::Proxy
    }

    #[test]
    fn a_network_has_its_addresses_and_no_other() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::1", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
        ] {
            assert!(trusts(&[network], inside), "{inside} in {network}");
            assert!(!trusts(&[network], outside), "{outside} in {network}");
        }
        assert!(trusts(&["0.0.0.0/0"], "203.0.113.9") && !trusts(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(trusts(&["::/0"], "2001:db8::1") && trusts(&["192.0.2.1", "::1"], "::1"));
    }

    #[test]
    fn unix_sockets_are_named_apart() {
        assert_eq!(ProxyProtocol::from(["unix:"]).trust(None), Trust::Proxy);
        assert_eq!(ProxyProtocol::from(["0.0.0.0/0", "::/0"]).trust(None), Trust::Refused);
        assert_eq!(ProxyProtocol::from(["::/0"]).or_direct().trust(None), Trust::Direct);
    }

    #[test]
    fn a_text_that_is_no_network_is_named_with_what_to_write() {
        for (text, advice) in [
            ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1 for one address"),
            ("10.0.0.0/33", "no prefix length from 0 to 32"),
            ("fd00::/129", "no prefix length from 0 to 128"),
            ("10.0.0.0/", "no prefix length"),
            ("10.0.0.0/+8", "no prefix length"),
            ("10.0.0/8", "write an address, 10.0.0.0/8, fd00::/8, or unix:"),
            ("proxy.example", "is no network"),
            ("", "is no network"),
        ] {
            let proxies = ProxyProtocol::from(["::1", text]);
            let fault = proxies.check().unwrap_err().to_string();
            assert!(fault.contains(&format!("{text:?}")) && fault.contains(advice), "{text:?}: {fault}");
            assert_eq!(proxies.trust("::1".parse().ok()), Trust::Refused, "nobody is trusted by mistake");
        }
        assert!(ProxyProtocol::from(Vec::<String>::new()).check().is_err());
    }
}
