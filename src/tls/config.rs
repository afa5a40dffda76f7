//! [`TlsConfig`]: the certificates of a server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::server::WebPkiClientVerifier;
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use super::files;
use super::provider::{digest, provider};
use super::tickets::{Tickets, ROTATION};
use crate::error::{Error, Result, TlsFault};

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// A client without a certificate is refused in the handshake.
    Required,
    /// A client may show one. [`TlsInfo::peer_certificates`](crate::TlsInfo::peer_certificates) tells if it has. One
    /// that does not verify is refused.
    Optional,
}

/// A server's certificate and key, and what else its TLS needs. Give it to
/// [`ServerBuilder::tls`](crate::ServerBuilder::tls), or to [`Connection::start_tls`](crate::Connection::start_tls).
///
/// A clone is the same configuration: keep one to [`reload`](Self::reload) a renewed certificate. Clients agree upon TLS
/// 1.3 or 1.2 with forward secrecy; older versions, compression and renegotiation do not exist in rustls. A client
/// resumes its session by a ticket for 6 to 12 hours, with every strategy, and in every process of the server.
///
/// ```no_run
/// use socketserver::{handler, ServerBuilder, TlsConfig};
///
/// let tls = TlsConfig::from_pem("cert.pem", "key.pem")?;
/// let mut server = ServerBuilder::new()
///     .tls(tls)
///     .bind_tcp("0.0.0.0:443", handler(|conn| conn.send_line("hello")))?;
/// server.serve_forever()?;
/// # Ok::<(), socketserver::Error>(())
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    /// `None`: the program has given what rustls needs.
    files: Option<Files>,
    current: Arc<RwLock<Current>>,
}

/// The files to read, now and at a reload.
#[derive(Debug, Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    clients: Option<(PathBuf, ClientAuth)>,
    alpn: Vec<Vec<u8>>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// `None` if the program has given its own.
    tickets: Option<Arc<Tickets>>,
}

impl TlsConfig {
    /// Reads a certificate and its key, two files in PEM. The certificate's file may have intermediate certificates
    /// after the server's own. The key is of PKCS #8, PKCS #1 or SEC 1, and not encrypted.
    ///
    /// Before [`Forking`](crate::Forking) or [`PreForking`](crate::PreForking) serve, make the value in the process that
    /// calls `serve_forever`. Tickets of one process then open in all of them.
    ///
    /// # Errors
    /// [`Error::TlsFile`] names the file, and says what to do. The file is missing, empty, no PEM, expired, not yet
    /// valid or encrypted, or the two do not belong together.
    pub fn from_pem(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self> {
        let (certificate, key) = (certificate.as_ref().to_owned(), key.as_ref().to_owned());
        let files = Files { certificate, key, clients: None, alpn: Vec::new() };
        let current = files.load(None)?;
        Ok(Self { files: Some(files), current: Arc::new(RwLock::new(current)) })
    }

    /// Takes a configuration of rustls, for what this type does not have. Examples: several certificates, chosen by
    /// the name that the client asks for (`ResolvesServerCert`), and a verifier of your own. It is used as it is,
    /// with its own tickets. It has no files, so [`reload`](Self::reload) fails: a resolver can change its
    /// certificates itself.
    ///
    /// This is the only place where a type of rustls appears. Its version is in `Cargo.toml` of this crate.
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        let current = Current { config, tickets: None };
        Self { files: None, current: Arc::new(RwLock::new(current)) }
    }

