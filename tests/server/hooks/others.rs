//! `service_actions`, `handle_timeout` and `handle_error`; servers in a loop of one's own.

use super::*;

#[test]
fn service_actions_are_called_on_the_serving_thread_at_their_pace() {
    const EVERY: Duration = Duration::from_millis(20);
    for strategy in ALL {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = calls.clone();
        let act = move || log.lock().unwrap().push((Instant::now(), thread::current().id()));
        let server = Running::start(bind(strategy, ServerBuilder::new().service_actions(EVERY, act)));
        let serving = server.thread();
        until("calls without clients", || calls.lock().unwrap().len() >= 3);
        for _ in 0..100 {
            assert_eq!(ask(server.addr, "x"), "served x", "{strategy:?}");
        }
        let so_far = calls.lock().unwrap().len();
        until("calls after clients", || calls.lock().unwrap().len() >= so_far + 3);
        server.stop();
        let calls = calls.lock().unwrap();
        assert!(calls.iter().all(|(_, thread)| *thread == serving), "{strategy:?}");
        let pauses = calls.windows(2).map(|pair| pair[1].0 - pair[0].0);
        pauses.for_each(|pause| assert!(pause >= EVERY, "{strategy:?}: {pause:?}"));
    }
}

#[test]
fn a_panic_in_service_actions_ends_nothing() {
    for strategy in ALL {
        let (told, calls) = (Told::default(), Arc::new(AtomicUsize::new(0)));
        let count = calls.clone();
        let builder = ServerBuilder::new().handle_error(told.hook());
        let server = Running::start(bind(
            strategy,
            builder.service_actions(Duration::from_millis(5), move || {
                count.fetch_add(1, SeqCst);
                panic!("not today");
            }),
        ));
        until("calls after a panic", || calls.load(SeqCst) >= 3);
        assert_eq!(ask(server.addr, "x"), "served x", "{strategy:?}");
        assert_eq!(server.stop().served, 1, "{strategy:?}");
        assert!(told.count(&["Hook", "\"service_actions\"", "not today"]) >= 3, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn handle_timeout_is_called_when_a_single_request_has_not_come() {
    for strategy in ALL {
        let (told, calls, acts) = (Told::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, acted) = (calls.clone(), acts.clone());
        let builder = ServerBuilder::new().handle_error(told.hook()).handle_timeout(move || {
            assert!(count.fetch_add(1, SeqCst) != 1, "the second one");
        });
        let builder = builder.service_actions(Duration::from_nanos(1), move || count_one(&acted));
        let mut server = bind(strategy, builder);
        let some = Some(Duration::from_millis(10));
        assert!(!server.handle_request(some).unwrap() && calls.load(SeqCst) == 1, "{strategy:?}");
        assert!(!server.handle_request(some).unwrap() && calls.load(SeqCst) == 2, "{strategy:?}: it panics");
        assert_eq!(told.count(&["Hook", "\"handle_timeout\"", "the second one"]), 1, "{strategy:?}: {:?}", told.0);
        let client = Client::send(server.addr(), "x");
        assert!(server.handle_request(Some(LIMIT)).unwrap(), "{strategy:?}");
        assert_eq!((client.answer().as_str(), calls.load(SeqCst)), ("served x", 2), "{strategy:?}");
        server.handle().shutdown();
        assert!(!server.handle_request(Some(LIMIT)).unwrap(), "{strategy:?}");
        assert_eq!(calls.load(SeqCst), 2, "{strategy:?}: a stop is no timeout");
        assert_eq!(acts.load(SeqCst), 0, "{strategy:?}: service_actions are serve_forever's, as in Python");
    }
}

#[test]
fn a_panic_in_handle_error_ends_nothing() {
    for strategy in ALL {
        let builder = ServerBuilder::new().handle_error(|_| panic!("worse")).verify_request(|_| false);
        let server = Running::start(bind(strategy, builder));
        for _ in 0..3 {
            assert_eq!(ask(server.addr, "x"), "", "{strategy:?}");
        }
        assert_eq!(server.stop().refused, 3, "{strategy:?}");
    }
}

#[test]
fn times_of_zero_are_no_times() {
    let verify = ServerBuilder::new().verify_timeout(Duration::ZERO);
    let actions = ServerBuilder::new().service_actions(Duration::ZERO, || {});
    let long = ServerBuilder::new().verify_timeout(Duration::MAX);
    for (name, builder) in [("verify_timeout", verify), ("service_actions", actions), ("verify_timeout", long)] {
        let error = builder.bind_tcp("127.0.0.1:0", Echo(Arc::new(|_, _| {}))).err().unwrap();
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn a_server_can_be_embedded_in_a_loop_of_one_s_own() {
    for strategy in ALL {
        let timeouts = Arc::new(AtomicUsize::new(0));
        let count = timeouts.clone();
        let mut server = bind(strategy, ServerBuilder::new().handle_timeout(move || count_one(&count)));
        let mut selector = Selector::new().unwrap();
        server.watch(&mut selector);
        let started = Instant::now();
        assert!(!server.handle_request(Some(Duration::ZERO)).unwrap(), "{strategy:?}");
        assert!(started.elapsed() < AT_ONCE && timeouts.load(SeqCst) == 1, "{strategy:?}: without a wait");
        let clients: Vec<Client> = (0..3).map(|_| Client::send(server.addr(), "x")).collect();
        let mut taken = 0;
        while taken < clients.len() {
            assert!(!selector.select(Some(LIMIT)).unwrap().is_empty(), "{strategy:?}: {taken} taken");
            taken += usize::from(server.handle_request(Some(Duration::ZERO)).unwrap());
        }
        for client in clients {
            assert_eq!(client.answer(), "served x", "{strategy:?}");
        }
    }
}

#[test]
fn every_listener_has_its_descriptor() {
    let server = ServerBuilder::new().listen("127.0.0.1:0").bind_tcp("127.0.0.1:0", Echo(Arc::new(|_, _| {}))).unwrap();
    let ours: Vec<SocketAddr> = server.local_addrs().filter_map(|addr| addr.socket_addr()).collect();
    let theirs = server.listeners().map(|fd| std::net::TcpListener::from(fd.as_fd().try_clone_to_owned().unwrap()));
    assert_eq!(theirs.map(|l| l.local_addr().unwrap()).collect::<Vec<_>>(), ours);
}
