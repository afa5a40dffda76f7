//! Protocols on blocking strategies: a loop for one connection, which its handler has lent to it.

use std::io::Write;
use std::panic::resume_unwind;
use std::time::Duration;

use crate::connection::{Connection, Wire};
use crate::error::{Error, HandlerResult, Result};
use crate::event_loop::conns::begin::NO_PROTOCOL;
use crate::event_loop::io::lent::LentIo;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::loop_group::LoopGroup;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::settings::LoopSettings;
use crate::event_loop::state::stop::Lender;
use crate::event_loop::state::State;
use crate::handler::StreamRequestHandler;
use crate::observe::{NotServed, Outcome};
use crate::sys::{lend, Poller};

/// The protocols of a [`Factory`] as a handler: one protocol, any strategy. Here a connection has the thread, or the
/// process, that the strategy gives it, and on it a loop of its own.
///
/// So a [`Group`](crate::Group) has one member here, besides clients that its protocol makes.
/// [`broadcast`](crate::Context::broadcast) and [`write_to`](crate::Context::write_to) reach no other connection of the
/// server. A chat wants [`EventLoop`](crate::EventLoop).
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{factory, Blocking, HandlerResult, Protocol, ServerBuilder, Threading, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
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
/// It is the event loop's own code that calls the protocol, so the callbacks, their order, timers, messages, limits,
/// water marks (16 and 64 KiB), the longest queue (8 MiB) and the drain are as [the guide](crate::guide::event_loop)
/// says. What the loop is to a protocol is different where there is one for each connection:
///
/// - A callback may wait: it holds nobody else up, and is not reported as slow. While it waits, its own connection's
///   limits wait with it, and a stop does up to the drain limit.
/// - The factory is called on many threads at once, or in children, hence `Send + Sync`; the protocols themselves stay
///   on their threads. [`start_factory`](Factory::start_factory) and [`stop_factory`](Factory::stop_factory) are not
///   called: no listener is the loop's. Their places are the lines before and after
///   [`serve_forever`](crate::TcpServer::serve_forever).
/// - The loop has this connection, and what its protocol adds, as a forwarding one does:
///   [clients](crate::Context::connect_tcp), [inputs](crate::Context::read_from),
///   [sockets of datagrams](crate::Context::listen_udp). Among these everything works as in any loop:
///   [`link`](crate::Transport::link), [`post`](crate::Context::post), a [`Group`](crate::Group).
///   [`connections`](crate::Context::connections) counts them, and begins with one. **A broadcast reaches nobody else**,
///   and an id of another loop stands for nothing. Who talks to other connections keeps their
///   [`ReactorHandle`](crate::event_loop::ReactorHandle)s, behind a lock in the factory, and writes by them; across processes there
///   is no way.
/// - [`blocking`](crate::Context::blocking) work is done by 10 threads at most for all connections together; what has not
///   begun ends with its connection. A callback that waits by itself is cheaper.
/// - **The loop ends with its connection.** What is queued for clients then is sent before, for which they have the
///   [drain limit](crate::ServerBuilder::drain_timeout) at most; so long the connection keeps its place and its socket.
///   They are told [`LostReason::Shutdown`](crate::event_loop::LostReason::Shutdown), unless they have been closed already. Attempts to connect end, sockets of
///   datagrams are closed, and timers, messages and work are dropped.
/// - [`pause`](crate::ServerHandle::pause) pauses accepting, and nothing of this loop, its datagrams included.
/// - [`Context::shutdown`](crate::Context::shutdown) stops the whole server, within the server's drain limit for the
///   others and within the given time for this connection; [`Context::stop`](crate::Context::stop) ends this connection
///   and its loop at once, and gives up what is queued.
/// - [`connection_lost`](crate::Protocol::connection_lost) is told when the protocol's part is done, and the connection
///   is closed after it, as the server closes all.
///
/// All bytes go through the [`Connection`], so a protocol does not see what is between that and the socket: neither input
/// that an outer handler has read ahead, nor, once there is such a thing, encryption. The loop asks the connection whether
/// it has input that the kernel does not tell of.
///
/// A connection costs one descriptor besides its socket, the wake-up for other threads, and a buffer of
/// [`read_buffer`](crate::ServerBuilder::read_buffer) bytes. A [`ConnectionWriter`](crate::connection::ConnectionWriter) that an
/// outer handler has made is served when the protocol is done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Blocking<F>(pub F);

impl<F: Factory + Send + Sync + 'static> StreamRequestHandler for Blocking<F> {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        conn.flush()?;
        let ahead = conn.take_unread();
        let outcome = lend(conn.wire(), |wire| serve(&self.0, conn.wire(), LentIo::new(wire, ahead)))?;
        match outcome {
            Outcome::Served => Ok(()),
            Outcome::Failed(e) => Err(e),
            Outcome::NotServed(e) => Err(e.into()),
            Outcome::Panicked(text) => resume_unwind(Box::new(text)), // it has been told of where it was
        }
    }
}

/// Runs the loop until the protocol's part is done.
fn serve(factory: &dyn Factory, wire: &Wire, io: LentIo) -> Result<Outcome> {
    let mut reactor = Reactor::of_lent(wire)?;
    let state = &mut reactor.state;
    let conn = Conn::new(Io::Lent(Box::new(io)), wire.peer().clone(), Origin::Accepted(None), None, state.time.now);
    let id = state.conns.insert(conn);
    state.lent = Some(Lender { id, outcome: None });
    if let Some(conn) = state.conns.get_mut(id) {
        conn.limits.own = Some(Box::new(wire.limits()));
    }
    match state.build(factory, id) {
        Ok(Some(protocol)) => state.begin(id, protocol),
        Ok(None) => {
            state.conns.remove(id);
            return Ok(Outcome::NotServed(NotServed(NO_PROTOCOL)));
        }
        Err(text) => {
            state.conns.remove(id);
            return Ok(Outcome::Panicked(text));
        }
    }
    if state.core.control.stopping() {
        state.begin_drain();
    }
    state.settle();
    loop {
        if state.stop.asked {
            state.end_all();
        }
        if let Some(outcome) = state.lent.as_mut().and_then(|lent| lent.outcome.take()) {
            state.drain_others(wire)?;
            return Ok(outcome);
        }
        state.share_request(wire);
        state.turn(wire.beat())?;
    }
}

impl Reactor {
    fn of_lent(wire: &Wire) -> Result<Self> {
        let core = wire.server().core.clone();
        let settings = LoopSettings { slow_callback: Duration::MAX, ..LoopSettings::default() };
        let size = core.settings.read_buffer;
        let state = LoopGroup::new(1)
            .and_then(|team| State::with(core, settings, Clock::System, (team, 0), Poller::few(), size))
            .and_then(|state| state.watch_server_stop().map(|()| state))
            .map_err(Error::system("make a loop for a connection"))?;
        Ok(Self::bare(state))
    }
}
