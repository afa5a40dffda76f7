//! Certificates for tests, made by the `openssl` command in a folder that goes with the value.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::tool;

/// An authority, a server's certificate for `localhost` and 127.0.0.1, and a client's.
pub struct Pki(PathBuf);

/// Keys of elliptic curves are made at once.
const KEY: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Pki {
    /// `None`, with a line that says so, on a system without `openssl`.
    pub fn make() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        tool("openssl")?;
        let name = format!("socketserver-pki-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let pki = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&pki.0).unwrap();
        let authority = ["req", "-x509", "-days", "100", "-subj", "/CN=Test Authority"];
        pki.openssl(&[&authority[..], KEY, &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
        pki.sign("server");
        pki.sign("client");
        Some(pki)
    }

    /// Makes `NAME.pem` and `NAME.key`, signed by the authority.
    pub fn sign(&self, name: &str) {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let leaf = ["req", "-x509", "-days", "100", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", &subject];
        let names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"];
        self.openssl(&[&leaf[..], &names, KEY, &["-keyout", &key, "-out", &pem]].concat());
    }

    /// Runs `openssl` in the folder.
    #[track_caller]
    pub fn openssl(&self, args: &[&str]) {
        let mut command = tool("openssl").unwrap();
        let ran = command.args(args).current_dir(&self.0).stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The options of an example that serves by TLS.
    pub fn options(&self) -> Vec<String> {
        ["--tls-cert", &self.file("server.pem"), "--tls-key", &self.file("server.key")].map(str::to_owned).to_vec()
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
