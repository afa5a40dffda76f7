//! For the examples that serve by TLS: the options, and what they ask for.

use socketserver::ServerBuilder;

use super::{fail, Args, Usage};

/// Options of TLS, see [`Args::tls`].
pub const TLS: &[Usage] = &[
    ("tls-cert FILE", "serve by TLS with this certificate, in PEM"),
    ("tls-key FILE", "its private key, in PEM"),
    ("tls-client-ca FILE", "serve only clients with a certificate that one of these authorities has signed"),
];

impl Args {
    /// Gives the server the certificate of the command line, if there is one.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    pub fn tls<S>(&self, builder: ServerBuilder<S>) -> ServerBuilder<S> {
        match self.tls_config() {
            Some(config) => builder.tls(config),
            None => builder,
        }
    }

    /// The certificate of the command line, for servers that begin TLS themselves.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    pub fn tls_config(&self) -> Option<socketserver::TlsConfig> {
        use socketserver::tls::ClientAuth;
        use socketserver::TlsConfig;

        let [cert, key, ca] = ["tls-cert", "tls-key", "tls-client-ca"].map(|name| self.get::<String>(name));
        let config = match (cert, key, ca) {
            (None, None, None) => return None,
            (Some(cert), Some(key), None) => TlsConfig::from_pem(cert, key),
            (Some(cert), Some(key), Some(ca)) => {
                TlsConfig::from_pem(cert, key).and_then(|config| config.client_ca(ca, ClientAuth::Required))
            }
            _ => fail("TLS wants both --tls-cert FILE and --tls-key FILE"),
        };
        Some(config.unwrap_or_else(|e| fail(e)))
    }

    /// As [`tls`](Self::tls). Without a certificate on the command line, it makes one for localhost with the
    /// `openssl` command. It lasts a day. Clients must be told not to check it.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    pub fn tls_always<S>(&self, builder: ServerBuilder<S>) -> ServerBuilder<S> {
        if TLS.iter().any(|(usage, _)| usage.split(' ').next().is_some_and(|name| self.has(name))) {
            return self.tls(builder);
        }
        builder.tls(self_signed().unwrap_or_else(|e| {
            fail(format!("no certificate for localhost could be made with openssl: {e}; give --tls-cert and --tls-key"))
        }))
    }

    /// Fails: this build has no TLS.
    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    pub fn tls_always<S>(&self, _: ServerBuilder<S>) -> ServerBuilder<S> {
        fail("this example wants a build with TLS: cargo run --features tls --example ...")
    }

    /// Fails if TLS is asked for, which this build does not have.
    #[cfg(not(any(feature = "tls", feature = "tls-ring")))]
    pub fn tls<S>(&self, builder: ServerBuilder<S>) -> ServerBuilder<S> {
        match TLS.iter().filter_map(|(usage, _)| usage.split(' ').next()).find(|name| self.has(name)) {
            Some(name) => fail(format!("--{name} wants a build with TLS: cargo run --features tls --example ...")),
            None => builder,
        }
    }
}

/// A certificate for localhost, made in a folder that only this user can read and that is gone afterwards.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
fn self_signed() -> Result<socketserver::TlsConfig, Box<dyn std::error::Error>> {
    use std::os::unix::fs::DirBuilderExt;

    let folder = std::env::temp_dir().join(format!("self_signed.{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    let made = std::process::Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost".split(' '),
        )
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out"])
        .args([cert.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
        .output();
    let config = made.map_err(Into::into).and_then(|made| match made.status.success() {
        true => Ok(socketserver::TlsConfig::from_pem(cert, key)?),
        false => Err(String::from_utf8_lossy(&made.stderr).trim().into()),
    });
    std::fs::remove_dir_all(&folder)?;
    config
}
