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

/// The versions that [`TlsInfo::version`] may name.
const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];

impl TlsInfo {
    /// Returns it as bytes, which a forked child writes for its parent. Certificates are too large for that.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let version = VERSIONS.iter().position(|version| *version == self.version).unwrap_or(1);
        let mut bytes = vec![version as u8, u8::from(self.resumed)];
        let texts =
            [Some(self.cipher.as_bytes()), self.alpn.as_deref(), self.server_name.as_ref().map(String::as_bytes)];
        for text in texts {
            // An ALPN and a name have 255 bytes at most (RFC 7301, RFC 1035). 255 stands for none, so one byte less.
            let text = text.map(|text| &text[..text.len().min(254)]);
            bytes.push(text.map_or(255, |text| text.len() as u8));
            bytes.extend_from_slice(text.unwrap_or_default());
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) has written. `None` for any other bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([version, resumed], mut rest) = (bytes.get(..2)?, bytes.get(2..)?) else { return None };
        let mut next = || -> Option<Option<Vec<u8>>> {
            let (length, more) = rest.split_first()?;
            let length = if *length == 255 { 0 } else { usize::from(*length) };
            let text = more.get(..length)?;
            let is_there = rest.first() != Some(&255);
            rest = more.get(length..)?;
            Some(is_there.then(|| text.to_vec()))
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Some(Self {
            version: VERSIONS.get(usize::from(*version))?,
            cipher: text(next()?.unwrap_or_default()),
            alpn: next()?,
            server_name: next()?.map(text),
            resumed: *resumed != 0,
            peer_certificates: Vec::new(),
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_writes_is_what_the_parent_reads() {
        let all = TlsInfo {
            version: "TLSv1.2",
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            alpn: Some(b"h2".to_vec()),
            server_name: Some("localhost".to_owned()),
            resumed: true,
            peer_certificates: Vec::new(),
        };
        let little = TlsInfo { version: "TLSv1.3", alpn: None, server_name: None, resumed: false, ..all.clone() };
        let empty = TlsInfo { alpn: Some(Vec::new()), server_name: Some(String::new()), ..all.clone() };
        for info in [all, little, empty] {
            let bytes = info.to_bytes();
            assert_eq!(TlsInfo::from_bytes(&bytes), Some(info));
            // A child that was taken over may write anything.
            (0..bytes.len()).for_each(|n| assert_eq!(TlsInfo::from_bytes(&bytes[..n]), None));
        }
        let long = vec![b'x'; 255];
        let info = TlsInfo { alpn: Some(long.clone()), ..TlsInfo::from_bytes(&[1, 0, 255, 255, 255]).unwrap() };
        assert_eq!(TlsInfo::from_bytes(&info.to_bytes()).unwrap().alpn.as_deref(), Some(&long[..254]));
        assert_eq!(TlsInfo::from_bytes(&[2, 0, 255, 255, 255]), None);
    }
}
