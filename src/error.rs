//! [`Error`]: the errors of a server, as opposed to those of one connection.

use std::borrow::Cow;
use std::fmt;
use std::io;
#[cfg(feature = "__tls")]
use std::path::PathBuf;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The result of handlers and callbacks. `?` converts any error into it. Callbacks that return a value have a
/// `HandlerResult<T>`.
pub type HandlerResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// An error that the peer has caused: it has sent what the handler cannot take. It is logged at `debug`, because
/// every client can cause it, and counted as a [failure](crate::Stats::failed) and a
/// [fault of the peer](crate::Stats::peer_faults).
///
/// The library marks its own errors of this kind. Examples: a line that is too long or not UTF-8, a malformed frame,
/// a datagram whose sender cannot be replied to.
///
/// ```
/// use std::io::Write;
/// use socketserver::{Connection, HandlerResult, PeerFault};
///
/// fn double(conn: &mut Connection) -> HandlerResult {
///     while let Some(line) = conn.next_line()? {
///         let number: u32 = line.parse().map_err(PeerFault::new)?;
///         let twice = number.checked_mul(2).ok_or(PeerFault::new("too large"))?;
///         writeln!(conn, "{twice}")?;
///     }
///     Ok(())
/// }
/// # let (mut conn, mut client) = Connection::pair()?;
/// # client.write_all(b"21\nx\n")?;
/// # let error = double(&mut conn).unwrap_err();
/// # assert_eq!(error.to_string(), "invalid digit found in string");
/// # assert!(error.is::<PeerFault>());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A time limit or a lost connection inside stays one. It displays as the error inside.
#[derive(Debug)]
pub struct PeerFault(pub(crate) Box<dyn std::error::Error + Send + Sync>);

impl PeerFault {
    /// Marks an error, or a text, as the peer's fault.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }

    /// Returns the error inside.
    pub fn get_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for PeerFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Takes what the peer has sent as text. Its error is the peer's fault.
pub(crate) fn text_of_peer(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, PeerFault::new(e.utf8_error())))
}

/// The act of giving a Unix socket's file to another user, as an error names it. The error has a hint of its
/// own for it.
pub(crate) const CHANGE_OWNER: &str = "change the owner of";

/// The act of setting the mode of a Unix socket's file, as an error names it.
pub(crate) const SET_MODE: &str = "set the mode of";

/// The act of taking over a socket that was given, as an error names it.
pub(crate) const USE: &str = "use";

/// The act of [`ServerBuilder::serve_one`](crate::ServerBuilder::serve_one), as an error names it.
pub(crate) const SERVE_ONE: &str = "serve the connection";

/// Why a server could not be built, bound or kept serving.
///
/// [`Display`](fmt::Display) and [`Debug`] give one line that says what to do. So a
/// `fn main() -> socketserver::Result<()>` shows it:
///
/// ```
/// use socketserver::{handler, ServerBuilder};
///
/// let hello = || handler(|_conn| Ok(()));
/// let first = ServerBuilder::new().bind("127.0.0.1:0", hello())?;
/// let address = first.local_addr().to_string();
/// let error = ServerBuilder::new().bind(address, hello()).unwrap_err();
/// assert!(format!("{error:?}").ends_with("or choose another address"));
/// # Ok::<(), socketserver::Error>(())
/// ```
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense. It is a mistake of the program, found when the server is bound.
    Setting {
        /// The name of the method that sets it.
        name: &'static str,
        /// The fault of the value, and a right value.
        why: String,
    },
    /// An address could not be listened on.
    Listen {
        /// The act that failed: resolve, bind, listen on, …
        act: &'static str,
        /// The address as it was given.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Accepting failed, and waiting does not help (`EBADF`, `EINVAL`, `ENOTSOCK`, …).
    Accept {
        /// The address of the listener.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused another thing that the server needs.
    System {
        /// The act that failed.
        act: Cow<'static, str>,
        /// The system's answer.
        source: io::Error,
    },
    /// The worker processes of [`PreForking`](crate::PreForking) end before they are ready, again and again.
    Workers {
        /// The number of attempts in a row that have failed.
        failures: u32,
        /// How the last one ended, and its error text.
        cause: String,
    },
    /// [`Forking`](crate::Forking) or [`PreForking`](crate::PreForking) in a process with other threads. A
    /// child would find their locks locked for ever.
    Threads {
        /// The number of threads besides the serving one.
        others: u64,
    },
    /// A file of a [`TlsConfig`](crate::TlsConfig) cannot be used.
    #[cfg(feature = "__tls")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: TlsFault,
    },
    /// The program could not be [started anew](crate::ServerHandle::restart). This process serves on.
    Restart {
        /// The reason: what the successor has met, or why there is none.
        why: String,
    },
    /// [`ServerHandle::wait`](crate::ServerHandle::wait) was called in a handler of the same server. It would
    /// wait for itself.
    WaitInHandler,
}

