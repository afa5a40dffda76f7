//! The processor time that a TLS server takes: ours on threads and in a loop, and bare rustls with a thread for each
//! connection. All three serve the same client in turn, in one run, and the ratios to bare rustls are what counts.
//!
//! A command is a byte and a length of eight: `G` makes the server send this number of bytes, `P` receive them and answer one.

mod servers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const SERVERS: [&str; 3] = ["bare", "threading", "loop"];
const ROUNDS: usize = 5;
const HANDSHAKES: usize = 2000;
const BULK: u64 = 1 << 30;
const IDLE: usize = 300;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [server, certificate, key] => servers::run(server, Path::new(certificate), Path::new(key)),
        _ => drive(),
    }
}

/// A server in a process of its own. It ends with its standard input.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(name: &str, folder: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(name).arg(folder.join("cert.pem")).arg(folder.join("key.pem"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    /// User and system time in ticks, of all threads, those that have ended too (proc(5)).
    fn ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    fn memory_kib(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn connect(&self, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let socket = TcpStream::connect(&self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn command(stream: &mut impl Write, what: u8, bytes: u64) {
    let mut head = [what; 9];
    head[1..].copy_from_slice(&bytes.to_be_bytes());
    stream.write_all(&head).unwrap();
}

fn handshakes(server: &Server, config: &Arc<ClientConfig>) {
    for _ in 0..HANDSHAKES {
        let mut stream = server.connect(config);
        command(&mut stream, b'G', 1);
        stream.read_exact(&mut [0]).unwrap();
    }
}

fn send(server: &Server, config: &Arc<ClientConfig>) {
    let (mut stream, mut buffer, mut left) = (server.connect(config), vec![0; 1 << 16], BULK);
    command(&mut stream, b'G', BULK);
    while left > 0 {
        left -= stream.read(&mut buffer).unwrap() as u64;
    }
}

fn receive(server: &Server, config: &Arc<ClientConfig>) {
    let (mut stream, buffer) = (server.connect(config), vec![7; 1 << 16]);
    command(&mut stream, b'P', BULK);
    (0..BULK / buffer.len() as u64).for_each(|_| stream.write_all(&buffer).unwrap());
    stream.read_exact(&mut [0]).unwrap();
}

/// KiB for each idle connection, hands shaken and one byte exchanged.
fn idle(server: &Server, config: &Arc<ClientConfig>) -> f64 {
    let before = server.memory_kib();
    let crowd: Vec<_> = (0..IDLE)
        .map(|_| {
            let mut stream = server.connect(config);
            command(&mut stream, b'G', 1);
            stream.read_exact(&mut [0]).unwrap();
            stream
        })
        .collect();
    let grown = server.memory_kib().saturating_sub(before);
    drop(crowd);
    grown as f64 / IDLE as f64
}

fn drive() {
    let folder = certificate();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let config = |resumption| {
        let mut config = ClientConfig::builder().with_root_certificates(roots.clone()).with_no_client_auth();
        config.resumption = resumption;
        Arc::new(config)
    };
    let (full, resumed) = (config(Resumption::disabled()), config(Resumption::in_memory_sessions(8)));
    type Load<'a> = (&'a str, Arc<ClientConfig>, fn(&Server, &Arc<ClientConfig>));
    let loads: [Load<'_>; 4] = [
        ("full handshakes", full.clone(), handshakes),
        ("resumed handshakes", resumed, handshakes),
        ("sending 1 GiB", full.clone(), send),
        ("receiving 1 GiB", full.clone(), receive),
    ];
    let servers = SERVERS.map(|name| Server::start(name, &folder));
    println!("{:<20}{:>10}{:>16}{:>16}", "processor time", SERVERS[0], SERVERS[1], SERVERS[2]);
    for (name, config, load) in loads {
        let mut times = [const { Vec::new() }; SERVERS.len()];
        for _ in 0..ROUNDS {
            for (server, times) in servers.iter().zip(&mut times) {
                let before = server.ticks();
                load(server, &config);
                times.push(server.ticks() - before);
            }
        }
        let [bare, threading, event_loop] = times.map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2] as f64 * 10.0
        });
        println!(
            "{name:<20}{bare:>7} ms{threading:>9} ms {:.2}{event_loop:>9} ms {:.2}",
            threading / bare,
            event_loop / bare
        );
    }
    for (name, server) in SERVERS.iter().zip(&servers) {
        println!("idle connection, {name}: {:.1} KiB", idle(server, &full));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A certificate that the `openssl` command makes.
fn certificate() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("socketserver-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "30",
    ]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"]);
    assert!(openssl.current_dir(&folder).output().unwrap().status.success());
    folder
}
