//! TLS by rustls: certificates, tickets, and the session of one connection.
//!
//! [`TlsConfig`] names the files of a server, [`TlsInfo`] says what a handshake has agreed upon. Both are at the crate's
//! root too. [`TlsClientConfig`] is for clients of an event loop. They exist with the feature `tls`, or `tls-ring`.

// A session answers as a socket does: `recv` and `send` return partial counts and `WouldBlock`. So limits, stops, drains
// and queues hold for TLS without a change: `connection::Wire` and `event_loop::Io` ask the session instead of the
// kernel. It is no public trait. That would freeze the contract of waits and deadlines for one implementer.
//
// Without a TLS feature there is a session too, which nobody can make. Its calls compile to nothing.

#[cfg(not(feature = "__tls"))]
mod absent;
#[cfg(feature = "__tls")]
mod client;
#[cfg(feature = "__tls")]
mod config;
#[cfg(feature = "__tls")]
mod files;
#[cfg(feature = "__tls")]
mod info;
#[cfg(feature = "__tls")]
mod provider;
#[cfg(feature = "__tls")]
mod session;
mod stream;
#[cfg(feature = "__tls")]
mod tickets;
#[cfg(feature = "__tls")]
mod validity;

#[cfg(not(feature = "__tls"))]
pub(crate) use absent::{Session, TlsClientConfig, TlsConfig, TlsInfo};
#[cfg(feature = "__tls")]
pub use client::TlsClientConfig;
#[cfg(feature = "__tls")]
pub use config::{ClientAuth, TlsConfig};
#[cfg(feature = "__tls")]
pub use info::TlsInfo;
#[cfg(feature = "__tls")]
pub(crate) use session::Session;

pub(crate) use stream::Ciphertext;

/// The fatal alert `internal_error` as a record of its own. A client that is refused before its handshake reads it,
/// where a text would look like a wrong version of TLS (RFC 8446, section 6).
pub(crate) const ALERT_INTERNAL_ERROR: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

/// The fatal alert `access_denied`, for a client that `verify_request` refuses.
pub(crate) const ALERT_ACCESS_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Returns the error of STARTTLS with unread input.
#[cfg(feature = "__tls")]
pub(crate) fn injected() -> std::io::Error {
    let why = "input came before the handshake: it would count as encrypted, so it may be an attack";
    std::io::Error::new(std::io::ErrorKind::InvalidData, crate::error::PeerFault::new(why))
}
