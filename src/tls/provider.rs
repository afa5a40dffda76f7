//! The cryptography below rustls: aws-lc-rs with the feature `tls`, ring with `tls-ring` alone.
//!
//! The two crates have the same functions under the same names.

#[cfg(feature = "tls")]
pub(super) use aws_lc_rs::{aead, digest, hkdf, rand};
#[cfg(not(feature = "tls"))]
pub(super) use ring::{aead, digest, hkdf, rand};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// Returns the provider. It is named in every configuration: the process's default may be another crate's.
pub(super) fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "tls")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "tls"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}
