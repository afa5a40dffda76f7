//! [`DatagramProtocol`], which a user writes for datagrams, and [`DatagramTransport`], which its callbacks are lent.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use crate::error::HandlerResult;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::net::Addr;

/// The protocol of one datagram socket and all its peers (Twisted's `DatagramProtocol`). Give it to
/// [`Reactor::listen_udp`](crate::Reactor::listen_udp) or [`Context::listen_udp`].
///
/// The loop calls the methods; only [`datagram_received`](Self::datagram_received) is required. None may block,
/// because everything else in the loop waits for it. An error or a panic is counted, logged, and given to the
/// server's hook. The protocol goes on with the next datagram.
///
/// ```
/// use socketserver::{Addr, HandlerResult, Reactor};
/// use socketserver::event_loop::{DatagramProtocol, DatagramTransport};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(
///         &mut self,
///         t: &mut DatagramTransport<'_>,
///         data: &[u8],
///         from: &Addr,
///     ) -> HandlerResult {
///         t.send_to(from, data)?;
///         t.stop(); // the loop: one is enough here
///         Ok(())
///     }
/// }
///
/// let mut reactor = Reactor::new()?;
/// let port = reactor.listen_udp("127.0.0.1:0", Echo)?;
/// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", port.local_addr().socket_addr().unwrap())?;
/// reactor.run()?;
/// let mut reply = [0; 10];
/// assert_eq!(client.recv(&mut reply)?, 5);
/// assert_eq!(&reply[..5], b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[allow(unused_variables)] // the names are for the documentation
pub trait DatagramProtocol {
    /// Called once, first: the socket is open.
    ///
    /// # Errors
    /// Whatever the protocol likes; so in all callbacks.
    fn start_protocol(&mut self, transport: &mut DatagramTransport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called for each datagram, also for an empty one. A datagram of more than 64 KiB, which only a Unix socket can
    /// bring, is [truncated](DatagramTransport::is_truncated). It is never called after
    /// [`stop_listening`](DatagramTransport::stop_listening), nor once the loop drains.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn datagram_received(&mut self, transport: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult;

    /// Called if the peer that the socket is [connected](DatagramTransport::connect) to does not listen, and a datagram
    /// was lost. It may listen later.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn connection_refused(&mut self, transport: &mut DatagramTransport<'_>) -> HandlerResult {
        Ok(())
    }

    /// Called when a timer of [`DatagramTransport::set_timer`] is due.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn timer(&mut self, transport: &mut DatagramTransport<'_>, timer: TimerId) -> HandlerResult {
        Ok(())
    }

    /// Called when a message was [posted](Context::post_to_port) to this socket.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn message(&mut self, transport: &mut DatagramTransport<'_>, message: Box<dyn Any>) -> HandlerResult {
        Ok(())
    }

    /// Called once, last: the socket is closed.
    fn stop_protocol(&mut self, cx: &mut Context<'_>) {}
}

/// A datagram socket of a loop, to ask for its address, to send from, and to close. Once it is closed, the value stands
/// for nothing. In another loop it never stands for anything. A clone may go to other threads.
#[derive(Debug, Clone)]
pub struct DatagramPort {
    pub(crate) place: Place,
    pub(crate) addr: Addr,
}

impl DatagramPort {
    /// Returns the address, with the real port.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }
}

/// What is known of a datagram while it is delivered.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// The port's socket that received it; `None` outside of a delivery.
    pub(crate) number: Option<usize>,
    pub(crate) from: Option<Addr>,
    pub(crate) to: Option<Addr>,
    /// The address that replies come from.
    pub(crate) source: Option<SocketAddr>,
    pub(crate) original_len: usize,
    pub(crate) truncated: bool,
    /// True if a reply has found no peer.
    pub(crate) lost: bool,
}

/// The protocol's own socket, lent to each callback. By `Deref` it is also the [`Context`].
pub struct DatagramTransport<'a> {
    pub(crate) cx: Context<'a>,
    pub(crate) place: Place,
    pub(crate) delivery: Delivery,
}

impl<'a> Deref for DatagramTransport<'a> {
    type Target = Context<'a>;

    fn deref(&self) -> &Context<'a> {
        &self.cx
    }
}

impl<'a> DerefMut for DatagramTransport<'a> {
    fn deref_mut(&mut self) -> &mut Context<'a> {
        &mut self.cx
    }
}

impl fmt::Debug for DatagramTransport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramTransport").field("port", &self.place).finish_non_exhaustive()
    }
}
