//! The loop's sockets of datagrams: received from as far as a turn allows, and sent from at once.

use std::io;
use std::net::IpAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};

use nix::errno::Errno;

use log::Level;

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
use crate::net::{Addr, Address, DatagramSocket, Received};
use crate::observe::{log_line, Outcome};
use crate::panics::forget;
use crate::sys::Readiness;

/// What one socket may deliver in a turn; the rest waits for the next, and everybody else comes in between.
const DATAGRAMS: usize = 64;
const BYTES: usize = 256 << 10;

impl State {
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
        let port = Port { sockets, addr: addr.clone(), protocol: Some(protocol), started: false, connected: None };
        Ok(DatagramPort { place: self.datagrams.list.insert(port), addr })
    }

    /// The protocol hears that it begins, outside of any callback, and of datagrams from then on.
    pub(crate) fn start_datagrams(&mut self, place: Place) {
        if self.datagrams.list.get(place).map_or(true, |port| port.sockets.is_empty()) {
            return; // closed before it has begun
        }
        self.call_datagrams(place, Delivery::default(), "start_protocol", |p, t| p.start_protocol(t));
        let Some(port) = self.datagrams.list.get_mut(place) else { return };
        port.started = true;
        if self.datagrams.receiving {
            self.watch_datagrams(place, true);
        }
    }

    /// Receives while nothing is against it.
    pub(crate) fn sync_datagrams(&mut self) {
        let paused = self.core.control.paused() && self.lent.is_none(); // who is being served goes on
        let receives = !(self.ports.rests || paused || self.stop.drain.is_some());
        if receives != self.datagrams.receiving {
            self.datagrams.receiving = receives;
            self.datagrams.list.ids().into_iter().for_each(|place| self.watch_datagrams(place, receives));
        }
    }

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

    /// A socket is readable, or has met an error.
    pub(crate) fn receive(&mut self, token: u64) {
        let (index, number) = token::place(token::DATAGRAMS, token);
        let Some(place) = self.datagrams.list.at(index).filter(|place| self.is_started(*place)) else { return };
        let (mut bytes, mut buffer) = (0, std::mem::take(&mut self.buffers.read));
        if buffer.len() < READ {
            buffer.resize(READ, 0); // a loop with smaller reads
        }
        for _ in 0..DATAGRAMS {
            // It may have been closed, or the loop told to stop, in the last one's callback.
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
        let connected = self.datagrams.list.get(place).and_then(Port::peer);
        if connected.is_some_and(|connected| *connected != peer) {
            return; // it came before the socket was connected
        }
        self.core.note_accepted(&peer);
        self.datagrams.received += 1;
        let delivery = Delivery {
            number: Some(number),
            from: Some(peer.clone()),
            to: Some(to),
            source: from,
            original_len: len,
            truncated: len > data.len(),
        };
        let outcome =
            self.call_protocol(place, delivery, "datagram_received", |p, t| p.datagram_received(t, data, &peer));
        if let Some(outcome) = outcome {
            self.core.monitor.report_end(&peer, false, &outcome, self.core.stop_phase());
            forget(outcome);
        }
    }

    fn receive_failed(&mut self, place: Place, number: usize, e: io::Error) {
        let Some(listener) = self.datagrams.list.get(place).and_then(|port| port.sockets.get(number)) else { return };
        if AcceptError::of(&e) == AcceptError::Gone {
            // Of what was sent before: told once for each, so nothing has to rest for it.
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

    /// What was sent before was not taken.
    fn report_refusal(&mut self, place: Place, number: usize) {
        let connected = self.datagrams.list.get(place).and_then(|port| port.connected.as_ref());
        if connected.is_some_and(|(connected, _)| *connected == number) {
            let delivery = Delivery { number: Some(number), ..Delivery::default() };
            self.call_datagrams(place, delivery, "connection_refused", |p, t| p.connection_refused(t));
        }
    }

    /// Sends at once; `false`: there was no room.
    pub(crate) fn send_datagram(
        &mut self,
        place: Place,
        delivering: Option<usize>,
        to: &Addr,
        bytes: &[u8],
        source: Option<IpAddr>,
    ) -> io::Result<bool> {
        let port = self.datagrams.list.get(place).ok_or_else(closed)?;
        let number = port.number_for(to, delivering);
        let socket = port.socket(number).cloned().ok_or_else(closed)?;
        let connected = port.connected.as_ref().is_some_and(|(connected, _)| *connected == number);
        let mut sent = socket.send(bytes, to, source);
        if connected && sent.as_ref().is_err_and(is_refusal) {
            // That is what an earlier one has met; this one has not been sent yet.
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

    pub(crate) fn connect_datagrams(&mut self, place: Place, delivering: Option<usize>, peer: &Addr) -> io::Result<()> {
        let port = self.datagrams.list.get_mut(place).ok_or_else(closed)?;
        let number = port.number_for(peer, delivering);
        let name = port.socket(number).ok_or_else(closed)?.connect(peer)?;
        port.connected = Some((number, name));
        Ok(())
    }

    /// Closes the sockets; the protocol hears of it when no callback runs.
    pub(crate) fn close_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.list.get_mut(place).filter(|port| !port.sockets.is_empty()) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.queues.deferred.push_back(Deferred::EndDatagrams(place));
    }

    /// From outside of a callback.
    pub(crate) fn stop_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.list.get_mut(place) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.end_datagrams(place);
    }

    pub(crate) fn stop_all_datagrams(&mut self) {
        self.datagrams.list.ids().into_iter().for_each(|place| self.stop_datagrams(place));
    }

    /// Once; one that has not begun hears of no end either.
    pub(crate) fn end_datagrams(&mut self, place: Place) {
        let Some(Port { protocol: Some(mut protocol), started, .. }) = self.datagrams.list.remove(place) else {
            return;
        };
        if started {
            self.call_free("stop_protocol", |cx| protocol.stop_protocol(cx));
        }
        forget(protocol);
    }

    /// Calls a protocol for what is no datagram: an error or a panic is told.
    fn call_datagrams(
        &mut self,
        place: Place,
        delivery: Delivery,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramTransport<'_>) -> HandlerResult,
    ) {
        let Some(outcome) = self.call_protocol(place, delivery, callback, call) else { return };
        if let Some(port) = self.datagrams.list.get(place) {
            self.core.monitor.report_callback(port.peer().unwrap_or(&port.addr), &outcome);
        }
        forget(outcome);
    }

    fn call_protocol(
        &mut self,
        place: Place,
        delivery: Delivery,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramTransport<'_>) -> HandlerResult,
    ) -> Option<Outcome> {
        let mut protocol = self.datagrams.list.get_mut(place)?.protocol.take()?;
        let peer = delivery.from.clone();
        self.time.now = self.time.clock.now();
        let mut transport = DatagramTransport { cx: Context { state: self }, place, delivery };
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, &mut transport)));
        if let Some(port) = self.datagrams.list.get_mut(place) {
            port.protocol = Some(protocol);
        }
        self.note_stall(callback, peer.as_ref());
        Some(match result {
            Ok(Ok(())) => Outcome::Served,
            Ok(Err(e)) => Outcome::Failed(e),
            Err(payload) => Outcome::Panicked(take_message(payload)),
        })
    }
}

