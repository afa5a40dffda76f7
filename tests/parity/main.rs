//! CPython's own tests of `socketserver` (3.13: 27 cases), written anew for this crate, and the traps of its users,
//! each shown to be closed. A test's number is that of the case in CPython's file, from its top; the names of
//! CPython's tests stand with them.
//!
//! Traps without a test in `traps.rs` are shown by other suites: `tests/README.md` names them by theme.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod datagrams;
mod echo;
mod errors;
mod life;
mod traps;
mod writers;

/// Waits until nobody listens there. At once is too strict here: a process that another test is about to start has
/// copies of all descriptors until its exec.
fn until_closed(addr: std::net::SocketAddr) {
    let refused = |e: std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
    support::until("the listener is closed", || std::net::TcpStream::connect(addr).is_err_and(refused));
}
