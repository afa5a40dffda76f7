//! What a stop does to connections that are parked.

use std::sync::mpsc;

use crate::kit::{ms, serve, until, LONG};
use crate::more::whole_line;
use crate::parked::{held, parking, talkers, until_parked};
use crate::{line, Talker, ANY};
use socketserver::{per_request, ServerBuilder, ThreadPool};

/// The one thread is busy when the stop comes. Connections that have sent nothing end nevertheless; a request that has come
/// is served.
#[test]
fn idle_connections_end_at_once_and_requests_are_served() {
    let ((begun, has_begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let server = ServerBuilder::new().strategy(ThreadPool::new(1)).bind(ANY, per_request(held(begun, go_on))).unwrap();
    let server = serve(server);
    let mut idle = talkers(&server, 30);
    idle.iter_mut().for_each(|client| client.echo("one"));
    let mut asks = Talker::to(&server);
    asks.echo("one");
    until_parked(&server, 31);
    let mut busy = Talker::to(&server);
    busy.say("hold\n");
    has_begun.recv_timeout(LONG).unwrap();
    asks.say("in time\n");
    until("it has arrived", || unread(&asks));
    server.handle.shutdown();
    idle.iter_mut().for_each(|client| assert_eq!(client.hear(), ""));
    go.send(()).unwrap();
    assert_eq!((busy.hear(), asks.hear()), ("hold\n".into(), "in time\n".into()));
    assert_eq!((busy.hear(), asks.hear()), (String::new(), String::new()));
    let report = server.join();
    assert_eq!((report.served, report.forced, report.abandoned), (32, 0, 0), "{report}");
}

/// True once the server's kernel has what the client has sent: nothing of it is unacknowledged.
fn unread(client: &Talker) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let stream = client.0.get_ref();
    let (own, peer) = (stream.local_addr().unwrap().port(), stream.peer_addr().unwrap().port());
    let row = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()).find(|row| {
        row.len() > 4 && row[1].ends_with(&format!(":{peer:04X}")) && row[2].ends_with(&format!(":{own:04X}"))
    });
    row.is_some_and(|row| !row[4].ends_with(":00000000"))
}

#[test]
fn the_drain_limit_cuts_what_is_left() {
    let ((begun, has_begun), (go, go_on)) = (mpsc::channel(), mpsc::channel());
    let builder = ServerBuilder::new().strategy(ThreadPool::new(1)).drain_timeout(ms(200));
    let server = serve(builder.bind(ANY, per_request(held(begun, go_on))).unwrap());
    let mut clients = talkers(&server, 5);
    clients.iter_mut().for_each(|client| client.echo("one"));
    until_parked(&server, 5);
    clients[0].say("hold\n");
    has_begun.recv_timeout(LONG).unwrap();
    clients[1].say("waits in vain\n");
    until("it has arrived", || unread(&clients[1]));
    server.handle.shutdown();
    let handle = server.handle.clone();
    let report = server.join();
    assert_eq!((report.drained, report.forced, report.abandoned), (3, 2, 1), "{report}");
    // The handler that was left behind goes on, and parks its connection nowhere.
    go.send(()).unwrap();
    until("it has ended", || handle.stats().active == 0);
}

#[test]
fn a_stop_in_the_middle_of_a_request_lets_it_come() {
    for (name, strategy) in parking() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, per_request(whole_line)).unwrap());
        let mut client = Talker::to(&server);
        client.echo("one");
        client.say("fin");
        until("it is parked in between", || !unread(&client) && server.handle.stats().parked == 1);
        server.handle.shutdown();
        assert_eq!(client.ask("ishes"), "finishes\n", "{name}");
        assert_eq!(client.hear(), "", "{name}");
        let report = server.join();
        assert_eq!((report.served, report.drained, report.forced), (1, 1, 0), "{name}");
    }
}

#[test]
fn an_urgent_stop_waits_for_nothing() {
    for first in [false, true] {
        for (name, strategy) in parking() {
            let builder = ServerBuilder::new().drain_timeout(10 * LONG);
            let server = serve(builder.strategy(strategy).bind(ANY, per_request(whole_line)).unwrap());
            let mut client = Talker::to(&server);
            client.say("never whole");
            until("it is parked in between", || server.handle.stats().parked == 1 && !unread(&client));
            if first {
                server.handle.shutdown();
            }
            server.handle.shutdown_now();
            assert_eq!(client.hear(), "", "{name}");
            assert_eq!(server.join().forced, 1, "{name}");
        }
    }
}

#[test]
fn clients_in_the_queue_are_served_beside_parked_ones() {
    for (name, strategy) in parking() {
        let builder = ServerBuilder::new().strategy(strategy).max_connections(2);
        let server = serve(builder.bind(ANY, per_request(line)).unwrap());
        let mut inside = talkers(&server, 2);
        inside.iter_mut().for_each(|client| client.echo("in"));
        until_parked(&server, 2);
        let mut queued = talkers(&server, 3);
        queued.iter_mut().for_each(|client| client.say("queued\n"));
        server.handle.shutdown();
        inside.iter_mut().for_each(|client| assert_eq!(client.hear(), "", "{name}"));
        queued.iter_mut().for_each(|client| assert_eq!(client.hear(), "queued\n", "{name}"));
        let report = server.join();
        assert_eq!((report.served, report.forced), (5, 0), "{name}: {report}");
    }
}
