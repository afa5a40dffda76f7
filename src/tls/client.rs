//! [`TlsClientConfig`]: what a client trusts, and the certificate that it shows.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

use super::files;
use super::provider::provider;
use crate::error::{Error, Result, TlsFault};

/// What a client of TLS needs: the authorities that it trusts. Give it to
/// [`Connect::tls`](crate::event_loop::Connect::tls) or to [`Transport::start_tls_client`](crate::Transport::start_tls_client).
///
/// The server's certificate must be signed by such an authority, and name the server. There is no way to switch that
/// off, except by a verifier of your own in [`from_rustls`](Self::from_rustls). A clone is cheap, and shares the tickets
/// by which sessions are resumed.
#[derive(Clone)]
pub struct TlsClientConfig(Arc<ClientConfig>);

impl TlsClientConfig {
    /// Trusts the authorities of this system, as browsers do: those of its certificate store, or of the files that
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` name. It reads about 150 certificates, so make it once.
    ///
    /// # Errors
    /// [`Error::System`] if the system has none: install the package `ca-certificates`.
    pub fn system_roots() -> Result<Self> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map_or("none is there".to_owned(), ToString::to_string);
            let source = io::Error::new(io::ErrorKind::NotFound, format!("{why}; install ca-certificates"));
            return Err(Error::system("read the system's certificate authorities")(source));
        }
        Self::with(roots)
    }

    /// Trusts the authorities in this PEM file, and no others.
    ///
    /// # Errors
    /// [`Error::TlsFile`], as for [`TlsConfig::from_pem`](crate::TlsConfig::from_pem).
    pub fn roots_from_pem(authorities: impl AsRef<Path>) -> Result<Self> {
        Self::with(files::authorities(authorities.as_ref())?)
    }

    /// Takes a configuration of rustls, as it is.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }

    /// Names the protocols above TLS (ALPN), the preferred one first.
    #[must_use = "it returns the changed configuration"]
    pub fn alpn<N: AsRef<[u8]>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter().map(|name| name.as_ref().to_vec()).collect();
        Arc::make_mut(&mut self.0).alpn_protocols = names;
        self
    }

    /// Shows this certificate to servers that ask for one. Both files are PEM.
    ///
    /// # Errors
    /// [`Error::TlsFile`], as for [`TlsConfig::from_pem`](crate::TlsConfig::from_pem).
    pub fn certificate(mut self, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self> {
        let (chain, key_path) = (files::certificates(certificate.as_ref())?, key.as_ref());
        let key = files::private_key(key_path)?;
        let own = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).map_err(|e| {
            let fault = match e {
                rustls::Error::InconsistentKeys(_) => {
                    TlsFault::Mismatch { certificate: certificate.as_ref().to_owned() }
                }
                e => TlsFault::Damaged(e.to_string()),
            };
            files::fault(key_path, fault)
        })?;
        let resolver = rustls::sign::SingleCertAndKey::from(own);
        Arc::make_mut(&mut self.0).client_auth_cert_resolver = Arc::new(resolver);
        Ok(self)
    }

    fn with(roots: RootCertStore) -> Result<Self> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|e| Error::system("set up TLS")(io::Error::other(e)))?;
        Ok(Self(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
    }

    pub(super) fn get(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

/// Reads the name of a server, which its certificate must have.
pub(super) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let why = format!("{name:?} is no name of a server that a certificate could have; give one by server_name");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

impl fmt::Debug for TlsClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClientConfig")
    }
}
