//! TLS: servers that obey commands, and their clients. A command is a byte and a length of eight: `G` makes the server send
//! so many bytes, `P` receive them and answer one.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use socketserver::{factory, handler, Connection, EventLoop, HandlerResult, Protocol, ServerBuilder};
use socketserver::{TlsConfig, Transport};

use crate::load::Load;
use crate::{ours, peers};

static CHUNK: [u8; 1 << 16] = [7; 1 << 16];
const MIB: u64 = 1 << 20;

/// Serves until a signal ends the process. False if there is no such server.
pub fn serve(name: &str) -> bool {
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let builder = || ServerBuilder::new().handle_signals().tls(TlsConfig::from_pem(&certificate, &key).unwrap());
    match name {
        "`Threading`" => ours::run(builder(), handler(obey)),
        "`EventLoop`" => ours::run(builder().strategy(EventLoop::new()), factory(|_| Commands::default())),
        "rustls" => by_rustls(&certificate, &key),
        _ => return false,
    }
    true
}

/// rustls as its documentation has it, with tickets, on a thread for each connection.
fn by_rustls(certificate: &Path, key: &Path) {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let config = Arc::new(config);
    let listener = peers::bind();
    println!("{}", listener.local_addr().unwrap());
    for socket in listener.incoming().flatten() {
        let config = config.clone();
        thread::spawn(move || commands(&mut StreamOwned::new(ServerConnection::new(config).unwrap(), socket)));
    }
}

fn obey(conn: &mut Connection) -> HandlerResult {
    match commands(conn) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        done => Ok(done?),
    }
}

fn commands(stream: &mut (impl Read + Write)) -> std::io::Result<()> {
    // Made by those that receive: an idle connection has none.
    let mut buffer = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut left = u64::from_be_bytes(head[1..].try_into().unwrap());
        while left > 0 {
            let part = left.min(CHUNK.len() as u64) as usize;
            buffer.resize(if head[0] == b'P' { CHUNK.len() } else { 0 }, 0);
            left -= match head[0] {
                b'G' => stream.write_all(&CHUNK[..part]).map(|()| part)?,
                _ => stream.read(&mut buffer[..part])?,
            } as u64;
        }
        if head[0] == b'P' {
            stream.write_all(b"k")?;
        }
        stream.flush()?;
    }
}

/// The same as a protocol.
#[derive(Default)]
struct Commands {
    head: Vec<u8>,
    to_send: u64,
    to_receive: u64,
}

impl Protocol for Commands {
    fn data_received(&mut self, transport: &mut Transport<'_>, mut data: &[u8]) -> HandlerResult {
        while !data.is_empty() {
            if self.to_receive > 0 {
                let part = self.to_receive.min(data.len() as u64);
                self.to_receive -= part;
                data = &data[part as usize..];
                if self.to_receive == 0 {
                    transport.write(b"k")?;
                }
                continue;
            }
            let (head, rest) = data.split_at(data.len().min(9 - self.head.len()));
            self.head.extend_from_slice(head);
            data = rest;
            if self.head.len() == 9 {
                let length = u64::from_be_bytes(self.head[1..].try_into()?);
                *(if self.head[0] == b'G' { &mut self.to_send } else { &mut self.to_receive }) = length;
                self.head.clear();
                self.resume_writing(transport)?;
            }
        }
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        while self.to_send > 0 && !transport.is_writing_paused() {
            let part = self.to_send.min(CHUNK.len() as u64);
            transport.write(&CHUNK[..part as usize])?;
            self.to_send -= part;
        }
        Ok(())
    }
}

/// Goes on until then, and returns how many connections or MiB were served.
pub fn run(load: Load, address: &str, end: Instant) -> f64 {
    let config = client_config(load == Load::Resumption);
    let mut stream = connect(address, &config);
    let mut served = 0.0;
    while served < 1.0 || Instant::now() < end {
        match load {
            Load::Download => receive(&mut stream, MIB),
            Load::Upload => send(&mut stream, MIB),
            _ => {
                stream = connect(address, &config);
                receive(&mut stream, 1);
            }
        }
        served += 1.0;
    }
    served
}

/// A client that has received a byte.
pub fn idle(address: &str) -> Box<dyn Read> {
    let mut stream = connect(address, &client_config(false));
    receive(&mut stream, 1);
    Box::new(stream)
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: &str, config: &Arc<ClientConfig>) -> Stream {
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket)
}

fn receive(stream: &mut Stream, bytes: u64) {
    command(stream, b'G', bytes);
    assert_eq!(std::io::copy(&mut stream.take(bytes), &mut std::io::sink()).unwrap(), bytes);
}

fn send(stream: &mut Stream, bytes: u64) {
    command(stream, b'P', bytes);
    (0..bytes / CHUNK.len() as u64).for_each(|_| stream.write_all(&CHUNK).unwrap());
    stream.read_exact(&mut [0]).unwrap();
}

fn command(stream: &mut Stream, what: u8, bytes: u64) {
    let mut head = [what; 9];
    head[1..].copy_from_slice(&bytes.to_be_bytes());
    stream.write_all(&head).unwrap();
}

fn client_config(resumes: bool) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("cert.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = if resumes { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Arc::new(config)
}

/// The folder of a certificate, which the servers find by the environment. It is removed in the end.
pub struct Certificate(PathBuf);

const FOLDER: &str = "SOCKETSERVER_BENCH_CERTIFICATE";

fn path(file: &str) -> PathBuf {
    Path::new(&env::var_os(FOLDER).expect("the folder of a certificate")).join(file)
}

impl Certificate {
    /// By the `openssl` command.
    pub fn new() -> std::io::Result<Self> {
        let folder = Self(env::temp_dir().join(format!("socketserver-bench-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0)?;
        let mut openssl = Command::new("openssl");
        openssl.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30".split(' '));
        openssl.args("-subj /CN=localhost -addext subjectAltName=DNS:localhost".split(' '));
        openssl.args("-addext basicConstraints=critical,CA:FALSE -keyout key.pem -out cert.pem".split(' '));
        let output = openssl.current_dir(&folder.0).output()?;
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        env::set_var(FOLDER, &folder.0);
        Ok(folder)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
