//! Why an attempt to connect failed.

use std::time::Duration;
use std::{fmt, io};

use crate::event_loop::clients::connect::Connector;
use crate::net::{Addr, Address};

/// A failed attempt to connect, for [`Factory::connection_failed`](crate::event_loop::Factory::connection_failed). It
/// displays as one line with the address, the act, the system's answer, and what to do.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// The client that made the attempt.
    pub connector: Connector,
    /// The address, as the program wrote it.
    pub address: Address,
    /// Why the attempt failed; for a name with several addresses, the result of the last one.
    pub reason: ConnectFailure,
    /// The addresses that were tried before the last one, with their results.
    pub tried: Vec<(Addr, io::Error)>,
    /// The delay before the next automatic attempt; `None` if there is none.
    pub retry_in: Option<Duration>,
}

/// Why an attempt to connect failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// The name could not be resolved; with the kind `TimedOut`, not in the attempt's time.
    Resolve(io::Error),
    /// No server listens there (`ECONNREFUSED`; for a Unix socket `ENOENT` as well).
    Refused(io::Error),
    /// There was no answer within this time. The kernel may have given up earlier (`ETIMEDOUT`).
    TimedOut(Duration),
    /// The program or the loop's shutdown has stopped the attempt. Do not connect again then: a loop that drains
    /// The handshake of TLS failed. Of several addresses, no other is tried. The error of rustls is inside: a certificate
    /// that is not trusted or names another server, or nothing to agree upon.
    Tls(io::Error),
    /// refuses each client with this error, after 100 ms.
    Stopped,
    /// The system refused.
    System {
        /// The act that failed.
        act: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl ConnectFailure {
    /// Makes the failure of an act. `spent` is the time since the attempt began.
    pub(crate) fn of(act: &'static str, source: io::Error, spent: Duration) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Self::Refused(source),
            io::ErrorKind::TimedOut => Self::TimedOut(spent),
            _ => Self::System { act, source },
        }
    }
}

/// Returns what a person can do about the error.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "it is the socket file's mode, or a firewall, that forbids it",
        io::ErrorKind::AddrNotAvailable => {
            "no local address or port is left for it; check the local address, or the number of connections"
        }
        io::ErrorKind::InvalidInput => "an address is HOST:PORT, [IPV6]:PORT, unix:PATH or unix:@NAME",
        io::ErrorKind::WouldBlock => "the server does not accept; its queue is full",
        _ => match source.raw_os_error() {
            Some(nix::libc::EMFILE | nix::libc::ENFILE) => "the limit on descriptors (RLIMIT_NOFILE) is too low",
            Some(nix::libc::ENETUNREACH | nix::libc::EHOSTUNREACH) => "check the address and this machine's routes",
            Some(nix::libc::EPROTOTYPE) => "it is a socket of another kind",
            _ => "see the system's answer",
        },
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match &self.reason {
            ConnectFailure::Resolve(e) => {
                write!(f, "cannot resolve {address}: {e}; check the name, or give an IP address")?;
            }
            ConnectFailure::Refused(e) => {
                write!(f, "cannot connect to {address}: {e}; no server listens there: start it, or check the address")?;
            }
            ConnectFailure::TimedOut(after) => {
                write!(
                    f,
                    "cannot connect to {address}: no answer within {after:?}; check that it is up and reachable"
                )?;
            }
            ConnectFailure::Tls(e) => {
                write!(
                    f,
                    "cannot begin TLS with {address}: {e}; check the server's certificate, its name and the authorities"
                )?;
            }
            ConnectFailure::Stopped => write!(f, "cannot connect to {address}: the program has stopped it")?,
            ConnectFailure::System { act, source } => {
                write!(f, "cannot {act} {address}: {source}; {}", hint(source))?;
            }
        }
        for (addr, e) in &self.tried {
            write!(f, "; before that {addr}: {e}")?;
        }
        match self.retry_in {
            Some(delay) => write!(f, "; next attempt in {delay:.1?}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            ConnectFailure::Resolve(e) | ConnectFailure::Refused(e) | ConnectFailure::Tls(e) => Some(e),
            ConnectFailure::System { source, .. } => Some(source),
            ConnectFailure::TimedOut(_) | ConnectFailure::Stopped => None,
        }
    }
}
