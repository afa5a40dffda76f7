//! PEM files: what is in them, and what is wrong with them.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::RootCertStore;

use super::validity::{day, validity};
use crate::error::{Error, Result, TlsFault};

/// The most bytes of a file. The bundles of all public authorities have 250 KB.
const LARGEST: u64 = 4 << 20;

/// Reads a chain of certificates, the server's own first.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| broken_off(path, &e))?;
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
    let keys: Vec<_> =
        PrivateKeyDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|e| broken_off(path, &e))?;
    keys.into_iter().next().ok_or_else(|| fault(path, TlsFault::NoKey))
}

/// Reads the authorities that may have signed the certificates of peers.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore> {
    let pem = read(path)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| broken_off(path, &e))?).map_err(|e| damaged(path, e))?;
    }
    if roots.is_empty() {
        return Err(fault(path, TlsFault::NoCertificate));
    }
    Ok(roots)
}

/// Reads a file that should hold PEM. A device or a log file in its place must not fill the memory.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|e| fault(path, TlsFault::Unreadable(e)))?;
    if bytes.len() as u64 > LARGEST {
        return Err(fault(path, TlsFault::TooLarge));
    }
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

/// Says in words what rustls shows as numbers.
fn broken_off(path: &Path, why: &pem::Error) -> Error {
    match why {
        pem::Error::MissingSectionEnd { .. } => damaged(path, "a BEGIN line has no END line: the file is cut off"),
        pem::Error::IllegalSectionStart { .. } => damaged(path, "a BEGIN line is malformed"),
        other => damaged(path, other),
    }
}

pub(super) fn fault(path: &Path, fault: TlsFault) -> Error {
    Error::TlsFile { path: path.to_owned(), fault }
}
