//! Descriptors that are no sockets, read like a connection: standard input, a pipe, a file.

use std::os::fd::OwnedFd;

use crate::error::{Error, Result};
use crate::event_loop::io::input::Input;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::net::Addr;
use crate::sys::Readiness;

impl Context<'_> {
    /// Reads from a descriptor that is no socket, as from a connection: standard input, a pipe, a terminal, a file
    /// (Twisted's `StandardIO`, asyncio's `connect_read_pipe`). The protocol's callbacks are those of a connection, its
    /// end is `eof_received`, pausing and closing work; what is written to it ends it, since it has no other side.
    ///
    /// The descriptor is the loop's from here on; give it a copy of one that the program keeps, as of standard input.
    /// `O_NONBLOCK` is not touched, since other processes may share the file: it is polled before each read. (Who shares
    /// a terminal or a pipe with another *reader* may lose the race for what was there, and waits.) A regular file is
    /// read as fast as the loop turns, 64 KiB each time. It takes no place under the connection limit, is in no counter,
    /// and a drain closes it as an idle connection.
    ///
    /// ```
    /// use std::io::Write;
    /// use socketserver::{HandlerResult, Protocol, Reactor, Transport};
    ///
    /// struct Expect(&'static [u8]);
    /// impl Protocol for Expect {
    ///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
    ///         assert_eq!(data, self.0);
    ///         transport.stop();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let (read, mut write) = std::os::unix::net::UnixStream::pair()?;
    /// write.write_all(b"hello")?;
    /// let mut reactor = Reactor::new()?;
    /// reactor.call_when_running(|cx| drop(cx.read_from(read, Expect(b"hello"))));
    /// reactor.run()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::System`] for a descriptor that cannot be watched.
    pub fn read_from(&mut self, input: impl Into<OwnedFd>, protocol: impl Protocol + 'static) -> Result<ConnId> {
        let state = &mut *self.state;
        let input = Input::new(input.into(), &state.poller).map_err(Error::system("watch a descriptor"))?;
        let is_always_ready = input.is_always_ready;
        let conn = Conn::new(Io::Input(input), Addr::Unnamed, Origin::Adopted, None, state.time.clock.now());
        let id = state.conns.insert(conn);
        if is_always_ready {
            state.unpolled.files.push(id);
        }
        state.queues.deferred.push_back(Deferred::Call(Box::new(move |cx| cx.state.begin(id, Box::new(protocol)))));
        Ok(id)
    }
}

impl State {
    /// Whether a file is to be read, for which no event comes.
    pub(crate) fn has_readable_file(&self) -> bool {
        self.unpolled.files.iter().any(|id| self.waits_for_input(*id))
    }

    fn waits_for_input(&self, id: ConnId) -> bool {
        self.conns.get(id).and_then(|conn| conn.watch.interest).is_some_and(|watched| watched.read)
    }

    /// Those that epoll does not tell of.
    pub(crate) fn read_files(&mut self) {
        for id in std::mem::take(&mut self.unpolled.files) {
            if self.conns.get(id).is_some() {
                self.unpolled.files.push(id);
            }
            if self.waits_for_input(id) {
                self.handle_readiness(id, Readiness::READABLE);
            }
        }
    }
}
