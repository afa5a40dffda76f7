//! Timers and messages of a datagram socket.

use std::any::Any;
use std::time::Duration;

use socketserver::event_loop::{DatagramProtocol, DatagramTransport, TimerId};
use socketserver::{Addr, Context, HandlerResult, Reactor};

use super::{at, client_of, next, turn, turns, ANY};
use crate::script::Journal;

/// Sets a timer for each number that it is told, and repeats to its last peer what becomes of them.
struct Clock {
    journal: Journal,
    timers: Vec<TimerId>,
    peer: Addr,
}

impl DatagramProtocol for Clock {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        let millis: u64 = std::str::from_utf8(data)?.parse()?;
        self.timers.push(t.set_timer(Duration::from_millis(millis)));
        self.peer = from.clone();
        Ok(())
    }

    fn timer(&mut self, t: &mut DatagramTransport<'_>, timer: TimerId) -> HandlerResult {
        let place = self.timers.iter().position(|one| *one == timer).ok_or("an unknown timer")?;
        t.send_to(&self.peer, format!("timer {place}").as_bytes())?;
        Ok(())
    }

    fn message(&mut self, t: &mut DatagramTransport<'_>, message: Box<dyn Any>) -> HandlerResult {
        let text = message.downcast::<&str>().map_err(|_| "not a text")?;
        self.journal.add(format!("message:{text}"));
        if *text == "stop" {
            t.stop_listening();
        }
        Ok(())
    }

    fn stop_protocol(&mut self, _: &mut Context<'_>) {
        self.journal.add("stop");
    }
}

fn clock(journal: &Journal) -> Clock {
    Clock { journal: journal.clone(), timers: Vec::new(), peer: Addr::Unnamed }
}

#[test]
fn a_socket_has_timers_of_its_own() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, clock(&journal)).unwrap();
    let client = client_of(&port);
    client.send(b"3600000").unwrap();
    client.send(b"1").unwrap();
    reactor.turn(None).unwrap(); // the datagrams
    reactor.turn(None).unwrap(); // the timer
    assert_eq!(next(&client), b"timer 1");
}

#[test]
fn a_message_reaches_the_protocol_of_a_socket_after_the_callback() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, clock(&journal)).unwrap();
    turn(&mut reactor);
    let (to, notes) = (port.clone(), journal.clone());
    reactor.call_when_running(move |cx| {
        assert!(cx.post_to_port(&to, "hello") && cx.post_to_port(&to, 1) && cx.post_to_port(&to, "stop"));
        assert!(cx.post_to_port(&to, "too late"), "it is open still");
        notes.add("callback");
    });
    turns(&mut reactor, 3);
    assert_eq!(journal.take(), "callback message:hello message:stop stop");
    let to = port.clone();
    reactor.call_when_running(move |cx| assert!(!cx.post_to_port(&to, "gone")));
    turn(&mut reactor);
    assert!(super::is_free(at(&port)));
}

#[test]
fn timers_end_with_their_socket() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, clock(&journal)).unwrap();
    let client = client_of(&port);
    (0..40).for_each(|_| assert!(client.send(b"50").is_ok()));
    turn(&mut reactor);
    let to = port.clone();
    reactor.call_when_running(move |cx| cx.stop_listening_udp(&to));
    turns(&mut reactor, 2);
    let set = std::time::Instant::now();
    assert!(reactor.turn(Some(Duration::from_millis(100))).is_ok());
    assert!(set.elapsed() >= Duration::from_millis(100), "no timer ends the wait");
    assert_eq!(journal.take(), "stop");
}
