//! The loop's datagram sockets: they receive as much as a turn allows, and send at once.
//!
//! A datagram takes no permit. A permit is for a handler that runs; in a loop none runs beside another, and nothing of
//! a datagram is left after its callback. What must be bounded is its share of a turn.
//!
//! A send drops where there is no room, and does not queue. A queue would grow with a peer that takes nothing, deliver
//! late what is of use only now, and still not make the network reliable. The answer is a `bool`, because a drop is
//! no error: the protocol must bear it anyway.

use std::io;
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};

use log::Level;
use nix::errno::Errno;

use crate::accept::{after_failure, NextStep};
use crate::connection::DatagramTooLong;
use crate::error::{Error, HandlerResult, Result};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::token::{self, AT_A_TIME, PER_PORT};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::datagram_ports::{closed, Port};
use crate::event_loop::state::datagram_protocol::{DatagramPort, DatagramProtocol, DatagramTransport, Delivery};
use crate::event_loop::state::work::{Deferred, TimerTask};
use crate::event_loop::state::{State, READ};
use crate::listen::{bind, AcceptError, BindOptions};
use crate::net::{gone, no_reply_to, Addr, Address, DatagramSocket, Moved, Received, Unsent};
use crate::observe::{log_line, Account, Outcome};
use crate::panics::forget;
use crate::sys::Readiness;

/// How many datagrams one socket may deliver in a turn. Bytes alone would not bound empty datagrams.
const DATAGRAMS: usize = 64;
/// How many bytes one socket may deliver in a turn.
const BYTES: usize = 256 << 10;

impl State {
    /// Binds the sockets of an address. A name with both families has a socket of each.
    pub(crate) fn listen_udp(
        &mut self,
        address: &Address,
        protocol: Box<dyn DatagramProtocol>,
    ) -> Result<DatagramPort> {
        let sockets = bind(address, BindOptions::datagrams())?;
        if sockets.len() > PER_PORT || self.datagrams.list.len() >= AT_A_TIME {
            let why = format!("a loop takes {PER_PORT} sockets in one port, and {AT_A_TIME} ports at a time, at most");
            return Err(Error::setting("listen_udp", why));
        }
        let addr = sockets.first().map_or(Addr::Unnamed, |socket| socket.local_addr().clone());
        let (protocol, timers) = (Some(protocol), Vec::new());
        let port = Port { sockets, addr: addr.clone(), protocol, started: false, connected: None, timers };
        Ok(DatagramPort { place: self.datagrams.list.insert(port), addr })
    }

    /// Calls `start_protocol`, and delivers datagrams from then on.
    pub(crate) fn start_datagrams(&mut self, place: Place) {
        if self.datagrams.list.get(place).map_or(true, |port| port.sockets.is_empty()) {
            return; // it closed before it began
        }
        self.call_datagrams(place, Delivery::default(), "start_protocol", |p, t| p.start_protocol(t));
        let Some(port) = self.datagrams.list.get_mut(place) else { return };
        port.started = true;
        if self.datagrams.receiving {
            self.watch_datagrams(place, true);
        }
    }

    /// Watches the datagram sockets while the loop neither rests, nor is paused, nor drains.
    pub(crate) fn sync_datagrams(&mut self) {
        // A pause concerns new clients. The sockets of a solo connection belong to one that is being served.
        let paused = self.core.control.paused() && self.solo.is_none();
        let receives = !(self.ports.rests || paused || self.stop.drain.is_some());
        if receives != self.datagrams.receiving {
            self.datagrams.receiving = receives;
            self.datagrams.list.ids().into_iter().for_each(|place| self.watch_datagrams(place, receives));
        }
    }

    /// Watches the sockets of a port, or watches them no more. A port that cannot be watched is closed.
    fn watch_datagrams(&mut self, place: Place, watch: bool) {
        let Some(port) = self.datagrams.list.get(place).filter(|port| port.started) else { return };
        let mut refused = None;
        for (number, socket) in port.sockets.iter().enumerate() {
            if watch {
                let watched =
                    self.poller.add(socket, Readiness::READABLE, token::of(token::DATAGRAMS, place.index(), number));
                refused = watched.err().or(refused);
            } else {
                self.poller.remove(socket);
            }
        }
        if let Some(e) = refused {
            log_line(
                Level::Error,
                "socketserver::event_loop",
                format_args!("gave up {}, which cannot be watched: {e}", port.addr),
            );
            self.close_datagrams(place);
        }
    }

