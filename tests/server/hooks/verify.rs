//! `verify_request`.

use super::*;

#[test]
fn verify_request_decides_which_clients_are_served() {
    for strategy in ALL {
        let (told, seen) = (Told::default(), Arc::new(Mutex::new(Vec::new())));
        let (log, turn) = (seen.clone(), AtomicUsize::new(0));
        let builder = ServerBuilder::new().handle_error(told.hook()).verify_request(move |incoming| {
            log.lock().unwrap().push((incoming.clone(), thread::current().id()));
            turn.fetch_add(1, SeqCst) % 2 == 1
        });
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let does: Does = Arc::new(move |_, _| count_one(&count));
        let server = Running::start(bind_doing(strategy, builder, does).unwrap());
        for round in 1..=3 {
            let client = Client::send(server.addr, "no");
            let peer = client.0.get_ref().local_addr().unwrap();
            assert_eq!(client.answer(), "", "{strategy:?}");
            let (incoming, thread) = seen.lock().unwrap().last().cloned().unwrap();
            assert_eq!(incoming.peer_addr().socket_addr(), Some(peer), "{strategy:?}");
            assert_eq!(incoming.local_addr().socket_addr(), Some(server.addr), "{strategy:?}");
            assert_ne!(thread, server.thread(), "{strategy:?}: it may be slow");
            assert_eq!(ask(server.addr, "yes"), "served yes", "{strategy:?}");
            assert_eq!(served.load(SeqCst), round, "{strategy:?}: no handler for a refused client");
        }
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.refused), (6, 3, 3), "{strategy:?}");
        assert_eq!(told.count(&["Refused", "PermissionDenied", "verify_request"]), 3, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a15_a_hook_that_hangs_costs_its_own_connection_only() {
    for strategy in ALL {
        let told = Told::default();
        let hung = if strategy == Seq { 1 } else { 3 };
        let (builder, door) = hanging(hung);
        let builder = builder.verify_timeout(Duration::from_millis(200)).handle_error(told.hook());
        let server = Running::start(bind(strategy, builder));
        let clients: Vec<Client> = (0..hung).map(|_| Client::send(server.addr, "hung")).collect();
        until("the hooks hang", || door.inside.load(SeqCst) == hung);
        for _ in 0..5 {
            assert_eq!(ask(server.addr, "other"), "served other", "{strategy:?}");
        }
        for client in clients {
            assert_eq!(client.answer(), "", "{strategy:?}");
        }
        until("their places are free", || server.handle.stats().active == 0);
        assert_eq!(door.inside.load(SeqCst), hung, "{strategy:?}: and the hooks hang on");
        door.open();
        until("the hooks return", || door.inside.load(SeqCst) == 0);
        assert_eq!(ask(server.addr, "later"), "served later", "{strategy:?}");
        let report = server.stop();
        assert_eq!((report.served, report.refused), (6, hung as u64), "{strategy:?}: a late yes is none");
        assert_eq!(told.count(&["Refused", "TimedOut", "200ms"]), hung, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a15_more_hung_hooks_than_threads_refuse_and_recover() {
    for strategy in [Thr, Loop] {
        let (builder, door) = hanging(usize::MAX);
        let server = Running::start(bind(strategy, builder.verify_timeout(Duration::from_millis(200))));
        let clients: Vec<Client> = (0..80).map(|_| Client::send(server.addr, "hung")).collect();
        for client in clients {
            assert_eq!(client.answer(), "", "{strategy:?}");
        }
        until("all are refused", || server.handle.stats().refused == 80);
        assert_eq!(door.inside.load(SeqCst), 64, "{strategy:?}: 64 at once, and no more");
        assert_eq!(ask(server.addr, "nobody to ask"), "", "{strategy:?}");
        door.open();
        until("the hooks return", || door.inside.load(SeqCst) == 0);
        assert_eq!(ask(server.addr, "again"), "served again", "{strategy:?}");
        assert_eq!(door.entered.load(SeqCst), 65, "{strategy:?}: the hook is not asked about a client that has gone");
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.refused), (82, 1, 81), "{strategy:?}");
    }
}

#[test]
fn a15_a_panic_in_verify_request_refuses_one_connection() {
    for strategy in ALL {
        let (told, calls) = (Told::default(), AtomicUsize::new(0));
        let builder = ServerBuilder::new().handle_error(told.hook()).verify_request(move |_| {
            assert!(calls.fetch_add(1, SeqCst) != 1, "no such name");
            true
        });
        let server = Running::start(bind(strategy, builder));
        let answers: Vec<String> = (0..3).map(|_| ask(server.addr, "x")).collect();
        assert_eq!(answers, ["served x", "", "served x"], "{strategy:?}");
        let report = server.stop();
        assert_eq!((report.served, report.refused, report.panicked), (2, 1, 0), "{strategy:?}");
        assert_eq!(told.count(&["Hook", "\"verify_request\"", "no such name"]), 1, "{strategy:?}: {:?}", told.0);
        assert_eq!(told.count(&["Refused", "no such name"]), 1, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a_stop_waits_for_a_verification_within_the_drain_limit() {
    for strategy in ALL {
        let (builder, door) = hanging(1);
        let server = Running::start(bind(strategy, builder.verify_timeout(LIMIT).drain_timeout(LIMIT)));
        let client = Client::send(server.addr, "last");
        until("the hook hangs", || door.inside.load(SeqCst) == 1);
        server.handle.shutdown();
        assert!(!comes_true(Duration::from_millis(50), || server.serving.is_finished()), "{strategy:?}");
        assert_eq!(server.handle.stats().active, 1, "{strategy:?}");
        door.open();
        assert_eq!(client.answer(), "served last", "{strategy:?}");
        assert_eq!(server.ended().served, 1, "{strategy:?}");
    }
}

#[test]
fn a_drain_that_is_over_cuts_verifications() {
    for strategy in ALL {
        for now in [false, true] {
            let (builder, door) = hanging(1);
            let drain = if now { LIMIT } else { Duration::from_millis(100) };
            let server = Running::start(bind(strategy, builder.verify_timeout(LIMIT).drain_timeout(drain)));
            let client = Client::send(server.addr, "cut");
            until("the hook hangs", || door.inside.load(SeqCst) == 1);
            let started = Instant::now();
            if now {
                server.handle.shutdown_now();
            } else {
                server.handle.shutdown();
            }
            let report = server.ended();
            assert!(started.elapsed() < AT_ONCE, "{strategy:?}, now {now}: {:?}", started.elapsed());
            assert_eq!((report.refused, report.abandoned), (1, 0), "{strategy:?}, now {now}");
            assert_eq!(client.answer(), "", "{strategy:?}, now {now}");
            door.open();
        }
    }
}

#[test]
fn a_single_request_is_verified_too() {
    for strategy in ALL {
        let calls = AtomicUsize::new(0);
        let mut server = bind(strategy, ServerBuilder::new().verify_request(move |_| calls.fetch_add(1, SeqCst) == 1));
        let first = Client::send(server.addr(), "x");
        assert!(server.handle_request(None).unwrap(), "{strategy:?}");
        assert_eq!(first.answer(), "", "{strategy:?}");
        let second = Client::send(server.addr(), "x");
        assert!(server.handle_request(None).unwrap(), "{strategy:?}");
        assert_eq!(second.answer(), "served x", "{strategy:?}");
    }
}

#[test]
fn hooks_come_in_python_s_order() {
    struct Ordered(Arc<Mutex<Vec<&'static str>>>);
    impl StreamRequestHandler for Ordered {
        fn setup(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("setup");
            Ok(())
        }
        fn handle(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("handle");
            Err("no".into())
        }
        fn finish(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("finish");
            Ok(())
        }
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let (verified, failed) = (order.clone(), order.clone());
    let mut server = ServerBuilder::new()
        .strategy(Sequential)
        .verify_request(move |_| {
            verified.lock().unwrap().push("verify_request");
            true
        })
        .handle_error(move |_| failed.lock().unwrap().push("handle_error"))
        .bind_tcp("127.0.0.1:0", Ordered(order.clone()))
        .unwrap();
    let mut client = TcpStream::connect(server.local_addr().socket_addr().unwrap()).unwrap();
    server.handle_request(None).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(*order.lock().unwrap(), ["verify_request", "setup", "handle", "finish", "handle_error"]);
}