/// What is wrong with a file for TLS. [`Display`](fmt::Display) says what to do.
#[cfg(feature = "__tls")]
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsFault {
    /// It cannot be read, with the system's answer.
    Unreadable(io::Error),
    /// It has no contents.
    Empty,
    /// It is not in the format PEM.
    NotPem,
    /// It has more than 4 MiB.
    TooLarge,
    /// It is PEM, and has no certificate.
    NoCertificate,
    /// It is PEM, and has no private key.
    NoKey,
    /// Its private key is encrypted with a passphrase.
    EncryptedKey,
    /// Its contents are malformed, or of a kind that is not supported.
    Damaged(String),
    /// Its certificate is no longer valid.
    Expired {
        /// The last day, as `2026-05-17`.
        on: String,
    },
    /// Its certificate is not valid yet.
    NotYetValid {
        /// The first day, as `2026-05-17`.
        before: String,
    },
    /// It is the private key of another certificate.
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
    },
}

#[cfg(feature = "__tls")]
impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(e) => write!(f, "{e}; check its path, and that this user may read it"),
            Self::Empty => f.write_str("the file is empty; write the PEM text into it"),
            Self::NotPem => f.write_str(
                "the file is not PEM; convert it, as by openssl x509 -inform der or openssl pkey -inform der",
            ),
            Self::TooLarge => f.write_str("it has more than 4 MiB; give the file that has the PEM text alone"),
            Self::NoCertificate => f.write_str(
                "no certificate is in it; give the file that has BEGIN CERTIFICATE, and the key as the other",
            ),
            Self::NoKey => f.write_str("no private key is in it; give the file that has BEGIN PRIVATE KEY"),
            Self::EncryptedKey => {
                f.write_str("the private key is encrypted; decrypt it by openssl pkey -in FILE -out PLAIN, mode 0600")
            }
            Self::Damaged(why) => write!(f, "the contents cannot be used: {why}; write the file anew"),
            Self::Expired { on } => write!(f, "the certificate has expired on {on}; renew it"),
            Self::NotYetValid { before } => {
                write!(f, "the certificate is not valid before {before}; check the clock, or wait")
            }
            Self::Mismatch { certificate } => {
                write!(f, "the key does not belong to the certificate {}; give the pair", certificate.display())
            }
        }
    }
}

impl Error {
    pub(crate) fn setting(name: &'static str, why: impl Into<String>) -> Self {
        Self::Setting { name, why: why.into() }
    }

    pub(crate) fn system(act: impl Into<Cow<'static, str>>) -> impl FnOnce(io::Error) -> Self {
        let act = act.into();
        move |source| Self::System { act, source }
    }
}

/// Returns a hint for people about an error of a listener.
fn hint(act: &str, source: &io::Error) -> &'static str {
    match source.kind() {
        _ if act == USE => "give a socket that is bound, and listens if it is for connections",
        _ if act == SERVE_ONE => "it is fd:0 as inetd gives it, or fd:3 as systemd does with Accept=yes",
        _ if act == CHANGE_OWNER => "another user's takes root's rights (CAP_CHOWN), a group's membership",
        io::ErrorKind::Unsupported if act == SET_MODE => "mount /proc, or choose a mode that the umask leaves as it is",
        io::ErrorKind::AlreadyExists => "remove it if no program needs it, or choose another path",
        io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another address",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, a socket file a writable folder; choose another address"
        }
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
        io::ErrorKind::NotFound => "the folder of the socket file does not exist",
        // What bind(2) says of a link-local address without its interface.
        io::ErrorKind::InvalidInput if act == "bind" && source.raw_os_error().is_some() => {
            "a link-local address needs its interface, as in [fe80::1%eth0]:80"
        }
        io::ErrorKind::InvalidInput => {
            "an address is HOST:PORT, [IPV6]:PORT, unix:PATH, unix:@NAME, fd:NUMBER or fd:NAME"
        }
        _ if source.raw_os_error().is_none() => "check the name, or give an IP address",
        _ => "see the system's answer",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, why } => write!(f, "{name}: {why}"),
            Self::Listen { act, address, source } => {
                write!(f, "cannot {act} {address}: {source}; {}", hint(act, source))
            }
            Self::Accept { address, source } => {
                write!(f, "cannot accept on {address}: {source}; the listener is unusable, bind it anew")
            }
            Self::System { act, source } => write!(f, "cannot {act}: {source}"),
            Self::Threads { others } => write!(
                f,
                "cannot fork: this process has {others} other threads, whose locks a child would find locked for ever; \
                 serve before starting threads (in after_fork, say), or see Forking::allow_threads"
            ),
            Self::Workers { failures, cause } => write!(
                f,
                "cannot start a worker: {failures} attempts in a row have failed, the last one {cause}; what a worker \
                 does before it serves must succeed: its bounds, its CPU affinity, after_fork"
            ),
            #[cfg(feature = "__tls")]
            Self::TlsFile { path, fault } => write!(f, "cannot use {} for TLS: {fault}", path.display()),
            Self::Restart { why } => write!(f, "cannot restart: {why}"),
            Self::WaitInHandler => {
                f.write_str("a handler cannot wait for the end of its own server; call shutdown() and return")
            }
        }
    }
}

/// The same line as [`Display`](fmt::Display): it is what `main` prints of an error.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Accept { source, .. } | Self::System { source, .. } => Some(source),
            #[cfg(feature = "__tls")]
            Self::TlsFile { fault: TlsFault::Unreadable(source), .. } => Some(source),
            #[cfg(feature = "__tls")]
            Self::TlsFile { .. } => None,
            Self::Setting { .. }
            | Self::Workers { .. }
            | Self::Threads { .. }
            | Self::Restart { .. }
            | Self::WaitInHandler => None,
        }
    }
}
