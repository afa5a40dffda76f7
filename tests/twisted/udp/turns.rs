//! Turns of the loop: stops, bounds, pauses.

use super::*;

/// Twisted delivers what the kernel has already.
#[test]
fn after_a_stop_in_the_callback_nothing_more_is_delivered() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let stops = noting(&journal, |t, _, _| {
        t.stop_listening();
        t.stop_listening();
        Ok(())
    });
    let port = reactor.listen_udp(ANY, stops).unwrap();
    let client = client_of(&port);
    (0..3).for_each(|_| assert!(client.send(b"x").is_ok()));
    turn(&mut reactor);
    turn(&mut reactor);
    assert_eq!(journal.take(), "start data:x stop");
    assert!(is_free(at(&port)));
    let to = port.local_addr().clone();
    assert_eq!(sends(&mut reactor, &port, &to, &["x"]), [Err(io::ErrorKind::NotConnected)]);
}

#[test]
fn after_a_stop_of_the_loop_what_is_left_waits_for_the_next_run() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let stops = noting(&journal, |t, _, _| {
        t.stop();
        Ok(())
    });
    let port = reactor.listen_udp(ANY, stops).unwrap();
    let client = client_of(&port);
    ["one", "two"].iter().for_each(|text| assert!(client.send(text.as_bytes()).is_ok()));
    reactor.run().unwrap();
    assert_eq!(journal.take(), "start data:one");
    reactor.run().unwrap();
    assert_eq!(journal.take(), "data:two");
}

/// Twisted counts bytes only, so that empty datagrams can keep everybody else waiting.
#[test]
fn a_turn_delivers_so_many_datagrams() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    let client = client_of(&port);
    (0..200).for_each(|_| assert!(client.send(b"").is_ok()));
    for delivered in [64, 128, 192, 200] {
        turn(&mut reactor);
        assert_eq!(journal.count("data"), delivered);
    }
}

/// From several Unix sockets, since the kernel queues so much of neither one sender nor UDP.
#[test]
fn a_turn_delivers_so_many_bytes() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let name = format!("socketserver-twisted-bytes-{}", std::process::id());
    reactor.listen_udp(format!("unix:@{name}"), quiet(&journal)).unwrap();
    let to = UnixSocketAddr::from_abstract_name(name).unwrap();
    let senders: Vec<_> = (0..8).map(|_| UnixDatagram::unbound().unwrap()).collect();
    senders.iter().for_each(|sender| assert!(sender.send_to_addr(&[b'x'; 60_000], &to).is_ok()));
    for delivered in [5, 8] {
        turn(&mut reactor);
        assert_eq!(journal.count("data"), delivered, "256 KiB are reached with the fifth");
    }
}

#[test]
fn replies_leave_from_the_address_that_was_sent_to() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let tells = noting(&journal, |t, _, from| {
        let to = t.local_addr().to_string();
        t.send_to(from, to.as_bytes())?;
        Ok(())
    });
    let port = reactor.listen_udp("0.0.0.0:0", tells).unwrap();
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let to = SocketAddr::from((ip, at(&port).port()));
        let client = UdpSocket::bind(ANY).unwrap();
        client.connect(to).unwrap(); // hears only that server
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        client.send(b"x").unwrap();
        turn(&mut reactor);
        assert_eq!(next(&client), to.to_string().into_bytes());
    }
}

#[test]
fn a_full_queue_drops_and_says_so() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let name = |what| format!("socketserver-twisted-{what}-{}", std::process::id());
    let port = reactor.listen_udp(format!("unix:@{}", name("sender")), quiet(&journal)).unwrap();
    let to = Addr::Abstract(name("deaf").into_bytes());
    let addr = UnixSocketAddr::from_abstract_name(name("deaf")).unwrap();
    let deaf = UnixDatagram::bind_addr(&addr).unwrap();
    let sent = Rc::new(RefCell::new(0));
    let counted = sent.clone();
    reactor.call_when_running(move |cx| {
        while *counted.borrow() < 10_000 && cx.send_datagram(&port, &to, b"x").unwrap() {
            *counted.borrow_mut() += 1;
        }
    });
    turn(&mut reactor);
    assert!((1..10_000).contains(&*sent.borrow()));
    deaf.set_nonblocking(true).unwrap();
    assert_eq!((0..).take_while(|_| deaf.recv(&mut [0; 1]).is_ok()).count(), *sent.borrow(), "no other was sent");
}

#[test]
fn a_shutdown_stops_receiving_and_tells_the_protocol() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let shuts = noting(&journal, |t, _, _| {
        t.shutdown(Duration::from_secs(30));
        Ok(())
    });
    let port = reactor.listen_udp(ANY, shuts).unwrap();
    let client = client_of(&port);
    (0..3).for_each(|_| assert!(client.send(b"x").is_ok()));
    let report = reactor.run().unwrap();
    assert_eq!(journal.take(), "start data:x stop");
    assert_eq!((report.accepted, report.served), (1, 1));
    assert!(is_free(at(&port)));
}

#[test]
fn a_pause_leaves_datagrams_in_the_kernel() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let port = reactor.listen_udp(ANY, quiet(&journal)).unwrap();
    reactor.server().pause();
    client_of(&port).send(b"x").unwrap();
    turn(&mut reactor);
    turn(&mut reactor);
    assert_eq!(journal.take(), "start");
    reactor.server().resume();
    turn(&mut reactor);
    assert_eq!(journal.take(), "data:x");
}

#[test]
fn a_socket_that_is_opened_in_a_callback_begins_after_it() {
    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let inner = journal.clone();
    let opened = Rc::new(RefCell::new(None));
    let opens = opened.clone();
    reactor.call_when_running(move |cx| {
        *opens.borrow_mut() = Some(cx.listen_udp(ANY, quiet(&inner)).unwrap());
        let port = opens.borrow().clone().unwrap();
        UdpSocket::bind(ANY).unwrap().send_to(b"early", at(&port)).unwrap();
        inner.add("callback");
    });
    turns(&mut reactor, 3);
    assert_eq!(journal.take(), "callback start data:early");
    // One that is closed before it has begun hears of neither.
    let inner = journal.clone();
    reactor.call_when_running(move |cx| {
        let port = cx.listen_udp(ANY, quiet(&inner)).unwrap();
        cx.stop_listening_udp(&port);
    });
    turns(&mut reactor, 3);
    assert_eq!(journal.take(), "");
}

#[test]
fn a_quiet_socket_costs_no_turn() {
    let looped = script::run(move |reactor| {
        reactor.listen_udp(ANY, quiet(&Journal::default())).unwrap();
        reactor.listen_tcp(ANY, socketserver::factory(|_| script::Echo)).unwrap()
    });
    script::teller::assert_no_spin(&looped, "a socket without datagrams");
}
