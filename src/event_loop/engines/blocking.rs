//! Protocols on blocking strategies: a loop for one connection, whose socket moves into it and back.

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, GivenBack};
use crate::error::{Error, HandlerResult, Result};
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::loop_group::LoopGroup;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::settings::LoopSettings;
use crate::event_loop::state::State;
use crate::handler::StreamRequestHandler;
use crate::lifecycle::Core;
use crate::observe::Outcome;
use crate::sys::Poller;

/// The protocols of a [`Factory`] as a handler: one protocol, any strategy. Here a connection has the thread, or the
/// process, that the strategy gives it, and on it a loop of its own.
///
/// So a [`Group`](crate::Group) has one member here, besides clients that its protocol makes.
/// [`broadcast`](crate::Context::broadcast) and [`write_to`](crate::Context::write_to) reach no other connection of the
/// server. A chat wants [`EventLoop`](crate::EventLoop).
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{factory, Blocking, HandlerResult, Protocol};
/// use socketserver::{ServerBuilder, Threading, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         Ok(transport.write(data)?)
///     }
/// }
///
/// let mut server = ServerBuilder::new()
///     .strategy(Threading::new())
///     .bind_tcp("127.0.0.1:0", Blocking(factory(|_peer| Echo)))?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(client)?, "hello");
///
/// handle.shutdown();
/// assert_eq!(serving.join().unwrap()?.served, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The event loop's own code calls the protocol. So callbacks, timers, messages, limits, water marks (16
/// and 64 KiB), the longest queue (8 MiB) and the drain are as [the guide](crate::guide::event_loop) says. A loop for one
/// connection differs in this:
///
/// - A callback may wait: it holds up no other connection, and is not reported as slow. Meanwhile the limits of its own
///   connection wait too, and a stop waits up to the drain limit.
/// - The factory is called on many threads at once, or in children, hence `Send + Sync`. Each protocol stays on its
///   thread. [`start_factory`](Factory::start_factory) and [`stop_factory`](Factory::stop_factory) are not called, because
///   the loop has no listener. Do their work before and after [`serve_forever`](crate::TcpServer::serve_forever).
/// - The loop has this connection, and what its protocol adds: [clients](crate::Context::connect_tcp),
///   [inputs](crate::Context::read_from), [sockets of datagrams](crate::Context::listen_udp). Among these,
///   [`link`](crate::Transport::link), [`post`](crate::Context::post) and [`Group`](crate::Group) work as in any loop, and
///   [`connections`](crate::Context::connections) counts them. **A broadcast reaches no other connection of the server**,
///   and the id of another loop means nothing. To write to other connections, keep their
///   [`ReactorHandle`](crate::event_loop::ReactorHandle)s behind a lock in the factory. Across processes there is no way.
/// - [`blocking`](crate::Context::blocking) work runs on 10 threads at most, for all connections together. Work that has
///   not begun ends with its connection. A callback that waits by itself is cheaper.
/// - **The loop ends with its connection.** Output that is queued for clients is sent first, within the
///   [drain limit](crate::ServerBuilder::drain_timeout); until then the connection keeps its permit and its socket. The
///   clients are told [`LostReason::Shutdown`](crate::event_loop::LostReason::Shutdown), unless they have been closed
///   already. Attempts to connect end, sockets of datagrams close, and timers, messages and work are dropped.
/// - [`pause`](crate::ServerHandle::pause) pauses accepting, and nothing of this loop.
/// - [`Context::shutdown`](crate::Context::shutdown) stops the whole server: others within the server's drain limit, this
///   connection within the given time. [`Context::stop`](crate::Context::stop) ends this connection and its loop at once,
///   and gives up what is queued.
/// - [`connection_lost`](crate::Protocol::connection_lost) is called when the protocol's part is done. Then the server
///   closes the connection, as any other.
///
/// The socket moves into the loop, and back at the end. Output of an outer handler is sent before, and input that it has
/// read ahead is delivered first. A [`ConnectionWriter`](crate::connection::ConnectionWriter) that it has made is served
/// when the protocol is done.
///
/// A connection costs one more descriptor, the wake-up for other threads, and a buffer of
/// [`read_buffer`](crate::ServerBuilder::read_buffer) bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocking<F>(pub F);

impl<F: Factory + Send + Sync + 'static> StreamRequestHandler for Blocking<F> {
    /// The connection's own, and its loop's inbox.
    fn descriptors() -> usize {
        2
    }

    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        // Output of an outer handler goes first.
        conn.flush()?;
        let mut reactor = Reactor::solo(conn.server().core.clone())?;
        match serve(&self.0, &mut reactor.state, conn)? {
            Outcome::Served => Ok(()),
            Outcome::Failed(e) => Err(e),
            Outcome::NotServed(e) => Err(e.into()),
            // Resumed, not begun: the panic hook has reported it where it was.
            Outcome::Panicked(text) => resume_unwind(Box::new(text)),
        }
    }
}

/// Moves the socket into the loop, runs the loop until the protocol's part is done, and takes the socket back.
fn serve(factory: &dyn Factory, state: &mut State, conn: &mut Connection) -> Result<Outcome> {
    let away = Away(conn);
    let Some(handed) = away.0.hand_over() else {
        return Err(Error::system("take the socket of a connection")(io::ErrorKind::NotConnected.into()));
    };
    let id = state.take_over(handed, away.0.wire().peer().clone());
    let result = state.run_solo(factory, id, away.0.wire());
    // However the loop has ended, its owner closes the connection.
    let Some((end, parent_deadline)) = state.end_solo(id) else { return result.map(|()| Outcome::Served) };
    if let Some((socket, tls)) = end.socket {
        away.0.take_back(GivenBack { socket, tls, parent_deadline, happened: end.happened });
    }
    result.map(|()| end.outcome)
}

/// A connection whose socket is away. If a panic leaves it there, the registry must forget the socket.
struct Away<'a>(&'a mut Connection);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.0.leave_if_away();
    }
}

impl Reactor {
    fn solo(core: Arc<Core>) -> Result<Self> {
        let settings = LoopSettings { slow_callback: Duration::MAX, ..LoopSettings::default() };
        let size = core.settings.read_buffer;
        let state = LoopGroup::new(1)
            .and_then(|group| State::with(core, settings, Clock::System, (group, 0), Poller::few(), size))
            .and_then(|state| state.watch_server_stop().map(|()| state))
            .map_err(Error::system("make a loop for a connection"))?;
        Ok(Self::bare(state))
    }
}
