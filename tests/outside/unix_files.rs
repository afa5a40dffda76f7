//! Socket files: which users may connect, from the first moment on, and what is never taken or removed (X9, X10).

use crate::support;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::kit::{read_all, serve, until, Folder, Lines, LONG};
use crate::support::{example, tool, Server};
use socketserver::{Error, ServerBuilder, TcpServer, Threading, UnixServer};

fn bind(path: &Path) -> Result<TcpServer<Lines, Threading>, Error> {
    ServerBuilder::new().bind_unix(path, Lines)
}

fn ask(path: &Path, text: &str) -> String {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    read_all(&mut client)
}

fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

fn mode(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|m| m.permissions().mode() & 0o7777)
}

fn kind(error: &Error) -> ErrorKind {
    match error {
        Error::Listen { source, .. } => source.kind(),
        other => panic!("{other}"),
    }
}

/// Leaves a dead socket.
fn leave_dead(path: &Path) {
    drop(UnixListener::bind(path).unwrap());
    assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    until_dead(path);
}

/// Other tests start programs: between fork and exec these have a copy of every descriptor.
fn until_dead(path: &Path) {
    until("the socket is nobody's", || {
        UnixDatagram::unbound().unwrap().connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_unix_server_is_the_same_type() {
    let folder = Folder::new();
    let path = folder.path("s");
    let server = serve(UnixServer::<Lines, Threading>::bind(path.to_str().unwrap(), Lines).unwrap());
    assert_eq!(ask(&path, "hello\n"), "hello\n");
    assert_eq!(mode(&path), Some(0o600));
    drop(server);
}

#[test]
fn x9_the_file_is_never_open_to_more_than_it_shall_be() {
    let folder = Folder::new();
    let path = folder.path("s");
    let (end, sees) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watcher = thread::spawn({
        let (path, end, sees) = (path.clone(), end.clone(), sees.clone());
        move || {
            let mut seen = Vec::new();
            while !end.load(SeqCst) {
                seen.extend(mode(&path));
                sees.store(!seen.is_empty(), SeqCst);
            }
            seen
        }
    });
    let mut bound = 0;
    until("500 have come and gone, and the watcher has seen some", || {
        drop(bind(&path).unwrap());
        bound += 1;
        bound >= 500 && sees.load(SeqCst)
    });
    end.store(true, SeqCst);
    let seen = watcher.join().unwrap();
    assert!(!seen.is_empty(), "the watcher has seen no file");
    assert!(seen.iter().all(|mode| *mode == 0o600), "{seen:?}");
}

#[test]
fn x9_the_mode_is_set_before_bind_and_listen_whatever_the_umask() {
    let Some(_) = tool("strace") else { return };
    for umask in ["000", "077", "777"] {
        let folder = Folder::new();
        let (path, trace) = (folder.path("s"), folder.path("trace"));
        let mut command = Command::new("strace");
        command.args(["-f", "-e", "trace=fchmod,bind,listen", "-o"]).arg(&trace);
        command.args(["sh", "-c", "umask \"$0\"; exec \"$@\"", umask]).arg(example("echo_server"));
        let server = Server::start_command(command, &format!("unix:{}", path.display()), &[]);
        assert_eq!(mode(&path), Some(0o600), "umask {umask}");
        assert_eq!(server.connect().ask("hello"), "hello");
        let trace = fs::read_to_string(&trace).unwrap();
        let at = |call: &str| trace.find(call).unwrap_or_else(|| panic!("no {call} in {trace}"));
        assert!(at("0600)") < at("bind(") && at("bind(") < at("listen("), "{trace}");
        drop(server);
    }
}

#[test]
fn x9_mode_and_owner_are_what_was_asked_for() {
    let folder = Folder::new();
    let path = folder.path("s");
    for asked in [0o666, 0o660, 0o600, 0o777, 0] {
        let server = ServerBuilder::new().unix_mode(asked).bind_unix(&path, Lines).unwrap();
        assert_eq!(mode(&path), Some(asked));
        drop(server);
    }
    if !is_root() {
        return println!("skipped: only root gives files away");
    }
    let server = ServerBuilder::new().unix_owner(65_534, 65_533).unix_mode(0o660).bind_unix(&path, Lines).unwrap();
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (65_534, 65_533, 0o660));
    drop(server);
    assert!(!path.exists());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

#[test]
fn a_mode_beyond_the_nine_bits_is_an_error() {
    let folder = Folder::new();
    let error = ServerBuilder::new().unix_mode(0o1777).bind_unix(folder.path("s"), Lines).unwrap_err();
    assert!(matches!(error, Error::Setting { name: "unix_mode", .. }), "{error}");
}

#[test]
fn an_owner_that_cannot_be_is_one_line_and_leaves_nothing() {
    let folder = Folder::new();
    let path = folder.path("s");
    let Some(mut setpriv) = tool("setpriv") else { return };
    if !is_root() {
        return println!("skipped: only root drops rights");
    }
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
    let exe = std::env::current_exe().unwrap();
    setpriv.args(["--reuid", "65534", "--clear-groups"]).arg(exe).env("SOCKETSERVER_GIVES", &path);
    let told =
        setpriv.args(["--exact", "unix_files::gives_its_file_to_root", "--ignored", "--nocapture"]).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    if !told.contains("error: ") {
        return println!("skipped: nobody may not run this test: {told}");
    }
    let line = told.lines().find_map(|l| l.split_once("error: ")).unwrap().1;
    for part in ["cannot change the owner of unix:", "(os error 1)", "CAP_CHOWN"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

/// What the test above runs as nobody.
#[test]
#[ignore = "a part of another test"]
fn gives_its_file_to_root() {
    let Some(path) = std::env::var_os("SOCKETSERVER_GIVES") else { return };
    let given = ServerBuilder::new().unix_owner(0, None).bind_unix(path, Lines);
    println!("\nerror: {}", given.unwrap_err());
}

#[test]
fn x10_whatever_else_stands_there_is_told_and_left() {
    let folder = Folder::new();
    let dead = folder.path("dead");
    leave_dead(&dead);
    fs::write(folder.path("file"), "precious").unwrap();
    fs::create_dir(folder.path("dir")).unwrap();
    let links = [("to-file", "file"), ("to-dead", "dead"), ("to-nothing", "nothing"), ("to-dir", "dir")];
    for (link, to) in links {
        symlink(folder.path(to), folder.path(link)).unwrap();
    }
    nix::unistd::mkfifo(&folder.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let named = [("file", "a regular file"), ("dir", "a folder"), ("fifo", "a named pipe")];
    let links = links.map(|(link, _)| (link, "a symbolic link"));
    for (name, what) in named.into_iter().chain(links) {
        let path = folder.path(name);
        let before = fs::symlink_metadata(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::AlreadyExists, "{error}");
        let line = error.to_string();
        assert!(
            line.contains(what) && line.contains(name) && line.contains("remove it if no program needs it"),
            "{line}"
        );
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()), "{name}");
        assert!(!lock_of(&path).exists(), "{name}");
    }
    assert!(dead.exists(), "a link was followed");
    assert!(!folder.path("nothing").exists());
    assert_eq!(fs::read_to_string(folder.path("file")).unwrap(), "precious");
}

#[test]
fn x10_another_program_s_socket_is_in_use_and_not_disturbed() {
    let folder = Folder::new();
    let (stream, datagram) = (folder.path("stream"), folder.path("datagram"));
    let theirs = UnixListener::bind(&stream).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let letters = UnixDatagram::bind(&datagram).unwrap();
    for path in [&stream, &datagram] {
        let error = bind(path).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::AddrInUse, "{error}");
        assert!(path.exists());
    }
    // Not even by a connection that nobody asked for.
    assert_eq!(theirs.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(letters);
    drop(theirs);
    until_dead(&stream);
    until_dead(&datagram);
    let server = serve(bind(&stream).unwrap());
    assert_eq!(ask(&stream, "now ours\n"), "now ours\n");
    drop(server);
    drop(bind(&datagram).unwrap());
}

#[test]
fn x10_of_servers_that_start_at_once_one_has_the_path() {
    const SERVERS: usize = 4;
    let folder = Folder::new();
    let path = folder.path("s");
    for round in 0..100 {
        leave_dead(&path);
        let (start, end) = (Barrier::new(SERVERS), Barrier::new(SERVERS));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let one = || {
                start.wait();
                let server = bind(&path);
                end.wait(); // nobody leaves before all have tried
                server.map(drop).map_err(|e| kind(&e))
            };
            let all: Vec<_> = (0..SERVERS).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "round {round}: {outcomes:?}");
        assert!(outcomes.iter().flat_map(|o| o.as_ref().err()).all(|e| *e == ErrorKind::AddrInUse), "{outcomes:?}");
        assert!(!path.exists() && !lock_of(&path).exists());
    }
}

#[test]
fn x10_of_servers_that_come_and_go_no_two_have_the_path() {
    let folder = Folder::new();
    let path = folder.path("s");
    let has_it = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let Ok(server) = bind(&path).inspect_err(|e| assert_eq!(kind(e), ErrorKind::AddrInUse, "{e}"))
                    else {
                        continue;
                    };
                    assert!(!has_it.swap(true, SeqCst), "two at once");
                    assert!(UnixStream::connect(&path).is_ok(), "its file is not there");
                    has_it.store(false, SeqCst);
                    drop(server);
                }
            });
        }
    });
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn x10_after_kill_9_the_path_is_free_at_once_though_children_live() {
    let folder = Folder::new();
    let addr = format!("unix:{}", folder.path("s").display());
    for strategy in ["forking", "threading", "event-loop"] {
        let mut killed = Server::start_at(&addr, "torture_server", &["--strategy", strategy]);
        let mut client = killed.connect();
        assert_eq!(client.ask("ECHO hello"), "hello");
        killed.signal("KILL");
        killed.ended();
        assert!(folder.path("s").exists());
        let mut next = Server::start_at(&addr, "torture_server", &["--strategy", strategy]);
        if strategy == "forking" {
            assert_eq!(client.ask("ECHO still served"), "still served"); // by the child that lives on
        }
        assert_eq!(next.ask("ECHO hello"), "hello");
        drop(client);
        next.term();
        assert!(!folder.path("s").exists() && !lock_of(&folder.path("s")).exists(), "{strategy}");
        drop(killed);
    }
}