    /// Receives from a socket that is readable or has met an error, as much as a turn allows.
    pub(crate) fn receive(&mut self, token: u64) {
        let (index, number) = token::place(token::DATAGRAMS, token);
        let Some(place) = self.datagrams.list.at(index).filter(|place| self.is_started(*place)) else { return };
        let (mut bytes, mut buffer) = (0, std::mem::take(&mut self.buffers.read));
        // The loop of a solo connection reads less at once, but a datagram must fit.
        if buffer.len() < READ {
            buffer.resize(READ, 0);
        }
        for _ in 0..DATAGRAMS {
            // The last callback may have closed the port, or stopped the loop.
            let Some(port) = self
                .datagrams
                .list
                .get(place)
                .filter(|_| !self.ports.rests && !self.stop.asked && self.stop.drain.is_none())
            else {
                break;
            };
            let Some(socket) = port.socket(number).cloned() else { break };
            match socket.receive_into(&mut buffer) {
                Ok(received) => {
                    self.core.backoff.is_over();
                    bytes += received.len.min(buffer.len());
                    let data = buffer.get(..received.len).unwrap_or(&buffer);
                    self.deliver_datagram(place, number, &socket, received, data);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.receive_failed(place, number, e),
            }
            if bytes >= BYTES {
                break;
            }
        }
        self.buffers.read = buffer;
    }

    fn is_started(&self, place: Place) -> bool {
        self.datagrams.list.get(place).is_some_and(|port| port.started)
    }

    /// Calls `datagram_received`, and counts the datagram.
    fn deliver_datagram(
        &mut self,
        place: Place,
        number: usize,
        socket: &DatagramSocket,
        received: Received,
        data: &[u8],
    ) {
        let to = socket.local_of(&received);
        let Received { len, peer, from, .. } = received;
        // A datagram of another peer was queued before the socket was connected.
        let connected = self.datagrams.list.get(place).and_then(Port::peer);
        if connected.is_some_and(|connected| *connected != peer) {
            return;
        }
        let mut birth = self.core.note_accepted(&peer, || to.clone());
        self.core.monitor.tell_opened(&mut birth, &peer, None);
        self.datagrams.received += 1;
        let delivery = Delivery {
            number: Some(number),
            from: Some(peer.clone()),
            to: Some(to),
            source: from,
            original_len: len,
            truncated: len > data.len(),
            lost: false,
        };
        let outcome =
            self.call_protocol(place, delivery, "datagram_received", |p, t| p.datagram_received(t, data, &peer));
        if let Some((outcome, lost)) = outcome {
            self.core.monitor.report_end(&peer, lost, &outcome, self.core.stop_phase());
            let moved = Moved { read: len as u64, written: 0 };
            let account = Account { birth, moved, was_handled: true, ..Account::default() };
            self.core.monitor.tell_end(account, &peer, lost, &outcome);
            forget(outcome);
        }
    }

    /// Handles a failed receive: goes on, rests, or closes the port.
    fn receive_failed(&mut self, place: Place, number: usize, e: io::Error) {
        let Some(listener) = self.datagrams.list.get(place).and_then(|port| port.sockets.get(number)) else { return };
        if AcceptError::of(&e) == AcceptError::Gone {
            // An error of an earlier send. The kernel reports it once, so the loop need not rest.
            self.core.monitor.report_accept_error(listener.local_addr(), &e, false);
            if is_refusal(&e) {
                self.report_refusal(place, number);
            }
            return;
        }
        match after_failure(&self.core, listener, e) {
            NextStep::GoOn => {}
            NextStep::Rest(time) => {
                self.ports.rests = true;
                self.time.timers.set(self.time.now, time, TimerTask::Rested);
            }
            NextStep::Lost(_) => self.close_datagrams(place),
        }
    }

    /// Calls `connection_refused`, if this is the connected socket.
    fn report_refusal(&mut self, place: Place, number: usize) {
        let connected = self.datagrams.list.get(place).and_then(|port| port.connected.as_ref());
        if connected.is_some_and(|(connected, _)| *connected == number) {
            let delivery = Delivery { number: Some(number), ..Delivery::default() };
            self.call_datagrams(place, delivery, "connection_refused", |p, t| p.connection_refused(t));
        }
    }

    /// Sends a datagram at once. `false` if there was no room, and it was dropped.
    pub(crate) fn send_datagram(
        &mut self,
        place: Place,
        delivering: Option<usize>,
        to: &Addr,
        bytes: &[u8],
        source: Option<SocketAddr>,
    ) -> io::Result<bool> {
        let port = self.datagrams.list.get(place).ok_or_else(closed)?;
        let number = port.number_for(to, delivering);
        let socket = port.socket(number).cloned().ok_or_else(closed)?;
        let connected = port.connected.as_ref().is_some_and(|(connected, _)| *connected == number);
        // The kernel reports an earlier refusal at the next send.
        let mut sent = socket.send(bytes, to, source);
        if connected && sent.as_ref().is_err_and(is_refusal) {
            // The error is about an earlier datagram. This one has not been sent yet.
            self.queues.deferred.push_back(Deferred::Call(Box::new(move |cx| cx.state.report_refusal(place, number))));
            sent = socket.send(bytes, to, source);
        }
        match sent {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(e) if connected && is_refusal(&e) => Ok(false),
            Err(e) if e.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                let peer = self.datagrams.list.get(place).and_then(Port::peer);
                let longest = socket.longest_to(peer.filter(|_| *to == Addr::Unnamed).unwrap_or(to));
                Err(DatagramTooLong::new(bytes.len(), longest).into())
            }
            Err(e) => Err(e),
        }
    }

