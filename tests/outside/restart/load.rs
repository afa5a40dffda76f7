//! Restarts under load: no connection is lost.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::ClientConfig;

use super::{is_gone, signal};
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};
use crate::support::{until, Server, LIMIT};

/// One connection, one line, one line back.
fn ask(addr: SocketAddr, tls: Option<&Arc<ClientConfig>>, line: &str) -> io::Result<String> {
    match tls {
        Some(config) => say(TlsClient::connect_with(addr, config)?, line),
        None => {
            let stream = TcpStream::connect(addr)?;
            stream.set_read_timeout(Some(LIMIT))?;
            say(stream, line)
        }
    }
}

fn say(mut stream: impl Read + Write, line: &str) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.flush()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Restarts the server again and again, while four threads connect, ask and leave.
fn restart_under_load(strategy: &str, restarts: u32, pki: Option<&Pki>) {
    let mut args = vec!["--strategy", strategy, "--workers", "4"];
    let files = pki.map(|pki| [pki.file("server.pem"), pki.file("server.key")]);
    if let Some([cert, key]) = &files {
        args.extend(["--tls-cert", cert, "--tls-key", key]);
    }
    let mut first = Server::start("torture_server", &args);
    let (addr, tls): (SocketAddr, _) = (first.addr().parse().unwrap(), pki.map(|pki| Arc::new(trust(pki))));
    let (over, served, lost) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let last = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    match ask(addr, tls.as_ref(), "ECHO load") {
                        Ok(answer) if answer == "load" => drop(served.fetch_add(1, SeqCst)),
                        other => lost.lock().unwrap().push(format!("{other:?}")),
                    }
                }
            });
        }
        let mut now = first.pid();
        for restart in 0..restarts {
            signal("USR2", now);
            let former = now;
            until("another process serves", || {
                now = ask(addr, tls.as_ref(), "MASTER").ok().and_then(|pid| pid.parse().ok()).unwrap_or(former);
                now != former || !lost.lock().unwrap().is_empty()
            });
            until("the former one ends", || is_gone(former) || (restart == 0 && !first.is_running()));
            if !lost.lock().unwrap().is_empty() {
                break;
            }
        }
        over.store(true, SeqCst);
        now
    });
    signal("TERM", last);
    let (lost, served) = (lost.into_inner().unwrap(), served.into_inner());
    println!("{strategy}: {restarts} restarts, {served} served, {} lost", lost.len());
    assert!(lost.is_empty(), "{strategy}: of {served} connections these were lost: {lost:?}");
}

/// `SOAK=1`: a hundred restarts.
fn restarts() -> u32 {
    if std::env::var("SOAK").as_deref() == Ok("1") {
        100
    } else {
        3
    }
}

#[test]
fn no_connection_is_lost_in_restarts_under_load() {
    for strategy in ["threading", "thread-pool", "event-loop", "preforking", "forking", "event-loops"] {
        restart_under_load(strategy, restarts(), None);
    }
}

#[test]
fn no_connection_is_lost_in_restarts_under_load_with_tls() {
    let Some(pki) = Pki::make() else { return };
    for strategy in ["threading", "thread-pool", "event-loop", "preforking"] {
        restart_under_load(strategy, restarts(), Some(&pki));
    }
}
