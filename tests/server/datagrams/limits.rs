//! Datagrams: limits, hooks, the stop.

use super::*;
use crate::support::AT_ONCE;

#[test]
fn never_more_handlers_run_than_the_limit_and_the_kernel_s_queue_waits() {
    for (name, strategy) in
        [("Threading", Box::new(Threading::new()) as AnyStrategy), ("ThreadPool", Box::new(ThreadPool::new(8)))]
    {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (now, seen) = (running.clone(), most.clone());
        let slow = datagram_handler(move |datagram| {
            seen.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(ms(2)); // so that they overlap
            now.fetch_sub(1, SeqCst);
            EchoBack.handle(datagram)
        });
        let builder = ServerBuilder::new().strategy(strategy).max_connections(3);
        let server = receive(builder.bind_udp(ANY, slow).unwrap());
        let client = server.client();
        (0..60).for_each(|n| send(&client, n.to_string()));
        let mut replies: Vec<usize> = (0..60).map(|_| next(&client).parse().unwrap()).collect();
        replies.sort_unstable();
        assert!(replies.into_iter().eq(0..60), "{name}: none is lost, none comes twice");
        assert_eq!(most.load(SeqCst), 3, "{name}");
        assert_eq!(server.stop().served, 60);
    }
}

#[test]
fn a_server_that_refuses_at_its_limit_replies_with_its_message() {
    let (release, held) = held_handler();
    let builder = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(b"busy".to_vec()));
    let server = receive(builder.bind_udp(ANY, held.handler).unwrap());
    let first = server.client();
    first.send(b"first").unwrap();
    held.begun.recv_timeout(LONG).unwrap();
    assert_eq!(server.ask("second"), "busy");
    release.send(()).unwrap();
    assert_eq!(next(&first), "first");
    let report = server.stop();
    assert_eq!((report.accepted, report.served, report.refused), (2, 1, 1));
}

#[test]
fn verify_request_decides_about_each_datagram() {
    for (name, strategy) in all() {
        let builder = ServerBuilder::new().strategy(strategy).verify_request(|incoming| {
            assert_eq!(incoming.peer_credentials(), None);
            incoming.peer_addr().ip() != Some([127, 0, 0, 3].into()) && incoming.local_addr().port() != Some(0)
        });
        let server = obeying(builder);
        let refused = UdpSocket::bind("127.0.0.3:0").unwrap();
        refused.send_to(b"x", server.addr()).unwrap();
        until("it is refused", || server.handle.stats().refused == 1);
        assert!(nothing_for(&refused), "{name}");
        assert_eq!(server.ask("x"), "1 of 1", "{name}");
    }
}

#[test]
fn single_requests_are_served_and_waited_for_in_vain() {
    for (name, strategy) in all() {
        let missed = Arc::new(AtomicUsize::new(0));
        let counted = missed.clone();
        let builder = ServerBuilder::new().strategy(strategy).handle_timeout(move || {
            counted.fetch_add(1, SeqCst);
        });
        let mut server = builder.bind_udp(ANY, EchoBack).unwrap();
        assert!(!server.handle_request(Some(ms(5))).unwrap());
        assert_eq!(missed.load(SeqCst), 1, "{name}");
        let client = client_of(server.local_addr().socket_addr().unwrap());
        for text in ["one", "two"] {
            client.send(text.as_bytes()).unwrap();
        }
        assert!(server.handle_request(None).unwrap());
        assert_eq!(next(&client), "one", "{name}");
        assert!(nothing_for(&client), "{name}: one is one");
        assert!(server.handle_request(Some(LONG)).unwrap());
        assert_eq!(next(&client), "two", "{name}");
    }
}

#[test]
fn service_actions_are_called_while_nothing_comes() {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = turns.clone();
    let server = obeying(ServerBuilder::new().service_actions(ms(1), move || {
        counted.fetch_add(1, SeqCst);
    }));
    until("three turns", || turns.load(SeqCst) >= 3);
    drop(server);
}

