//! Which of the two ports a connection has come to. One server has both, so one limit, one drain and one report.

use std::sync::OnceLock;

use socketserver::Addr;

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Page,
    Lines,
}

/// The address of the page, once it is bound.
#[derive(Default)]
pub struct Ports(OnceLock<Addr>);

impl Ports {
    pub fn set_page(&self, addr: &Addr) {
        let _ = self.0.set(addr.clone()); // the first one stays
    }

    /// What a connection is for, by the address of its end here. Of an IP address the port decides: a name may stand for
    /// several addresses, and a server may listen on all.
    pub fn kind(&self, local: &Addr) -> Kind {
        let is_page = self.0.get().is_none_or(|page| match (page.port(), local.port()) {
            (Some(page), Some(local)) => page == local,
            _ => page == local,
        });
        match is_page {
            true => Kind::Page,
            false => Kind::Lines,
        }
    }
}
