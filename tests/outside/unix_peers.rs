//! Who is at the other end of a Unix socket, and who may be.

use crate::kit;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::kit::{read_all, serve, strategies, Folder, LONG};
use crate::support::tool;
use socketserver::connection::PeerCredentials;
use socketserver::{factory, handler, EventLoop, HandlerResult, Protocol, ServerBuilder, Transport};

fn told(peer: Option<PeerCredentials>) -> String {
    peer.map_or("nobody".to_owned(), |p| format!("{} {} {}", p.pid, p.uid, p.gid))
}

fn telling() -> impl socketserver::StreamRequestHandler {
    handler(|conn| Ok(conn.write_all(told(conn.peer_credentials()?).as_bytes())?))
}

fn hear(path: &Path) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    read_all(&mut client)
}

/// This process, as a server sees it.
fn me() -> String {
    let process = fs::metadata("/proc/self").unwrap();
    format!("{} {} {}", std::process::id(), process.uid(), process.gid())
}

#[test]
fn a_handler_learns_process_user_and_group() {
    for (name, strategy) in strategies() {
        let folder = Folder::new();
        let builder = ServerBuilder::new().strategy(strategy).listen("127.0.0.1:0");
        let server = builder.bind_unix(folder.path("s"), telling()).unwrap();
        let tcp = server.local_addrs().find_map(socketserver::Addr::socket_addr).unwrap();
        let _server = serve(server);
        assert_eq!(hear(&folder.path("s")), me(), "{name}");
        assert_eq!(kit::ask(tcp, ""), "nobody", "{name}: TCP");
    }
}

struct Telling;

impl Protocol for Telling {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        let peer = told(transport.peer_credentials()?);
        transport.write(peer.as_bytes())?;
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn so_does_a_protocol() {
    let folder = Folder::new();
    let builder = ServerBuilder::new().strategy(EventLoop::new()).listen("127.0.0.1:0");
    let server = builder.bind_unix(folder.path("s"), factory(|_peer| Telling)).unwrap();
    let tcp = server.local_addrs().find_map(socketserver::Addr::socket_addr).unwrap();
    let _server = serve(server);
    assert_eq!(hear(&folder.path("s")), me());
    assert_eq!(kit::ask(tcp, ""), "nobody");
}

/// Connects as nobody, and prints what it hears.
const CLIENT: &str = "
import os, socket, sys
os.setgroups([]); os.setgid(65533); os.setuid(65534)
client = socket.socket(socket.AF_UNIX)
try:
    client.connect(sys.argv[1])
    heard = client.recv(100).decode()
    print('me' if heard == f'{os.getpid()} 65534 65533' else heard)
except PermissionError as e:
    print('EACCES' if e.errno == 13 else e)
";

#[test]
fn x9_another_user_is_told_or_kept_out_by_the_mode() {
    let Some(_) = tool("python3") else { return };
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return println!("skipped: only root can be another user");
    }
    for (mode, heard) in [(0o666, "me"), (0o600, "EACCES"), (0o660, "EACCES")] {
        let folder = Folder::new();
        let path = folder.path("s");
        let _server = serve(ServerBuilder::new().unix_mode(mode).bind_unix(&path, telling()).unwrap());
        let mut python = tool("python3").unwrap();
        let output = python.args(["-c", CLIENT]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), heard, "{output:?}");
        assert_eq!(hear(&path), me());
    }
}
