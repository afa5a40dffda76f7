//! PEM files: what is in them, and what is wrong with them.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::RootCertStore;

use super::validity::{day, validity};
use crate::error::{Error, Result, TlsFault};

/// Reads a chain of certificates, the server's own first.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| damaged(path, e))?;
    let Some(own) = chain.first() else {
        return Err(fault(path, TlsFault::NoCertificate));
    };
    let now = SystemTime::now();
    match validity(own) {
        None => Err(fault(path, TlsFault::Damaged("the certificate is malformed".into()))),
        Some((_, to)) if to < now => Err(fault(path, TlsFault::Expired { on: day(to) })),
        Some((from, _)) if from > now => Err(fault(path, TlsFault::NotYetValid { before: day(from) })),
        Some(_) => Ok(chain),
    }
}

/// Reads a private key.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let pem = read(path)?;
    // The old format encrypts under the usual label, and says so in a header.
    if contains(&pem, "-----BEGIN ENCRYPTED PRIVATE KEY-----") || contains(&pem, "Proc-Type: 4,ENCRYPTED") {
        return Err(fault(path, TlsFault::EncryptedKey));
    }
    let keys: Vec<_> = PrivateKeyDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| damaged(path, e))?;
    keys.into_iter().next().ok_or_else(|| fault(path, TlsFault::NoKey))
}

/// Reads the authorities that may have signed the certificates of peers.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore> {
    let pem = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| damaged(path, e))?).map_err(|e| damaged(path, e))?;
    }
    if roots.is_empty() {
        return Err(fault(path, TlsFault::NoCertificate));
    }
    Ok(roots)
}

/// Reads a file that should hold PEM.
fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|e| fault(path, TlsFault::Unreadable(e)))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(fault(path, TlsFault::Empty));
    }
    if !contains(&bytes, "-----BEGIN ") {
        return Err(fault(path, TlsFault::NotPem));
    }
    Ok(bytes)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    fault(path, TlsFault::Damaged(why.to_string()))
}

pub(super) fn fault(path: &Path, fault: TlsFault) -> Error {
    Error::TlsFile { path: path.to_owned(), fault }
}
