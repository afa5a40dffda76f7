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
        use socketserver::tls::ClientAuth;
        use socketserver::TlsConfig;

        let [cert, key, ca] = ["tls-cert", "tls-key", "tls-client-ca"].map(|name| self.get::<String>(name));
        let config = match (cert, key, ca) {
            (None, None, None) => return builder,
            (Some(cert), Some(key), None) => TlsConfig::from_pem(cert, key),
            (Some(cert), Some(key), Some(ca)) => {
                TlsConfig::from_pem(cert, key).and_then(|config| config.client_ca(ca, ClientAuth::Required))
            }
            _ => fail("TLS wants both --tls-cert FILE and --tls-key FILE"),
        };
        builder.tls(config.unwrap_or_else(|e| fail(e)))
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
