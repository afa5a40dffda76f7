//! Which of the two ports a connection has come to. One server has both, so one limit, one drain and one report.

use std::sync::OnceLock;

use socketserver::Addr;

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Page,
    Lines,
}

/// The address of the port for lines, once it is bound.
#[derive(Default)]
pub struct Ports(OnceLock<Addr>);

impl Ports {
    pub fn set_lines(&self, addr: &Addr) {
        let _ = self.0.set(addr.clone()); // the first one stays
    }

    /// What a connection is for, by the address of its end here. Of an IP address the port decides: the server may
    /// listen on all addresses.
    pub fn kind(&self, local: &Addr) -> Kind {
        let is_lines = self.0.get().is_some_and(|lines| match (lines.port(), local.port()) {
            (Some(lines), Some(local)) => lines == local,
            _ => lines == local,
        });
        if is_lines {
            Kind::Lines
        } else {
            Kind::Page
        }
    }
}