/// Nobody listens where an earlier datagram was sent to.
fn is_refusal(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ConnectionRefused
}

impl Context<'_> {
    /// As [`Reactor::listen_udp`](crate::Reactor::listen_udp); the protocol hears of its start when this callback has
    /// returned. Give an IP address: a name is looked up at once, and the loop waits for that.
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

    /// Sends a datagram from a socket of this loop, whose protocol does not hear of it. `false`: there was no room, and it
    /// is dropped. As [`DatagramTransport::send_to`](crate::event_loop::DatagramTransport::send_to).
    ///
    /// # Errors
    /// As there, and [`io::ErrorKind::NotConnected`] once the socket is closed, and for one of another loop.
    pub fn send_datagram(&mut self, port: &DatagramPort, to: &Addr, bytes: &[u8]) -> io::Result<bool> {
        self.state.send_datagram(port.place, None, to, bytes, None)
    }

    /// Closes a socket of datagrams; its protocol hears of it when this callback has returned.
    pub fn stop_listening_udp(&mut self, port: &DatagramPort) {
        self.state.close_datagrams(port.place);
    }
}

impl DatagramTransport<'_> {
    /// Sends a datagram, at once; a reply leaves from the address that was sent to, and what goes to an address of the other
    /// family from a socket of that family, where the port has one. `false`: the kernel's queue, or that of
    /// a Unix socket which nobody reads, is full, and the datagram is dropped, as the network may drop any.
    ///
    /// # Errors
    /// [`DatagramTooLong`](crate::connection::DatagramTooLong) inside an [`io::ErrorKind::InvalidInput`], and as sendmsg(2) fails: no
    /// way there, nobody has that Unix socket.
    pub fn send_to(&mut self, to: &Addr, bytes: &[u8]) -> io::Result<bool> {
        let source = self.delivery.source.filter(|_| self.delivery.from.as_ref() == Some(to));
        self.cx.state.send_datagram(self.place, self.delivery.number, to, bytes, source)
    }

    /// Sends to the peer that the socket is connected to, as [`send_to`](Self::send_to).
    ///
    /// # Errors
    /// As there; where the socket is not connected, `EDESTADDRREQ` or [`io::ErrorKind::NotConnected`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.cx.state.send_datagram(self.place, self.delivery.number, &Addr::Unnamed, bytes, None)
    }

    /// Talks to this peer only, from now on: others are not heard any more, and
    /// [`connection_refused`](DatagramProtocol::connection_refused) tells when it is not there. Nothing is sent for it.
    ///
    /// # Errors
    /// As connect(2) fails.
    pub fn connect(&mut self, peer: &Addr) -> io::Result<()> {
        self.cx.state.connect_datagrams(self.place, self.delivery.number, peer)
    }

    /// Where the datagram was sent to; outside of [`datagram_received`](DatagramProtocol::datagram_received) what the
    /// socket is bound to.
    pub fn local_addr(&self) -> Addr {
        let bound = || self.cx.state.datagrams.list.get(self.place).map(|port| port.addr().clone());
        self.delivery.to.clone().or_else(bound).unwrap_or(Addr::Unnamed)
    }

    /// Whether the datagram was longer than what is delivered.
    pub fn is_truncated(&self) -> bool {
        self.delivery.truncated
    }

    /// How many bytes the datagram had.
    pub fn original_len(&self) -> usize {
        self.delivery.original_len
    }

    /// The socket, for [`Context::send_datagram`] at other times.
    pub fn port(&self) -> DatagramPort {
        let addr = self.cx.state.datagrams.list.get(self.place).map_or(Addr::Unnamed, |port| port.addr().clone());
        DatagramPort { place: self.place, addr }
    }

    /// Closes the socket. Nothing more is delivered, not even what the kernel has already;
    /// [`stop_protocol`](DatagramProtocol::stop_protocol) follows when this callback has returned.
    pub fn stop_listening(&mut self) {
        self.cx.state.close_datagrams(self.place);
    }
}

#[cfg(test)]
mod tests;
