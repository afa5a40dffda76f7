//! A client of TLS whose bytes a test has in its hands: what it says, when, in which records, and how it ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::pki::Pki;
use super::{uninterrupted, LIMIT};

/// A configuration that trusts the test's authority.
pub fn trust(pki: &Pki) -> ClientConfig {
    builder(pki).with_no_client_auth()
}

/// The same, with the client's certificate.
pub fn trust_and_show(pki: &Pki) -> ClientConfig {
    let chain = CertificateDer::pem_file_iter(pki.file("client.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(pki.file("client.key")).unwrap();
    builder(pki).with_client_auth_cert(chain, key).unwrap()
}

fn builder(pki: &Pki) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}

/// A client that has shaken hands, or is about to.
pub struct TlsClient {
    pub tls: ClientConnection,
    pub tcp: TcpStream,
}

impl TlsClient {
    /// Connects and shakes hands.
    #[track_caller]
    pub fn connect(addr: SocketAddr, config: ClientConfig) -> Self {
        Self::connect_with(addr, &Arc::new(config)).unwrap()
    }

    /// The same with a configuration that keeps tickets. An error is that of the handshake.
    pub fn connect_with(addr: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        Self::over(TcpStream::connect(addr)?, config)
    }

    /// Shakes hands on a connection that has begun without TLS.
    pub fn over(tcp: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Self> {
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost").unwrap());
        let mut this = Self { tls: tls.unwrap(), tcp };
        while this.tls.is_handshaking() {
            this.tls.complete_io(&mut this.tcp)?;
        }
        Ok(this)
    }

    #[track_caller]
    pub fn say(&mut self, text: impl AsRef<[u8]>) {
        self.write_all(text.as_ref()).and_then(|()| self.flush()).unwrap();
    }

    /// Reads exactly this text.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        self.read_exact(&mut got).unwrap();
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    /// Reads to the server's close_notify.
    #[track_caller]
    pub fn read_all(&mut self) -> String {
        let mut got = String::new();
        self.read_to_string(&mut got).unwrap();
        got
    }

    /// The records of a text, which the test sends itself.
    pub fn sealed(&mut self, text: impl AsRef<[u8]>) -> Vec<u8> {
        self.tls.writer().write_all(text.as_ref()).unwrap();
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Says that its stream ends, and goes on reading.
    pub fn close_notify(&mut self) {
        self.tls.send_close_notify();
        self.flush().unwrap();
    }

    /// Ends its half of the connection without a word of TLS, as a cut does.
    pub fn cut(&mut self) {
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }
}

impl Read for TlsClient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| rustls::Stream::new(&mut self.tls, &mut self.tcp).read(buf))
    }
}

impl Write for TlsClient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp).flush()
    }
}