#[test]
fn a_second_server_of_a_path_ends_at_once_with_one_line() {
    let folder = Folder::new();
    let addr = format!("unix:{}", folder.path("s").display());
    let first = Server::start_at(&addr, "echo_server", &[]);
    for example in ["echo_server", "forking_server"] {
        let second = support::run(example, &[&addr]);
        assert_eq!(second.status.code(), Some(1));
        let told = String::from_utf8(second.stderr).unwrap();
        assert_eq!(told.lines().count(), 1, "{told}");
        for part in [addr.as_str(), "(os error 98)", "another program listens there"] {
            assert!(told.contains(part), "{told}");
        }
    }
    assert_eq!(first.connect().ask("hello"), "hello");
}

#[test]
fn a_lock_file_that_is_none_is_told_and_left() {
    let folder = Folder::new();
    let (path, precious) = (folder.path("s"), folder.path("precious"));
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, lock_of(&path)).unwrap();
    let is_told = |what: &str| {
        let error = bind(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("its lock file is {what}; remove it")), "{error}");
        assert!(lock_of(&path).exists() && precious.exists() && !path.exists());
    };
    is_told("a symbolic link");
    fs::remove_file(lock_of(&path)).unwrap();
    fs::create_dir(lock_of(&path)).unwrap();
    is_told("a folder");
    fs::remove_dir(lock_of(&path)).unwrap();
    let _socket = UnixListener::bind(lock_of(&path)).unwrap();
    is_told("a socket");
    fs::remove_file(lock_of(&path)).unwrap();
    fs::write(lock_of(&path), "").unwrap(); // left by a server that was killed
    drop(bind(&path).unwrap());
    assert!(!lock_of(&path).exists());
}

#[test]
fn a_relative_path_means_the_same_after_a_change_of_the_folder() {
    let folder = Folder::new();
    let other = folder.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("s"), "precious").unwrap();
    let exe = std::env::current_exe().unwrap();
    let mut child = Command::new(exe);
    child.args(["--exact", "unix_files::binds_here_and_drops_elsewhere", "--ignored"]).current_dir(folder.path("."));
    let ended = child.env("SOCKETSERVER_ELSEWHERE", &other).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(fs::read_to_string(other.join("s")).unwrap(), "precious");
    assert!(folder.path("was-bound").exists());
    until("nothing is left of it", || !folder.path("s").exists() && !folder.path("s.lock").exists());
}

/// What the test above runs in a folder of its own, which it changes.
#[test]
#[ignore = "a part of another test"]
fn binds_here_and_drops_elsewhere() {
    let Some(other) = std::env::var_os("SOCKETSERVER_ELSEWHERE") else { return };
    let server = ServerBuilder::new().bind("unix:s", Lines).unwrap();
    fs::rename("s.lock", "s.lock").unwrap(); // it is there
    fs::write("was-bound", "").unwrap();
    std::env::set_current_dir(other).unwrap();
    drop(server);
}