    /// Connects the port to one peer. The port keeps the kernel's name of the peer, because it compares received
    /// datagrams with that. The name may differ from `peer`: 0.0.0.0 is this host, a Unix socket has the path of its
    /// bind, and a flow label is dropped.
    pub(crate) fn connect_datagrams(&mut self, place: Place, delivering: Option<usize>, peer: &Addr) -> io::Result<()> {
        let port = self.datagrams.list.get_mut(place).ok_or_else(closed)?;
        let number = port.number_for(peer, delivering);
        let name = port.socket(number).ok_or_else(closed)?.connect(peer)?;
        port.connected = Some((number, name));
        Ok(())
    }

    /// Closes the sockets of a port. `stop_protocol` follows when no callback runs.
    pub(crate) fn close_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.list.get_mut(place).filter(|port| !port.sockets.is_empty()) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.queues.deferred.push_back(Deferred::EndDatagrams(place));
    }

    /// Closes the sockets of a port, and calls `stop_protocol` now. For use outside of callbacks.
    pub(crate) fn stop_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.list.get_mut(place) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.end_datagrams(place);
    }

    pub(crate) fn stop_all_datagrams(&mut self) {
        self.datagrams.list.ids().into_iter().for_each(|place| self.stop_datagrams(place));
    }

    /// Calls `stop_protocol` once, and drops the protocol. A protocol that has not begun is not called.
    pub(crate) fn end_datagrams(&mut self, place: Place) {
        let Some(Port { protocol: Some(mut protocol), started, timers, .. }) = self.datagrams.list.remove(place) else {
            return;
        };
        for timer in timers {
            self.cancel(timer);
        }
        if started {
            self.call_free("stop_protocol", |cx| protocol.stop_protocol(cx));
        }
        forget(protocol);
    }

    /// Calls a protocol outside of a delivery. An error or a panic is reported.
    pub(crate) fn call_datagrams(
        &mut self,
        place: Place,
        delivery: Delivery,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramTransport<'_>) -> HandlerResult,
    ) {
        let Some((outcome, _)) = self.call_protocol(place, delivery, callback, call) else { return };
        if let Some(port) = self.datagrams.list.get(place) {
            self.core.monitor.report_callback(port.peer().unwrap_or(&port.addr), &outcome);
        }
        forget(outcome);
    }

    /// Calls a protocol, out of its slot as in `call_once`. The `bool` is true if a reply has found no peer.
    fn call_protocol(
        &mut self,
        place: Place,
        delivery: Delivery,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramTransport<'_>) -> HandlerResult,
    ) -> Option<(Outcome, bool)> {
        // Out of its slot: the transport borrows all the rest, and the callback may close the port.
        let mut protocol = self.datagrams.list.get_mut(place)?.protocol.take()?;
        let peer = delivery.from.clone();
        self.time.now = self.time.clock.now();
        let mut transport = DatagramTransport { cx: Context { state: self }, place, delivery };
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, &mut transport)));
        let lost = transport.delivery.lost;
        if let Some(port) = self.datagrams.list.get_mut(place) {
            port.protocol = Some(protocol);
        }
        self.note_stall(callback, peer.as_ref());
        let outcome = match result {
            Ok(Ok(())) => Outcome::Served,
            Ok(Err(e)) => Outcome::Failed(e),
            Err(payload) => Outcome::Panicked(take_message(payload)),
        };
        Some((outcome, lost))
    }
}

/// True if no socket listens at the address of an earlier datagram.
fn is_refusal(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ConnectionRefused
}