    /// Names the protocols above TLS (ALPN, RFC 7301), the preferred one first. A client that names others only is
    /// refused. [`TlsInfo::alpn`](crate::TlsInfo::alpn) tells which one was selected.
    #[must_use = "it returns the changed configuration"]
    pub fn alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: Vec<_> = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        let Current { config, tickets } = &*self.current.read();
        let (mut config, tickets) = (ServerConfig::clone(config), tickets.clone());
        config.alpn_protocols.clone_from(&names);
        if let Some(files) = &mut self.files {
            files.alpn = names;
        }
        // Its own from now on: a clone that was made before keeps its names.
        Self { files: self.files, current: Arc::new(RwLock::new(Current { config: Arc::new(config), tickets })) }
    }

    /// Asks clients for a certificate, signed by an authority in this PEM file.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem). [`Error::Setting`] after [`from_rustls`](Self::from_rustls).
    pub fn client_ca(self, authorities: impl AsRef<Path>, auth: ClientAuth) -> Result<Self> {
        let Some(mut files) = self.files else { return Err(no_files("client_ca")) };
        files.clients = Some((authorities.as_ref().to_owned(), auth));
        let current = files.load(self.current.read().tickets.as_deref())?;
        Ok(Self { files: Some(files), current: Arc::new(RwLock::new(current)) })
    }

    /// Reads the files again, and uses them for all handshakes from now on, in this process. Connections that exist are
    /// not touched, and sessions can still be resumed. Tickets from before a change of the client authorities are no
    /// longer taken.
    ///
    /// [`PreForking`](crate::PreForking) does this by itself at [`ServerHandle::reload`](crate::ServerHandle::reload) and
    /// SIGHUP: its master reads the files, and then replaces its workers one after another.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem): then the old certificate stays in use.
    pub fn reload(&self) -> Result<()> {
        let Some(files) = &self.files else { return Err(no_files("reload")) };
        let tickets = self.current.read().tickets.clone();
        let new = files.load(tickets.as_deref())?;
        *self.current.write() = new;
        Ok(())
    }

    /// Reads the files again, if there are any.
    pub(crate) fn reload_files(&self) -> Result<()> {
        self.files.as_ref().map_or(Ok(()), |_| self.reload())
    }

    /// Returns what new handshakes use.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().config.clone()
    }
}

fn no_files(name: &'static str) -> Error {
    Error::setting(name, "this TlsConfig was made by from_rustls and has no files; set it up in rustls's configuration")
}

impl Files {
    fn load(&self, tickets: Option<&Tickets>) -> Result<Current> {
        let chain = files::certificates(&self.certificate)?;
        let key = files::private_key(&self.key)?;
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| self.unfit(e))?;
        let (builder, context) = match &self.clients {
            None => (builder.with_no_client_auth(), [0; 32]),
            Some((path, auth)) => {
                let roots = files::authorities(path)?;
                let context = hash(&roots, *auth);
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                (builder.with_client_cert_verifier(verifier.build().map_err(|e| self.unfit(e))?), context)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|e| self.unfit(e))?;
        config.alpn_protocols.clone_from(&self.alpn);
        let tickets = match tickets {
            Some(tickets) => tickets.for_context(context),
            None => Tickets::new(ROTATION, context),
        };
        let tickets = Arc::new(tickets.map_err(Error::system("make keys for session tickets"))?);
        config.ticketer = tickets.clone();
        Ok(Current { config: Arc::new(config), tickets: Some(tickets) })
    }

    /// Returns the error of a pair of files that rustls does not take.
    fn unfit(&self, e: impl Into<Unfit>) -> Error {
        let fault = match e.into() {
            Unfit(Some(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)), _) => {
                TlsFault::Mismatch { certificate: self.certificate.clone() }
            }
            Unfit(_, text) => TlsFault::Damaged(text),
        };
        files::fault(&self.key, fault)
    }
}

/// An error of rustls, and its text.
struct Unfit(Option<rustls::Error>, String);

impl From<rustls::Error> for Unfit {
    fn from(e: rustls::Error) -> Self {
        let text = e.to_string();
        Self(Some(e), text)
    }
}

impl From<rustls::server::VerifierBuilderError> for Unfit {
    fn from(e: rustls::server::VerifierBuilderError) -> Self {
        Self(None, e.to_string())
    }
}

/// Returns a hash of the authorities that a server trusts. Tickets are bound to it.
fn hash(roots: &RootCertStore, auth: ClientAuth) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&[auth as u8]);
    for root in &roots.roots {
        context.update(&root.subject);
        context.update(&root.subject_public_key_info);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Without a certificate, and above all without a key.
impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").field("files", &self.files).finish_non_exhaustive()
    }
}
