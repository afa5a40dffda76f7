//! Unix sockets: whose file it is, and when it goes.

use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use crate::kit::{read_all, serve, strategies, until, Folder, Lines, LONG};
use socketserver::{Addr, Error, ServerBuilder};

fn ask(path: &Path, text: &str) -> String {
    talk(UnixStream::connect(path).unwrap(), text)
}

fn talk(mut client: UnixStream, text: &str) -> String {
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&mut client)
}

#[test]
fn a_path_is_served_and_its_file_goes_with_the_server() {
    for (name, strategy) in strategies() {
        let folder = Folder::new();
        let path = folder.path("s");
        let server = ServerBuilder::new().strategy(strategy).bind_unix(&path, Lines).unwrap();
        assert_eq!(*server.local_addr(), Addr::Unix(path.clone()));
        let server = serve(server);
        for _ in 0..10 {
            assert_eq!(ask(&path, "hello\n"), "hello\n", "{name}");
        }
        assert_eq!(server.stop().served, 10, "{name}");
        assert!(!path.exists(), "{name}");
    }
}

#[test]
fn a_dead_socket_s_file_is_replaced() {
    let folder = Folder::new();
    let path = folder.path("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    // Other tests start programs, which have a copy of every descriptor between fork and exec.
    until("the socket is nobody's", || UnixStream::connect(&path).is_err());
    let server = serve(ServerBuilder::new().bind_unix(&path, Lines).unwrap());
    assert_eq!(ask(&path, "hello\n"), "hello\n");
    drop(server);
}

#[test]
fn a_living_server_s_file_is_not_stolen() {
    let folder = Folder::new();
    let path = folder.path("s");
    let living = serve(ServerBuilder::new().bind_unix(&path, Lines).unwrap());
    assert_in_use(ServerBuilder::new().bind_unix(&path, Lines).unwrap_err());
    assert_eq!(ask(&path, "still here\n"), "still here\n");
    drop(living);
}

fn assert_in_use(error: Error) {
    let in_use = |e: &Error| matches!(e, Error::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse);
    assert!(in_use(&error), "{error}");
}

#[test]
fn a_file_that_has_been_replaced_is_not_removed() {
    let folder = Folder::new();
    let path = folder.path("s");
    let server = ServerBuilder::new().bind_unix(&path, Lines).unwrap();
    fs::rename(&path, folder.path("aside")).unwrap(); // keeps its inode from being used again
    let heir = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
    UnixStream::connect(&path).unwrap();
    drop(heir);
}

#[test]
fn the_file_of_a_socket_taken_over_stays_its_maker_s() {
    let folder = Folder::new();
    let path = folder.path("s");
    let server = ServerBuilder::new().from_listener(UnixListener::bind(&path).unwrap(), Lines).unwrap();
    let server = serve(server);
    assert_eq!(ask(&path, "hello\n"), "hello\n");
    drop(server);
    assert!(path.exists());
}

#[test]
fn abstract_names_need_no_file() {
    let name = format!("socketserver-test-{}", std::process::id());
    let server = ServerBuilder::new().bind(format!("unix:@{name}"), Lines).unwrap();
    assert_eq!(*server.local_addr(), Addr::Abstract(name.clone().into_bytes()));
    let server = serve(server);
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    assert_eq!(talk(UnixStream::connect_addr(&addr).unwrap(), "hello\n"), "hello\n");
    assert_eq!(server.stop().served, 1);
}

#[test]
fn a_unix_path_and_a_tcp_address_share_a_server() {
    let folder = Folder::new();
    let path = folder.path("s");
    let server = ServerBuilder::new().listen(path.as_path()).bind_tcp("127.0.0.1:0", Lines).unwrap();
    let server = serve(server);
    assert_eq!((ask(&path, "unix\n"), server.ask("tcp\n")), ("unix\n".to_owned(), "tcp\n".to_owned()));
    assert_eq!(server.stop().served, 2);
}