impl Context<'_> {
    /// Binds as [`Reactor::listen_udp`](crate::Reactor::listen_udp) does; `start_protocol` follows after this callback.
    /// Give an IP address: the loop waits for the lookup of a name.
    ///
    /// # Errors
    /// As there.
    pub fn listen_udp(
        &mut self,
        address: impl Into<Address>,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<DatagramPort, Error> {
        let port = self.state.listen_udp(&address.into(), Box::new(protocol))?;
        let place = port.place;
        self.state.queues.deferred.push_back(Deferred::Call(Box::new(move |cx| cx.state.start_datagrams(place))));
        Ok(port)
    }

    /// Sends a datagram from a socket of this loop, as
    /// [`DatagramTransport::send_to`](crate::event_loop::DatagramTransport::send_to) does. `false` if there was no
    /// room, and it was dropped. The socket's protocol is not called.
    ///
    /// # Errors
    /// As there, and [`io::ErrorKind::NotConnected`] once the socket is closed, and for one of another loop.
    pub fn send_datagram(&mut self, port: &DatagramPort, to: &Addr, bytes: &[u8]) -> io::Result<bool> {
        self.state.send_datagram(port.place, None, to, bytes, None)
    }

    /// Closes a datagram socket. `stop_protocol` follows after this callback.
    pub fn stop_listening_udp(&mut self, port: &DatagramPort) {
        self.state.close_datagrams(port.place);
    }
}

impl DatagramTransport<'_> {
    /// Sends a datagram at once. A reply leaves from the address that the request was sent to. A datagram to the other
    /// address family leaves from a socket of that family, if the port has one.
    ///
    /// `false` if the queue of the kernel, or of a Unix socket that is not read, is full. The datagram is then dropped,
    /// as the network may drop any.
    ///
    /// # Errors
    /// [`DatagramTooLong`](crate::connection::DatagramTooLong) inside an [`io::ErrorKind::InvalidInput`].
    /// [`io::ErrorKind::NotConnected`] for a reply to a peer that is gone. The same for a peer without an address
    /// (port 0, a Unix socket without a name). Otherwise as sendmsg(2) fails: no route, no such Unix socket.
    pub fn send_to(&mut self, to: &Addr, bytes: &[u8]) -> io::Result<bool> {
        let replies = self.delivery.from.as_ref() == Some(to);
        let source = self.delivery.source.filter(|_| replies);
        let sent = self.cx.state.send_datagram(self.place, self.delivery.number, to, bytes, source);
        sent.map_err(|e| if replies { self.explain(e, to) } else { e })
    }

    /// Makes an error for people out of that of a failed reply. It says whose fault it is.
    fn explain(&mut self, e: io::Error, to: &Addr) -> io::Error {
        let why = Unsent::of(&e, to);
        self.delivery.lost |= matches!(why, Unsent::Gone | Unsent::Other);
        match why {
            Unsent::Gone => gone(to),
            Unsent::NoReply => no_reply_to(to, &e),
            Unsent::TooLong | Unsent::Other => e,
        }
    }

    /// Sends to the peer that the socket is connected to, as [`send_to`](Self::send_to).
    ///
    /// # Errors
    /// As there; if the socket is not connected, `EDESTADDRREQ` or [`io::ErrorKind::NotConnected`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.cx.state.send_datagram(self.place, self.delivery.number, &Addr::Unnamed, bytes, None)
    }

    /// Connects the socket to one peer: datagrams of other peers are not delivered any more. If the peer does not
    /// listen, [`connection_refused`](DatagramProtocol::connection_refused) is called. Nothing is sent for it.
    ///
    /// # Errors
    /// As connect(2) fails.
    pub fn connect(&mut self, peer: &Addr) -> io::Result<()> {
        self.cx.state.connect_datagrams(self.place, self.delivery.number, peer)
    }

    /// Returns the address that the datagram was sent to. Outside of
    /// [`datagram_received`](DatagramProtocol::datagram_received) it is the address that the socket is bound to.
    pub fn local_addr(&self) -> Addr {
        let bound = || self.cx.state.datagrams.list.get(self.place).map(|port| port.addr().clone());
        self.delivery.to.clone().or_else(bound).unwrap_or(Addr::Unnamed)
    }

    /// True if the datagram was longer than the data that is delivered.
    pub fn is_truncated(&self) -> bool {
        self.delivery.truncated
    }

    /// Returns how many bytes the datagram had.
    pub fn original_len(&self) -> usize {
        self.delivery.original_len
    }

    /// Returns the socket, for [`Context::send_datagram`] at other times.
    pub fn port(&self) -> DatagramPort {
        let addr = self.cx.state.datagrams.list.get(self.place).map_or(Addr::Unnamed, |port| port.addr().clone());
        DatagramPort { place: self.place, addr }
    }

    /// Closes the socket. Nothing more is delivered, not even datagrams that the kernel has already.
    /// [`stop_protocol`](DatagramProtocol::stop_protocol) follows after this callback.
    pub fn stop_listening(&mut self) {
        self.cx.state.close_datagrams(self.place);
    }
}

#[cfg(test)]
mod tests;
