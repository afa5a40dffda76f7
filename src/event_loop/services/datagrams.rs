//! The loop's sockets of datagrams: received from as far as a turn allows, and sent from at once.

use std::io;
use std::net::IpAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use nix::errno::Errno;

use crate::accept::{after_failure, NextStep};
use crate::connection::DatagramTooLong;
use crate::error::{Error, HandlerResult, Result};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::token::{self, AT_A_TIME, PER_PORT};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::datagram_protocol::{DatagramPort, DatagramProtocol, DatagramTransport, Delivery};
use crate::event_loop::state::{Soon, State, Task, READ};
use crate::listen::{bind, AcceptError, BindOptions, Listener};
use crate::net::{Addr, Address, DatagramSocket, Received};
use crate::observe::Outcome;
use crate::panics::forget;
use crate::sys::Readiness;

/// What one socket may deliver in a turn; the rest waits for the next, and everybody else comes in between.
const DATAGRAMS: usize = 64;
const BYTES: usize = 256 << 10;

/// The sockets of one address, which share a protocol.
pub(crate) struct Port {
    /// Empty once the port is closed, until the protocol has heard of it.
    sockets: Vec<Listener>,
    addr: Addr,
    /// Out while it is called, and gone at the end.
    protocol: Option<Box<dyn DatagramProtocol>>,
    /// Whether it has heard that it begins: before that nothing is delivered.
    started: bool,
    /// Which socket is connected, and to whom.
    connected: Option<(usize, Addr)>,
}

impl Port {
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    fn socket(&self, number: usize) -> Option<&Arc<DatagramSocket>> {
        self.sockets.get(number)?.datagram_socket()
    }

    fn peer(&self) -> Option<&Addr> {
        self.connected.as_ref().map(|(_, peer)| peer)
    }

    /// The socket to send from: the one that has the datagram in delivery, or else the one that is connected, or else the
    /// first, but one of the address's family before any other.
    fn number_for(&self, to: &Addr, delivering: Option<usize>) -> usize {
        let connected = self.connected.as_ref().map(|(number, _)| *number);
        let is_v4 = match to {
            Addr::Ip(to) => to.is_ipv4(),
            Addr::Unnamed => return connected.or(delivering).unwrap_or(0),
            Addr::Unix(_) | Addr::Abstract(_) => return 0,
        };
        let is_of_the_family = |number: &usize| {
            let addr = self.sockets.get(*number).and_then(|socket| socket.local_addr().socket_addr());
            addr.is_some_and(|addr| addr.is_ipv4() == is_v4)
        };
        let mut by_rank = delivering.into_iter().chain(connected).chain(0..self.sockets.len());
        by_rank.find(is_of_the_family).or(delivering).or(connected).unwrap_or(0)
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is closed")
}

impl State {
    pub(crate) fn listen_udp(
        &mut self,
        address: &Address,
        protocol: Box<dyn DatagramProtocol>,
    ) -> Result<DatagramPort> {
        let sockets = bind(address, BindOptions::datagrams())?;
        if sockets.len() > PER_PORT || self.datagrams.len() >= AT_A_TIME {
            let why = format!("a loop takes {PER_PORT} sockets in one port, and {AT_A_TIME} ports at a time, at most");
            return Err(Error::setting("listen_udp", why));
        }
        let addr = sockets.first().map_or(Addr::Unnamed, |socket| socket.local_addr().clone());
        let port = Port { sockets, addr: addr.clone(), protocol: Some(protocol), started: false, connected: None };
        Ok(DatagramPort { place: self.datagrams.insert(port), addr })
    }

    /// The protocol hears that it begins, outside of any callback, and of datagrams from then on.
    pub(crate) fn start_datagrams(&mut self, place: Place) {
        if self.datagrams.get(place).map_or(true, |port| port.sockets.is_empty()) {
            return; // closed before it has begun
        }
        self.call_datagrams(place, Delivery::default(), "start_protocol", |p, t| p.start_protocol(t));
        let Some(port) = self.datagrams.get_mut(place) else { return };
        port.started = true;
        if self.receiving {
            self.watch_datagrams(place, true);
        }
    }

