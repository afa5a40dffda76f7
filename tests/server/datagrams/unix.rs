//! Datagrams on Unix sockets.

use super::*;
use socketserver::ServerHandle;

fn unix_server(folder: &Folder, builder: ServerBuilder<impl ServingStrategy + 'static>) -> Receiving {
    receive(builder.bind_unix_datagram(folder.path("server"), datagram_handler(obeys)).unwrap())
}

#[test]
fn unix_clients_with_a_name_are_answered_whatever_it_is() {
    let folder = Folder::new();
    for (name, strategy) in all() {
        let server = unix_server(&folder, ServerBuilder::new().strategy(strategy));
        let client = unix_client(&folder.path("client"), &folder.path("server"));
        client.send(b"who").unwrap();
        let (ours, theirs) = (folder.path("server"), folder.path("client"));
        let expected = format!("unix:{} to unix:{}", theirs.display(), ours.display());
        assert_eq!(next_unix(&client), expected.into_bytes(), "{name}");
        std::fs::remove_file(theirs).unwrap();

        let name = format!("socketserver-test-client-{}", std::process::id());
        let client = UnixDatagram::bind_addr(&UnixSocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        client.send_to(b"who", folder.path("server")).unwrap();
        assert!(next_unix(&client).starts_with(format!("unix:@{name} to ").as_bytes()));
        assert_eq!(server.stop().served, 2);
    }
}

#[test]
fn an_abstract_name_is_received_on() {
    let name = format!("socketserver-test-server-{}", std::process::id());
    let server = receive(UdpServer::with_strategy(format!("unix:@{name}"), EchoBack, Sequential).unwrap());
    let folder = Folder::new();
    let client = UnixDatagram::bind(folder.path("client")).unwrap();
    client.connect_addr(&UnixSocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    client.send(b"hello").unwrap();
    assert_eq!(next_unix(&client), b"hello");
    drop(server);
}

#[test]
fn a_client_without_a_name_cannot_be_answered_and_the_error_says_so() {
    let folder = Folder::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = told.clone();
    let server = unix_server(
        &folder,
        ServerBuilder::new().handle_error(move |failure| hook.lock().unwrap().push(failure.to_string())),
    );
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"silent", folder.path("server")).unwrap(); // a datagram without an answer counts as served
    client.send_to(b"who", folder.path("server")).unwrap();
    until("both are done", || server.handle.stats().accepted == 2 && server.handle.stats().active == 0);
    let report = server.stop();
    assert_eq!((report.served, report.failed), (1, 1));
    let why = "the handler of unix: failed: the peer has no address to reply to: its socket is bound to no name";
    assert_eq!(*told.lock().unwrap(), [why]);
}

#[test]
fn a_unix_client_that_has_gone_is_no_failure() {
    let folder = Folder::new();
    let (release, held) = held_handler();
    let server = ServerBuilder::new().bind_unix_datagram(folder.path("server"), held.handler).unwrap();
    let server = receive(server);
    for remove in [false, true] {
        let client = unix_client(&folder.path("client"), &folder.path("server"));
        client.send(b"x").unwrap();
        held.begun.recv_timeout(LONG).unwrap();
        drop(client);
        if remove {
            std::fs::remove_file(folder.path("client")).unwrap();
        }
        release.send(()).unwrap();
        until("it is done", || server.handle.stats().active == 0);
        let _ = std::fs::remove_file(folder.path("client"));
    }
    let report = server.stop();
    assert_eq!((report.disconnected, report.failed), (2, 0));
}

/// Sends to itself through the server, and reads nothing, until its queue is full. That shows in what the server does.
fn fill(client: &UnixDatagram, server: &Receiving, is_full: impl Fn(&ServerHandle) -> bool) {
    client.set_nonblocking(true).unwrap();
    until("the client's queue is full", || {
        if server.handle.stats().active == 0 {
            let _ = client.send(b"fill");
        }
        is_full(&server.handle)
    });
    client.set_nonblocking(false).unwrap();
}

#[test]
fn a_client_that_reads_nothing_holds_a_handler_up_to_the_write_limit() {
    let folder = Folder::new();
    let builder = ServerBuilder::new().strategy(Sequential).write_timeout(ms(300));
    let server = unix_server(&folder, builder);
    let client = unix_client(&folder.path("client"), &folder.path("server"));
    fill(&client, &server, |handle| handle.stats().timed_out > 0);
    let before = server.handle.stats().served;
    assert!(!next_unix(&client).is_empty());
    client.send(b"and another").unwrap();
    until("there is room again", || server.handle.stats().served > before);
    let report = server.stop();
    assert_eq!(report.failed, report.timed_out, "{report}");
}

#[test]
fn a_reply_that_waits_for_room_ends_with_the_drain() {
    let folder = Folder::new();
    for now in [false, true] {
        // A handler that waits for room does so for this time. On a busy machine, one that does not may take as long.
        let report = support::with_time_enough(ms(100), |time| {
            let strategy = if now { Box::new(Threading::new()) as AnyStrategy } else { Box::new(Sequential) };
            let server = unix_server(&folder, ServerBuilder::new().strategy(strategy).drain_timeout(ms(100)));
            let client = unix_client(&folder.path("client"), &folder.path("server"));
            let waits = |handle: &ServerHandle| {
                handle.stats().active > 0 && !support::comes_true(time, || handle.stats().active == 0)
            };
            fill(&client, &server, waits);
            let began = Instant::now();
            if now {
                server.handle.shutdown_now();
            }
            let report = server.stop();
            assert!(began.elapsed() < Duration::from_secs(10), "the write limit is 30 s");
            std::fs::remove_file(folder.path("client")).unwrap();
            (report.timed_out >= 1).then_some(report)
        });
        assert!(report.forced >= 1, "{report}");
    }
}

#[test]
fn a_socket_s_file_is_the_owner_s_and_goes_with_the_server() {
    let folder = Folder::new();
    let path = folder.path("server");
    drop(UnixDatagram::bind(&path).unwrap()); // dead: replaced
    let is_dead = || UnixDatagram::unbound().unwrap().connect(&path).is_err();
    until("it is nobody's", is_dead); // a program that another test starts has it for a moment
    let server = ServerBuilder::new().unix_mode(0o620).bind_unix_datagram(&path, EchoBack).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o620);
    let second = ServerBuilder::new().bind_unix_datagram(&path, EchoBack).unwrap_err();
    assert!(matches!(&second, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{second}");
    drop(server);
    assert!(!path.exists() && !folder.path("server.lock").exists());

    let server = UdpServer::with_strategy(path.as_path(), EchoBack, Sequential).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    drop(server);
    let is_refused = |what: &str| {
        let e = ServerBuilder::new().bind_unix_datagram(&path, EchoBack).unwrap_err();
        assert!(matches!(&e, Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse), "{what}: {e}");
        std::fs::remove_file(&path).unwrap();
    };
    let others = UnixDatagram::bind(&path).unwrap();
    is_refused("a datagram socket");
    drop(others);
    let others = UnixListener::bind(&path).unwrap();
    is_refused("a stream socket");
    drop(others);
}

/// The handler talks to something else, which has left. The datagram's sender has not.
#[test]
fn an_error_of_a_handler_s_own_connection_is_no_disconnect() {
    let failing = datagram_handler(|_| Err(io::Error::from(io::ErrorKind::ConnectionReset).into()));
    let server = receive(ServerBuilder::new().bind_udp(ANY, failing).unwrap());
    server.client().send(b"x").unwrap();
    until("it has failed", || server.handle.stats().failed == 1);
    let report = server.stop();
    assert_eq!((report.failed, report.disconnected), (1, 0), "{report}");
}
