//! Names are resolved beside the loop, on threads of their own: the program's [blocking](super::Context::blocking) work
//! neither waits for a name server that is silent, nor keeps anybody waiting for a name.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::connect::Connector;
use super::handle::Inbox;
use crate::helpers::Job;
use crate::listen::resolve;

/// A name that an attempt to connect waits for.
pub(crate) struct Lookup {
    pub(super) connector: Connector,
    /// Of the attempt.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) inbox: Arc<Inbox>,
}

/// The addresses of a name.
pub(super) type Found = io::Result<Vec<SocketAddr>>;

impl Job for Lookup {
    const NAME: &'static str = "resolver";
    const MOST: usize = 10;

    fn run(self) {
        let Self { connector, number, name, inbox } = self;
        let found = resolve(&name);
        let _ = inbox.send(Box::new(move |cx| cx.state.has_resolved(connector, number, found)));
        // else the loop is gone
    }
}
