//! Descriptors that are no sockets, read like a connection: standard input, a pipe, a file.
//!
//! Regular files, which epoll refuses, are read once a turn.

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
    /// Reads from a descriptor that is no socket: standard input, a pipe, a terminal, a file (Twisted's `StandardIO`,
    /// asyncio's `connect_read_pipe`). The protocol's callbacks are those of a connection. End of file is
    /// `eof_received`, and pausing and closing work. A write ends it, because it has no other side.
    ///
    /// The loop owns the descriptor from here on. If the program keeps it, as standard input, give the loop a copy. The
    /// loop does not set `O_NONBLOCK`, because other processes may share the file; it polls before each read. If
    /// another *reader* shares a terminal or a pipe, it may take the input first, and the loop then waits in its read.
    ///
    /// A regular file is read as fast as the loop turns, 64 KiB each time. The descriptor does not count against the
    /// connection limit and is in no counter. A drain closes it as an idle connection.
    ///
    /// ```
    /// use std::io::Write;
    /// use socketserver::{HandlerResult, Protocol, Reactor, Transport};
    ///
    /// struct Expect(&'static [u8]);
    /// impl Protocol for Expect {
    ///     fn data_received(
    ///         &mut self,
    ///         transport: &mut Transport<'_>,
    ///         data: &[u8],
    ///     ) -> HandlerResult {
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
    /// True if a regular file is to be read. No event announces it.
    pub(crate) fn has_readable_file(&self) -> bool {
        self.unpolled.files.iter().any(|id| self.waits_for_input(*id))
    }

    /// True if the connection wants input.
    fn waits_for_input(&self, id: ConnId) -> bool {
        self.conns.get(id).and_then(|conn| conn.watch.interest).is_some_and(|watched| watched.read)
    }

    /// Reads each regular file once.
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
