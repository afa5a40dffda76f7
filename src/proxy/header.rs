//! [`ProxyHeader`]: what a proxy has told of a connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::parse::{self, ProxyError};
use super::tlv::{self, Tlvs};

/// The header that a proxy has sent before the client's first byte.
/// [`Connection::proxy_header`](crate::Connection::proxy_header) and
/// [`Transport::proxy_header`](crate::Transport::proxy_header) return it.
///
/// The server believes the header, because the connection came from a network that
/// [`proxy_protocol`](crate::ServerBuilder::proxy_protocol) names. The header is as true as that proxy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    pub(super) version: u8,
    pub(super) is_local: bool,
    /// The client's address, and the address that it has connected to.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    /// The TLVs as they came. They are whole.
    pub(super) tlvs: Box<[u8]>,
    pub(super) proxy: Option<SocketAddr>,
    /// How long the server has waited for it.
    pub(super) waited: Duration,
}

impl ProxyHeader {
    /// Parses the first bytes of a connection. `Some` is the header, and its length in bytes. `None`: all so
    /// far belongs to a header, and more must come. A server does this by itself, see
    /// [`proxy_protocol`](crate::ServerBuilder::proxy_protocol); this is for code that reads elsewhere.
    ///
    /// It takes at most 107 bytes for version 1 and 4096 for version 2. [`proxy`](Self::proxy) is `None`.
    ///
    /// # Errors
    /// The reason, as soon as the bytes so far show that they begin no header.
    ///
    /// ```
    /// use socketserver::proxy::{ProxyError, ProxyHeader};
    ///
    /// let data = b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\nhello";
    /// let (header, length) = ProxyHeader::parse(data)?.unwrap();
    /// assert_eq!(header.client(), "203.0.113.9:56324".parse().ok());
    /// assert_eq!(&data[length..], b"hello");
    /// assert_eq!(ProxyHeader::parse(&data[..20])?, None);
    /// assert_eq!(ProxyHeader::parse(b"GET /"), Err(ProxyError::Signature));
    /// # Ok::<(), ProxyError>(())
    /// ```
    pub fn parse(data: &[u8]) -> Result<Option<(Self, usize)>, ProxyError> {
        parse::parse(data)
    }

    /// Returns the version of the protocol: 1 or 2.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// True if the proxy speaks for itself (the command LOCAL of version 2): a health check. Then
    /// [`client`](Self::client) is `None`, and the connection's peer is the proxy.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Returns the client's address. It is also the connection's `peer_addr()`. `None` if the proxy speaks
    /// for itself, or does not know its client (`UNKNOWN`, or a family that is not TCP).
    pub fn client(&self) -> Option<SocketAddr> {
        self.addresses.map(|(client, _)| client)
    }

    /// Returns the address that the client has connected to: one of the proxy's. `None` as for
    /// [`client`](Self::client).
    pub fn destination(&self) -> Option<SocketAddr> {
        self.addresses.map(|(_, destination)| destination)
    }

    /// Returns the address from which the proxy has connected. `None` if it came over a Unix socket.
    pub fn proxy(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// Returns the name that the client has asked for: TLS's server name, or HTTP's host. `None` if the proxy
    /// has not sent it, or if it is not UTF-8.
    pub fn authority(&self) -> Option<&str> {
        text(self.tlv(tlv::AUTHORITY))
    }

    /// Returns the proxy's name for this connection, of at most 128 bytes: for a log that both sides write
    /// (HAProxy's `unique-id-format`).
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(tlv::UNIQUE_ID)
    }

    /// Returns the application protocol that the client and the proxy have agreed on by ALPN, for example
    /// `b"h2"`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tlv(tlv::ALPN)
    }

    /// Returns what the proxy says about the client's TLS. `None` if it tells nothing (HAProxy tells it with
    /// `send-proxy-v2-ssl-cn`).
    pub fn tls(&self) -> Option<ProxyTls<'_>> {
        self.tlv(tlv::TLS).filter(|value| value.len() >= tlv::TLS_FIXED).map(ProxyTls)
    }

    /// Returns the value of the first TLV of this type: for types that have no method here, such as a cloud's
    /// own (0xE0 to 0xEF).
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        tlv::find(&self.tlvs, kind)
    }

    /// Iterates over all TLVs as they came: the type and the value. Version 1 has none.
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        Tlvs(&self.tlvs)
    }

    /// Makes a header that a child has told its parent, without TLVs.
    pub(crate) fn relayed(version: u8, is_local: bool, addresses: Option<(SocketAddr, SocketAddr)>) -> Self {
        Self { version, is_local, addresses, tlvs: Box::default(), proxy: None, waited: Duration::ZERO }
    }

    /// Notes where it has come from, and after which wait.
    pub(crate) fn received(&mut self, proxy: Option<SocketAddr>, waited: Duration) {
        (self.proxy, self.waited) = (proxy, waited);
    }

    /// Returns how long the server has waited for it. What follows in the greeting has the rest of the time.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}

/// What a proxy says about its client's TLS (`PP2_TYPE_SSL`).
#[derive(Debug, Clone, Copy)]
pub struct ProxyTls<'a>(&'a [u8]);

impl<'a> ProxyTls<'a> {
    /// True if the client has connected over TLS.
    pub fn is_used(&self) -> bool {
        self.flags() & 0x01 != 0
    }

    /// True if the client has shown a certificate, in this connection or in the session that it resumes.
    pub fn has_certificate(&self) -> bool {
        self.flags() & (0x02 | 0x04) != 0
    }

    /// True if the client has shown a certificate, and the proxy has verified it.
    pub fn is_verified(&self) -> bool {
        self.has_certificate() && self.0.get(1..tlv::TLS_FIXED).is_some_and(|result| result == [0; 4])
    }

    /// Returns the version of TLS, for example `TLSv1.3`.
    pub fn version(&self) -> Option<&'a str> {
        text(self.part(tlv::TLS_VERSION))
    }

    /// Returns the cipher, for example `TLS_AES_256_GCM_SHA384`.
    pub fn cipher(&self) -> Option<&'a str> {
        text(self.part(tlv::TLS_CIPHER))
    }

    /// Returns the common name of the client's certificate. Trust it only if
    /// [`is_verified`](Self::is_verified) is true. `None` if the proxy has not sent it, or if it is not
    /// UTF-8.
    pub fn common_name(&self) -> Option<&'a str> {
        text(self.part(tlv::TLS_COMMON_NAME))
    }

    fn flags(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn part(&self, kind: u8) -> Option<&'a [u8]> {
        tlv::find(self.0.get(tlv::TLS_FIXED..)?, kind)
    }
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(value?).ok()
}
