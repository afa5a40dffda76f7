//! What a user writes for datagrams, and what it is lent.

use std::fmt;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};

use crate::error::HandlerResult;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::state::context::Context;
use crate::net::Addr;

/// A conversation by datagrams, of one socket with whoever sends to it (Twisted's `DatagramProtocol`). Given to
/// [`Reactor::listen_udp`](crate::Reactor::listen_udp) or [`Context::listen_udp`].
///
/// The loop calls the methods; only [`datagram_received`](Self::datagram_received) is required. None may wait for
/// anything, since all else in the loop waits with it. An error or a panic in one of them is counted, logged, and told to
/// the server's hook; the protocol goes on with the next datagram.
///
/// ```
/// use socketserver::{Addr, HandlerResult, Reactor};
/// use socketserver::event_loop::{DatagramProtocol, DatagramTransport};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
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
    /// The socket is there: once, first.
    ///
    /// # Errors
    /// Whatever the protocol likes; so in all callbacks.
    fn start_protocol(&mut self, transport: &mut DatagramTransport<'_>) -> HandlerResult {
        Ok(())
    }

    /// A datagram has come, whole, perhaps an empty one. More than 64 KiB, which only a Unix socket can bring, is
    /// [cut](DatagramTransport::is_truncated). Never called after [`stop_listening`](DatagramTransport::stop_listening), nor
    /// once the loop drains.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn datagram_received(&mut self, transport: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult;

    /// What was sent to the peer that the socket is [connected](DatagramTransport::connect) to has not been taken: nobody
    /// listens there. Perhaps somebody will.
    ///
    /// # Errors
    /// Whatever the protocol likes.
    fn connection_refused(&mut self, transport: &mut DatagramTransport<'_>) -> HandlerResult {
        Ok(())
    }

    /// The socket is closed: once, last.
    fn stop_protocol(&mut self, cx: &mut Context<'_>) {}
}

/// A socket of datagrams in a loop, to ask for its address, to send from, and to close. Once that is closed, and in another
/// loop, it stands for nothing. A copy may go to other threads.
#[derive(Debug, Clone)]
pub struct DatagramPort {
    pub(crate) place: Place,
    pub(crate) addr: Addr,
}

impl DatagramPort {
    /// The address, with the real port.
    pub fn local_addr(&self) -> &Addr {
        &self.addr
    }
}

/// What a datagram in delivery came with.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    /// Which of the port's sockets has it; none outside of a delivery.
    pub(crate) number: Option<usize>,
    pub(crate) from: Option<Addr>,
    pub(crate) to: Option<Addr>,
    /// The address that replies come from.
    pub(crate) source: Option<IpAddr>,
    pub(crate) original_len: usize,
    pub(crate) truncated: bool,
}

/// The protocol's own socket, lent to each callback; by `Deref` also the [`Context`], for all the rest.
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
