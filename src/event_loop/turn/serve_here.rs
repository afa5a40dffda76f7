//! A loop that goes on in another process than the one that made it, because the program has forked.

use std::io;
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::event_loop::clients::Stage;
use crate::event_loop::primitives::token;
use crate::event_loop::state::State;
use crate::listen::Listener;
use crate::server::SERVE_HERE;
use crate::sys::Readiness;

impl State {
    /// Makes this process the one that serves.
    pub(crate) fn serve_here(&mut self) -> Result<()> {
        if self.core.serve_here().map_err(Error::system(SERVE_HERE))? {
            self.watch_anew().map_err(Error::system(SERVE_HERE))?;
            self.watch_stop()?;
        }
        let listeners = self.ports.list.values().flat_map(|port| port.listeners.iter());
        let sockets = self.datagrams.list.values().flat_map(|port| port.sockets.iter());
        listeners.chain(sockets).for_each(Listener::serve_here);
        Ok(())
    }

    /// Watches all anew. The epoll set and the inbox of the other process stay as they are.
    fn watch_anew(&mut self) -> io::Result<()> {
        self.poller.renew()?;
        self.loops.inbox.renew()?;
        self.poller.add(&*self.loops.inbox, Readiness::READABLE, token::INBOX)?;
        self.watch_gate()?;
        // The next turn watches these.
        (self.ports.listening, self.datagrams.receiving) = (false, false);
        for id in self.conns.ids() {
            if let Some(conn) = self.conns.get_mut(id) {
                conn.watch.interest = None;
                // The permits are counted anew.
                conn.entry.permit.iter().for_each(|_| self.core.admission.permits.engage());
            }
            self.mark(id);
        }
        for id in self.clients.all.ids() {
            let Some(Stage::Trying(attempt)) = self.clients.all.get(id).map(|client| &client.stage) else { continue };
            if let Some(socket) = &attempt.socket {
                let connected = Readiness { write: true, ..Readiness::default() };
                self.poller.add(socket.as_fd(), connected, token::CONNECTORS | id.token())?;
            }
        }
        Ok(())
    }
}
