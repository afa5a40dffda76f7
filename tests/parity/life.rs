//! S13 to S16 and S27: the life of a server, and of its threads.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socketserver::testing::TestServer;
use socketserver::{Error, ServerBuilder, TcpServer, Threading};

use crate::kit::{descriptors, ms, strategies, threads_named, until, Folder, Lines};
use crate::support::Server;
use crate::until_closed;

/// `test_shutdown`: also before the loop has begun.
#[test]
fn s13_a_shutdown_at_once_ends_twenty_servers() {
    for (name, _) in strategies() {
        let again = || strategies().into_iter().find(|(n, _)| *n == name).expect("it is there").1;
        let since = Instant::now();
        for turn in 0..20 {
            let server = TestServer::with(ServerBuilder::new().strategy(again()), Lines);
            if turn % 2 == 1 {
                server.handle().shutdown();
                server.handle().shutdown(); // twice is once
            }
            assert_eq!(server.stop().accepted, 0, "{name}");
        }
        // CPython's poll alone would take 10 s.
        assert!(since.elapsed() < Duration::from_secs(8), "{name}: {:?}", since.elapsed());
    }
}

/// The same for servers that fork.
#[test]
fn s13_a_shutdown_at_once_ends_forking_servers() {
    let mut servers: Vec<_> = (0..5).map(|_| Server::start("forking_server", &[])).collect();
    servers.iter().for_each(|server| server.signal("TERM"));
    servers.iter_mut().for_each(|server| assert_eq!(server.ended().code(), Some(0)));
}

/// `test_close_immediately`
#[test]
fn s14_a_server_that_never_served_can_be_dropped() {
    let server = TcpServer::<_, Threading>::bind("127.0.1.14:0", Lines).unwrap(); // not another test's port
    let addr = server.local_addr().socket_addr().unwrap();
    let waits = TcpStream::connect(addr).unwrap();
    drop(server);
    until_closed(addr);
    drop(waits);
}

/// `test_tcpserver_bind_leak`
#[test]
fn s15_a_thousand_failing_binds_leave_no_descriptor() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    fs::write(folder.path("file"), "in the way").unwrap();
    let addresses = [
        taken.local_addr().unwrap().to_string(),
        "127.0.0.1:-1".to_owned(),
        format!("unix:{}", folder.path("file").display()),
        "unix:/no/such/folder/socket".to_owned(),
    ];
    let before = descriptors();
    for _ in 0..1024 {
        for address in &addresses {
            let failed = TcpServer::<_, Threading>::bind(address, Lines);
            assert!(matches!(failed, Err(Error::Listen { .. })), "{address}: {failed:?}");
        }
    }
    // Other tests of this process come and go.
    assert!(descriptors() < before + 500, "{before} and then {}", descriptors());
}

/// `test_context_manager`
#[test]
fn s16_the_end_of_its_scope_closes_the_listener() {
    let addr = {
        let server = TcpServer::<_, Threading>::bind("127.0.1.16:0", Lines).unwrap();
        server.local_addr().socket_addr().unwrap()
    };
    until_closed(addr);
}

/// `test_threads_reaped`: of CPython's threads, those that had ended were kept until the server was closed.
#[test]
fn s27_threads_that_are_done_are_not_kept() {
    const NAME: &str = "s27-worker";
    let strategy = Threading::new().thread_name(NAME).keep_alive(ms(20));
    let server = TestServer::with(ServerBuilder::new().strategy(strategy), Lines);
    for _ in 0..10 {
        let mut client = server.connect();
        assert_eq!(client.ask("hello"), "hello");
        client.send("quit\n");
        assert_eq!(client.rest(), b"");
    }
    assert!(threads_named(NAME) < 10, "{}", threads_named(NAME));
    until("idle threads retire", || threads_named(NAME) <= 1);
    assert_eq!(server.stop().served, 10);
    until("the kernel has none any more", || threads_named(NAME) == 0);
}
