//! [`TlsInfo`]: the result of a handshake.

use rustls::{Connection, HandshakeKind, ProtocolVersion};

/// What a TLS handshake has agreed upon. It comes from [`Connection::tls`](crate::Connection::tls) and
/// [`Transport::tls`](crate::Transport::tls).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version, as OpenSSL writes it: `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite by its IANA name, for example `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The protocol that ALPN has selected, for example `h2`. `None` if one side has named none.
    pub alpn: Option<Vec<u8>>,
    /// The name of the server that the client has asked for (SNI). `None` at the client's own end.
    pub server_name: Option<String>,
    /// True if the client has resumed an earlier session, which saves the exchange of certificates.
    pub resumed: bool,
    /// The certificates that the peer has shown, as DER, its own first. They are verified. Empty if it has shown none.
    pub peer_certificates: Vec<Vec<u8>>,
}

impl TlsInfo {
    pub(super) fn of(tls: &Connection) -> Self {
        let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let server_name = match tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        Self {
            version: match tls.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            // rustls marks the suites of TLS 1.3 in their names.
            cipher: suite.replacen("TLS13_", "TLS_", 1),
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            server_name,
            resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_certificates: tls.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect(),
        }
    }
}
