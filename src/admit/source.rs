//! Admission by source: a connection counts for the network that its client has come from, while its permit is out.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::permit::Permit;
use crate::net::Accepted;
use crate::proxy::Trust;
use crate::sources::SourceRefusal;

impl Permit {
    /// Counts the connection for its source, if the server limits sources. The permit gives it back.
    ///
    /// Behind a proxy, the source is the client that the header names, so this is called again once the header has
    /// come. A connection without a source is not counted: that of a Unix socket, and one that a proxy makes for
    /// itself.
    pub(crate) fn admit_source(&mut self, accepted: &Accepted) -> Result<(), SourceRefusal> {
        if self.core().admission.sources.is_none() {
            return Ok(());
        }
        let client = match (&accepted.proxy, &self.core().settings.proxy_protocol) {
            (Some(header), _) => header.client().map(|client| client.ip()),
            // A header is still to come, or the connection is refused for its lack.
            (None, Some(proxies)) if proxies.trust(accepted.peer.ip()) != Trust::Direct => None,
            (None, _) => accepted.peer.ip(),
        };
        client.map_or(Ok(()), |client| self.admit_client(client))
    }

    /// Counts the connection for this client. `admit_source` does, and the parent of a child that asks for it.
    pub(crate) fn admit_client(&mut self, client: IpAddr) -> Result<(), SourceRefusal> {
        let Some(sources) = &self.core().admission.sources else { return Ok(()) };
        match sources.admit(client)? {
            Some(stay) => self.keep_stay(stay),
            None => drop(self.core().monitor.counters().sources.uncounted.fetch_add(1, Relaxed)),
        }
        Ok(())
    }
}