    /// Receives while nothing is against it.
    pub(crate) fn mind_datagrams(&mut self) {
        let paused = self.core.control.paused() && self.lent.is_none(); // who is being served goes on
        let receives = !(self.rests || paused || self.drain.is_some());
        if receives != self.receiving {
            self.receiving = receives;
            self.datagrams.ids().into_iter().for_each(|place| self.watch_datagrams(place, receives));
        }
    }

    fn watch_datagrams(&mut self, place: Place, watch: bool) {
        let Some(port) = self.datagrams.get(place).filter(|port| port.started) else { return };
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
            log::error!(target: "socketserver::event_loop", "gave up {}, which cannot be watched: {e}", port.addr);
            self.close_datagrams(place);
        }
    }

    /// A socket is readable, or has met an error.
    pub(crate) fn receive(&mut self, token: u64) {
        let (index, number) = token::place(token::DATAGRAMS, token);
        let Some(place) = self.datagrams.at(index).filter(|place| self.is_started(*place)) else { return };
        let (mut bytes, mut buffer) = (0, std::mem::take(&mut self.buffer));
        if buffer.len() < READ {
            buffer.resize(READ, 0); // a loop with smaller reads
        }
        for _ in 0..DATAGRAMS {
            // It may have been closed, or the loop told to stop, in the last one's callback.
            let Some(port) = self.datagrams.get(place).filter(|_| !self.rests && !self.stop && self.drain.is_none())
            else {
                break;
            };
            let Some(socket) = port.socket(number).cloned() else { break };
            match socket.receive_into(&mut buffer) {
                Ok(received) => {
                    self.core.backoff.is_over();
                    bytes += received.len.min(buffer.len());
                    let data = buffer.get(..received.len).unwrap_or(&buffer);
                    self.deliver(place, number, &socket, received, data);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.receive_failed(place, number, e),
            }
            if bytes >= BYTES {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn is_started(&self, place: Place) -> bool {
        self.datagrams.get(place).is_some_and(|port| port.started)
    }

    fn deliver(&mut self, place: Place, number: usize, socket: &DatagramSocket, received: Received, data: &[u8]) {
        let to = socket.local_of(&received);
        let Received { len, peer, from, .. } = received;
        let connected = self.datagrams.get(place).and_then(Port::peer);
        if connected.is_some_and(|connected| *connected != peer) {
            return; // it came before the socket was connected
        }
        self.core.note_accepted(&peer);
        self.received += 1;
        let delivery = Delivery {
            number: Some(number),
            from: Some(peer.clone()),
            to: Some(to),
            source: from,
            original_len: len,
            truncated: len > data.len(),
        };
        let outcome = self.outcome_of(place, delivery, "datagram_received", |p, t| p.datagram_received(t, data, &peer));
        if let Some(outcome) = outcome {
            self.core.monitor.report_end(&peer, false, &outcome, self.core.stop_phase());
            forget(outcome);
        }
    }

    fn receive_failed(&mut self, place: Place, number: usize, e: io::Error) {
        let Some(listener) = self.datagrams.get(place).and_then(|port| port.sockets.get(number)) else { return };
        if AcceptError::of(&e) == AcceptError::Gone {
            // Of what was sent before: told once for each, so nothing has to rest for it.
            self.core.monitor.report_accept_error(listener.local_addr(), &e, false);
            if is_refusal(&e) {
                self.refused(place, number);
            }
            return;
        }
        match after_failure(&self.core, listener, e) {
            NextStep::GoOn => {}
            NextStep::Rest(time) => {
                self.rests = true;
                self.timers.set(self.now, time, Task::Rested);
            }
            NextStep::Lost(_) => self.close_datagrams(place),
        }
    }

    /// What was sent before was not taken.
    fn refused(&mut self, place: Place, number: usize) {
        let connected = self.datagrams.get(place).and_then(|port| port.connected.as_ref());
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
        let port = self.datagrams.get(place).ok_or_else(closed)?;
        let number = port.number_for(to, delivering);
        let socket = port.socket(number).cloned().ok_or_else(closed)?;
        let connected = port.connected.as_ref().is_some_and(|(connected, _)| *connected == number);
        let mut sent = socket.send(bytes, to, source);
        if connected && sent.as_ref().is_err_and(is_refusal) {
            // That is what an earlier one has met; this one has not been sent yet.
            self.soon.push_back(Soon::Call(Box::new(move |cx| cx.state.refused(place, number))));
            sent = socket.send(bytes, to, source);
        }
        match sent {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(e) if connected && is_refusal(&e) => Ok(false),
            Err(e) if e.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                let peer = self.datagrams.get(place).and_then(Port::peer);
                let longest = socket.longest_to(peer.filter(|_| *to == Addr::Unnamed).unwrap_or(to));
                Err(DatagramTooLong::new(bytes.len(), longest).into())
            }
            Err(e) => Err(e),
        }
    }

    pub(crate) fn connect_datagrams(&mut self, place: Place, delivering: Option<usize>, peer: &Addr) -> io::Result<()> {
        let port = self.datagrams.get_mut(place).ok_or_else(closed)?;
        let number = port.number_for(peer, delivering);
        let name = port.socket(number).ok_or_else(closed)?.connect(peer)?;
        port.connected = Some((number, name));
        Ok(())
    }

    /// Closes the sockets; the protocol hears of it when no callback runs.
    pub(crate) fn close_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.get_mut(place).filter(|port| !port.sockets.is_empty()) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.soon.push_back(Soon::EndDatagrams(place));
    }

    /// From outside of a callback.
    pub(crate) fn stop_datagrams(&mut self, place: Place) {
        let Some(port) = self.datagrams.get_mut(place) else { return };
        port.sockets.drain(..).for_each(|socket| self.poller.remove(&socket));
        self.end_datagrams(place);
    }

    pub(crate) fn stop_all_datagrams(&mut self) {
        self.datagrams.ids().into_iter().for_each(|place| self.stop_datagrams(place));
    }

    /// Once; one that has not begun hears of no end either.
    pub(crate) fn end_datagrams(&mut self, place: Place) {
        let Some(Port { protocol: Some(mut protocol), started, .. }) = self.datagrams.remove(place) else { return };
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
        let Some(outcome) = self.outcome_of(place, delivery, callback, call) else { return };
        if let Some(port) = self.datagrams.get(place) {
            self.core.monitor.report_callback(port.peer().unwrap_or(&port.addr), &outcome);
        }
        forget(outcome);
    }

    fn outcome_of(
        &mut self,
        place: Place,
        delivery: Delivery,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &mut DatagramTransport<'_>) -> HandlerResult,
    ) -> Option<Outcome> {
        let mut protocol = self.datagrams.get_mut(place)?.protocol.take()?;
        let peer = delivery.from.clone();
        self.now = self.clock.now();
        let mut transport = DatagramTransport { cx: Context { state: self }, place, delivery };
        let result = catch_unwind(AssertUnwindSafe(|| call(&mut *protocol, &mut transport)));
        if let Some(port) = self.datagrams.get_mut(place) {
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::UdpSocket;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::event_loop::Reactor;

    const HERE_V4: &str = "127.0.0.1:0";
    const HERE_V6: &str = "[::1]:0";
    const LONG: Option<Duration> = Some(Duration::from_secs(30));

    /// Notes what it is called for, and connects to whom it is sent the address of.
    #[derive(Clone, Default)]
    struct Noting(Rc<RefCell<Vec<String>>>);

    impl DatagramProtocol for Noting {
        fn start_protocol(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
            self.0.borrow_mut().push("start".into());
            Ok(())
        }

        fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], _: &Addr) -> HandlerResult {
            let text = String::from_utf8_lossy(data);
            self.0.borrow_mut().push(text.to_string());
            if let Ok(peer) = text.parse() {
                t.connect(&peer)?;
                t.write(b"hello")?;
            }
            Ok(())
        }

        fn connection_refused(&mut self, _: &mut DatagramTransport<'_>) -> HandlerResult {
            self.0.borrow_mut().push("refused".into());
            Ok(())
        }
    }

    fn client(address: &str) -> (UdpSocket, Addr) {
        let client = UdpSocket::bind(address).unwrap();
        client.set_read_timeout(LONG).unwrap();
        let addr = client.local_addr().unwrap().into();
        (client, addr)
    }

    fn text_of(client: &UdpSocket) -> String {
        let mut buf = [0; 100];
        let (n, _) = client.recv_from(&mut buf).unwrap();
        String::from_utf8_lossy(&buf[..n]).into()
    }

    fn addr_of(port: &Port, number: usize) -> Addr {
        port.sockets[number].local_addr().clone()
    }

    /// A port of both families, IPv6 first, as of a name that has both addresses; none where there is no IPv6.
    fn of_both(reactor: &mut Reactor, protocol: Noting) -> Option<DatagramPort> {
        let mut sockets = bind(&HERE_V6.into(), BindOptions::datagrams()).ok()?;
        sockets.extend(bind(&HERE_V4.into(), BindOptions::datagrams()).unwrap());
        let port = reactor.listen_udp("127.0.0.1:0", protocol).unwrap();
        reactor.state.datagrams.get_mut(port.place).unwrap().sockets = sockets;
        Some(port)
    }

    #[test]
    fn the_socket_is_chosen_by_the_family_and_by_whom_it_is_connected_to() {
        let (mut reactor, noting) = (Reactor::new().unwrap(), Noting::default());
        let Some(port) = of_both(&mut reactor, noting.clone()) else { return };
        let ((v4, v4_addr), (v6, v6_addr)) = (client(HERE_V4), client(HERE_V6));
        let send = |reactor: &mut Reactor, to: &Addr| {
            Context { state: &mut reactor.state }.send_datagram(&port, to, b"hello").unwrap()
        };
        assert!(send(&mut reactor, &v4_addr) && send(&mut reactor, &v6_addr));
        assert_eq!((text_of(&v4), text_of(&v6)), ("hello".into(), "hello".into()));
        assert!(Context { state: &mut reactor.state }.send_datagram(&port, &Addr::Unnamed, b"").is_err());

        // In the delivery by one family to a peer of the other, and from then on.
        let own = reactor.state.datagrams.get(port.place).map(|port| [addr_of(port, 0), addr_of(port, 1)]).unwrap();
        v6.send_to(v4_addr.to_string().as_bytes(), own[0].socket_addr().unwrap()).unwrap();
        assert!(reactor.turn(LONG).unwrap());
        assert_eq!(text_of(&v4), "hello");
        assert!(send(&mut reactor, &Addr::Unnamed));
        assert_eq!(text_of(&v4), "hello");
        v6.send_to(b"a stranger", own[0].socket_addr().unwrap()).unwrap();
        v4.send_to(b"friend", own[1].socket_addr().unwrap()).unwrap();
        assert!(reactor.turn(LONG).unwrap());
        drop(v4);
        send(&mut reactor, &Addr::Unnamed);
        assert!(reactor.turn(LONG).unwrap());
        assert_eq!(noting.0.take(), ["start", v4_addr.to_string().as_str(), "friend", "refused"]);
    }

    #[test]
    fn a_datagram_for_a_v4_address_may_leave_from_a_socket_of_both_kinds() {
        let (mut reactor, (v4, addr)) = (Reactor::new().unwrap(), client(HERE_V4));
        let Ok(port) = reactor.listen_udp("[::]:0", Noting::default()) else { return }; // no IPv6 here
        assert!(Context { state: &mut reactor.state }.send_datagram(&port, &addr, b"hello").unwrap());
        assert_eq!(text_of(&v4), "hello");
    }

    #[test]
    fn places_are_used_again_and_an_event_of_before_is_of_no_effect() {
        let (mut reactor, noting) = (Reactor::new().unwrap(), Noting::default());
        let gone = reactor.listen_udp(HERE_V4, Noting::default()).unwrap();
        let state = &mut reactor.state;
        state.stop_datagrams(gone.place);
        let port = state.listen_udp(&HERE_V4.into(), Box::new(noting.clone())).unwrap();
        assert_eq!((port.place.index(), state.datagrams.len()), (gone.place.index(), 1));
        let (client, _) = client(HERE_V4);
        client.send_to(b"early", port.local_addr().socket_addr().unwrap()).unwrap();
        state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0));
        assert!(noting.0.borrow().is_empty(), "before it has begun");
        state.start_datagrams(gone.place);
        state.start_datagrams(port.place);
        state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0));
        state.receive(token::of(token::DATAGRAMS, gone.place.index(), 0)); // in vain
        state.receive(token::of(token::DATAGRAMS, port.place.index() + 1, 0));
        assert_eq!(noting.0.take(), ["start", "early"]);
    }
}
