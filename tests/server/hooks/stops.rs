//! H13: a handler or a hook stops the server from within.

use super::*;

#[test]
fn h13_a_handler_may_stop_its_server_and_drop_its_handle() {
    for strategy in ALL {
        let (last, waited) = (Arc::new(Mutex::new(None::<ServerHandle>)), Arc::new(Mutex::new(None)));
        let (mine, note) = (last.clone(), waited.clone());
        let does: Does = Arc::new(move |_, server| {
            server.shutdown();
            *note.lock().unwrap() = Some(matches!(server.wait(None), Err(Error::WaitInHandler)));
            drop(mine.lock().unwrap().take());
        });
        let mut server = bind_doing(strategy, ServerBuilder::new(), does).unwrap();
        let addr = server.addr();
        *last.lock().unwrap() = Some(server.handle());
        let serving = thread::spawn(move || server.serve());
        assert_eq!(ask(addr, "stop"), "served stop", "{strategy:?}");
        until("the server's end", || serving.is_finished());
        assert_eq!(serving.join().unwrap().unwrap().served, 1, "{strategy:?}");
        assert_eq!(*waited.lock().unwrap(), Some(true), "{strategy:?}: it would wait for itself");
        assert!(last.lock().unwrap().is_none(), "{strategy:?}");
    }
}

#[test]
fn h13_hooks_may_stop_the_server_and_not_wait_for_it() {
    for strategy in ALL {
        for hook in ["verify_request", "service_actions", "handle_error"] {
            let waited = Arc::new(Mutex::new(None));
            let (note, handle) = (waited.clone(), Arc::new(Mutex::new(None::<ServerHandle>)));
            let to_stop = handle.clone();
            let stop = move || {
                let server = to_stop.lock().unwrap().clone().unwrap();
                server.shutdown();
                *note.lock().unwrap() = Some(matches!(server.wait(None), Err(Error::WaitInHandler)));
            };
            let builder = ServerBuilder::new();
            let builder = match hook {
                "verify_request" => builder.verify_request(move |_| {
                    stop();
                    false
                }),
                "handle_error" => builder.verify_request(|_| false).handle_error(move |_| stop()),
                _ => builder.service_actions(Duration::from_millis(5), stop),
            };
            let server = bind(strategy, builder);
            *handle.lock().unwrap() = Some(server.handle());
            let server = Running::start(server);
            if hook != "service_actions" {
                assert_eq!(ask(server.addr, "x"), "", "{strategy:?}, {hook}");
            }
            server.ended();
            assert_eq!(*waited.lock().unwrap(), Some(true), "{strategy:?}, {hook}");
        }
    }
}
