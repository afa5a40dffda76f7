//! [`ServerBuilder::serve_one`]: one connection that another program has accepted.

use super::{ServerBuilder, TcpServer};
use crate::accept::{Accepting, Request, Work};
use crate::admit::Permit;
use crate::error::{Error, Result};
use crate::handler::StreamRequestHandler;
use crate::listen::accepted;
use crate::net::{Accepted, Address};
use crate::observe::Report;
use crate::strategy::Sequential;

impl<S> ServerBuilder<S> {
    /// Serves one connection that another program has accepted, on this thread, and returns the report. That
    /// is how inetd(8) and systemd's `Accept=yes` start a program: one for each connection.
    ///
    /// The connection is `fd:0` (inetd), `fd:3` (systemd) or `fd:NAME`. The strategy and the listening settings
    /// have no effect; limits, hooks and signals have theirs. A protocol is served as
    /// [`Blocking(factory)`](crate::Blocking). If descriptors 0 and 1 are the connection too, the
    /// peer reads the end of the stream when the process ends. Print nothing to stdout then: the
    /// peer would read it.
    ///
    /// ```no_run
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let hello = handler(|conn| conn.send_line("hello"));
    /// let report = ServerBuilder::new().handle_signals().serve_one("fd:0", hello)?;
    /// assert_eq!(report.accepted, 1);
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Listen`] if the descriptor is not open, is no stream socket or is not connected. [`Error::Setting`]
    /// for a setting that makes no sense, and for a [`listen`](Self::listen).
    pub fn serve_one<H: StreamRequestHandler>(self, connection: impl Into<Address>, handler: H) -> Result<Report> {
        if !self.plan.addresses.is_empty() {
            return Err(Error::setting("listen", "serve_one serves one connection and listens nowhere"));
        }
        let no_delay = self.plan.no_delay;
        let server = self.strategy(Sequential).finish(handler)?;
        let address = connection.into();
        let accepted = accepted(&address, no_delay).map_err(|(act, source)| Error::Listen {
            act,
            address: address.to_string(),
            source,
        })?;
        Ok(server.serve_accepted(accepted))
    }
}

impl<H: StreamRequestHandler> TcpServer<H, Sequential> {
    fn serve_accepted(self, accepted: Accepted) -> Report {
        let core = &self.bound.core;
        let _serving = core.begin();
        // The limit is at least one, and this is the only connection.
        if let Some(permit) = Permit::take(core) {
            let _here = Accepting::here();
            Request::new(Work::Connection(accepted, self.handler.clone()), permit).run();
        }
        core.monitor.report_left_out();
        core.totals()
    }
}
