//! The three servers, by their names.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socketserver::{factory, handler, Connection, EventLoop, HandlerResult, Protocol, ServerBuilder};
use socketserver::{TlsConfig, Transport};

static CHUNK: [u8; 1 << 16] = [7; 1 << 16];

/// Serves until the standard input ends.
pub fn run(name: &str, certificate: &Path, key: &Path) {
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    if name == "bare" {
        return bare(certificate, key);
    }
    let builder = ServerBuilder::new().tls(TlsConfig::from_pem(certificate, key).unwrap());
    if name == "loop" {
        let mut server =
            builder.strategy(EventLoop::new()).bind("127.0.0.1:0", factory(|_| Commands::default())).unwrap();
        println!("{}", server.local_addr());
        server.serve_forever().unwrap();
    } else {
        let mut server = builder.bind("127.0.0.1:0", handler(serve)).unwrap();
        println!("{}", server.local_addr());
        server.serve_forever().unwrap();
    }
}

/// rustls as its documentation has it, with tickets, on a thread for each connection.
fn bare(certificate: &Path, key: &Path) {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    for socket in listener.incoming().flatten() {
        let config = config.clone();
        thread::spawn(move || {
            let _ = socket.set_nodelay(true);
            let mut stream: StreamOwned<ServerConnection, TcpStream> =
                StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
            let _ = commands(&mut stream);
        });
    }
}

fn serve(conn: &mut Connection) -> HandlerResult {
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