#[test]
fn what_is_queued_at_the_stop_is_served_and_then_it_stops() {
    for (name, strategy) in
        [("Sequential", Box::new(Sequential) as AnyStrategy), ("Threading", Box::new(Threading::new()))]
    {
        let (release, held) = held_handler();
        let builder = ServerBuilder::new().strategy(strategy).max_connections(1);
        let mut server = receive(builder.bind_udp(ANY, held.handler).unwrap());
        let client = server.client();
        (0..5).for_each(|n| send(&client, n.to_string()));
        held.begun.recv_timeout(LONG).unwrap();
        server.handle.shutdown();
        (0..5).for_each(|_| release.send(()).unwrap());
        let replies: Vec<String> = (0..5).map(|_| next(&client)).collect();
        assert_eq!(replies, ["0", "1", "2", "3", "4"], "{name}");
        let report = server.joined();
        assert_eq!((report.accepted, report.served, report.drained), (5, 5, 5), "{name}");
    }
}

#[test]
fn a_flood_does_not_hold_up_a_stop() {
    let server = obeying(ServerBuilder::new().drain_timeout(ms(300)));
    let client = server.client();
    let stop = Arc::new(AtomicUsize::new(0));
    let told = stop.clone();
    let flood = std::thread::spawn(move || {
        while told.load(SeqCst) == 0 {
            let _ = client.send(b"silent");
        }
    });
    until("it is flooded", || server.handle.stats().served > 1000);
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    stop.store(1, SeqCst);
    flood.join().unwrap();
}

#[test]
fn a_handler_may_stop_its_server_which_may_serve_again() {
    for (name, strategy) in all() {
        let builder = ServerBuilder::new().strategy(strategy);
        let mut server = builder.bind_udp(ANY, datagram_handler(obeys)).unwrap();
        let client = client_of(server.local_addr().socket_addr().unwrap());
        for _ in 0..2 {
            client.send(b"stop").unwrap();
            let report = server.serve_forever().unwrap();
            assert_eq!((report.served, report.drained), (1, 1), "{name}");
            assert_eq!(next(&client), "stopping", "{name}");
        }
    }
}

#[test]
fn a_handler_that_a_drain_leaves_behind_keeps_no_address() {
    let (release, held) = held_handler();
    let builder = ServerBuilder::new().drain_timeout(ms(50));
    let server = receive(builder.bind_udp(ANY, held.handler).unwrap());
    let (client, addr) = (server.client(), server.addr());
    send(&client, "x");
    held.begun.recv_timeout(LONG).unwrap();
    assert_eq!(server.stop().abandoned, 1);
    // A program that another test starts has it for a moment.
    until("the address is free although a handler is left", || UdpSocket::bind(addr).is_ok());
    release.send(()).unwrap();
}

#[test]
fn a_handler_that_a_drain_leaves_behind_sends_no_reply() {
    let (release, held) = held_handler();
    let (told, hears) = channel();
    let told = Mutex::new(told);
    let builder = ServerBuilder::new().drain_timeout(ms(50)).handle_error(move |failure| {
        if let Failure::Error { error, .. } = failure {
            let limit = error.downcast_ref::<io::Error>().and_then(Limit::of);
            told.lock().unwrap().send(limit).unwrap();
        }
    });
    let mut server = builder.bind_udp(ANY, held.handler).unwrap();
    let client = client_of(server.local_addr().socket_addr().unwrap());
    let handle = server.handle();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.serve_forever().unwrap());
        send(&client, "x");
        held.begun.recv_timeout(LONG).unwrap();
        handle.shutdown();
        assert_eq!(serving.join().unwrap().abandoned, 1);
    });
    release.send(()).unwrap(); // the server is still there, and its socket
    assert_eq!(hears.recv_timeout(LONG).unwrap(), Some(Limit::Drain));
    assert!(nothing_for(&client));
}
