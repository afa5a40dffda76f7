//! Each connection in a sandbox of its own: its process can read one folder, and can neither open another file nor
//! connect nor execute. `cargo run -p sandboxed`, then `nc 127.0.0.1 1234`, and one of `read FILE`, `connect ADDR`,
//! `exec PROGRAM`, `list FOLDER`; any other line is echoed.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use landlock::{
    path_beneath_rules, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetStatus, ABI,
};
use nix::libc;
use seccompiler::{apply_filter, BpfProgram, SeccompAction, SeccompFilter};
use socketserver::{Connection, Forking, HandlerResult, ServerBuilder};

/// The folder that handlers may read.
const FOLDER: &str = "/usr/share";
/// What is restricted as far as the kernel knows it. Older kernels know less: see [`Sandbox::probe`].
const WANTED: ABI = ABI::V5;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Made once, before any fork. Then a child only has to enter it.
struct Sandbox {
    files_and_ports: RulesetCreated,
    calls: BpfProgram,
}

impl Sandbox {
    fn new() -> Result<Self> {
        // Landlock: everything with files and TCP ports is denied, except for reading in the folder.
        let files_and_ports = Ruleset::default()
            .handle_access(AccessFs::from_all(WANTED))?
            .handle_access(AccessNet::from_all(WANTED))?
            .create()?
            .add_rules(path_beneath_rules([FOLDER], AccessFs::from_read(WANTED)))?;
        // seccomp: these calls fail with EPERM. Landlock knows nothing of UDP, Unix sockets, and other processes.
        let denied = [libc::SYS_execve, libc::SYS_execveat, libc::SYS_socket, libc::SYS_connect, libc::SYS_ptrace];
        let denied = denied.into_iter().map(|call| (call, Vec::new())).collect();
        let fails = SeccompAction::Errno(libc::EPERM as u32);
        let arch = std::env::consts::ARCH.try_into()?;
        let calls = SeccompFilter::new(denied, SeccompAction::Allow, fails, arch)?.try_into()?;
        Ok(Self { files_and_ports, calls })
    }

    /// Restricts this thread, and all that it starts, for good. Returns what the kernel enforces of Landlock.
    fn enter(&self) -> Result<RulesetStatus> {
        let landlock = self.files_and_ports.try_clone()?.restrict_self()?; // also sets no_new_privs, which seccomp needs
        apply_filter(&self.calls)?;
        Ok(landlock.ruleset)
    }

    /// Says what the kernel really enforces, as a thread finds out that has entered the sandbox and ends.
    fn probe(self: &Arc<Self>) -> Result<String> {
        let sandbox = self.clone();
        let tried = std::thread::spawn(move || -> Result<String> {
            let status = match sandbox.enter()? {
                RulesetStatus::FullyEnforced => "all of its rules",
                RulesetStatus::PartiallyEnforced => "a part of its rules",
                RulesetStatus::NotEnforced => "nothing: this kernel has no Landlock",
            };
            let acts = ["read /etc/passwd", "connect 127.0.0.1:9", "exec /bin/true"].map(|act| (act, answer(act)));
            let acts = acts.map(|(act, said)| format!("{act}: {said}")).join("\n");
            Ok(format!("landlock enforces {status}\n{acts}"))
        });
        tried.join().map_err(|_| "the probe panicked")?
    }
}

/// Does what the line says, as far as the sandbox lets it.
fn answer(line: &str) -> String {
    let (act, rest) = line.split_once(' ').unwrap_or((line, ""));
    let done = match act {
        "read" => fs::read(rest).map(|bytes| format!("{} bytes", bytes.len())),
        "list" => fs::read_dir(rest).map(|files| format!("{} files", files.count())),
        "connect" => TcpStream::connect(rest).map(|_| "connected".to_owned()),
        "exec" => Command::new(rest).status().map(|status| status.to_string()),
        _ => Ok(line.to_owned()),
    };
    done.unwrap_or_else(|e| format!("refused: {e}"))
}

fn serve(conn: &mut Connection) -> HandlerResult {
    while let Some(line) = conn.next_line()? {
        conn.send_line(answer(&line))?;
    }
    Ok(())
}

fn main() -> Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1234".to_owned());
    if address.starts_with('-') {
        println!("Usage: [ADDR], which is 127.0.0.1:1234 unless given. SIGINT and SIGTERM drain the server.");
        return Ok(());
    }
    let sandbox = Arc::new(Sandbox::new()?);
    let enforced = sandbox.probe()?;
    // A panic in the hook fails its connection: no handler runs outside of the sandbox.
    let enter = move || {
        sandbox.enter().expect("enter the sandbox");
    };
    let strategy = Forking::new().after_fork(enter);
    let mut server =
        ServerBuilder::new().handle_signals().strategy(strategy).bind(&address, socketserver::handler(serve))?;
    let _ = writeln!(std::io::stdout(), "listening on {}\n{enforced}", server.local_addr()); // no panic if nobody reads
    eprintln!("{}", server.serve_forever()?);
    Ok(())
}
