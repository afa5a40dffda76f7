//! What one loop of a server does to the connections of another: ids, messages, groups, the end of the run.

use crate::kit;
use std::io::{Read, Write};
use std::time::Instant;

use crate::kit::loops::{Client, Rig};
use crate::kit::{expect, ms, read_all, until, AT_ONCE};
use socketserver::event_loop::ConnId;
use socketserver::{EventLoop, EventLoops, Group, Reactor, ServerBuilder};

const ANY: &str = "127.0.0.1:0";

fn builder(loops: usize) -> ServerBuilder<EventLoops> {
    ServerBuilder::new().strategy(EventLoops::new(loops))
}

/// Two loops, with a client in each.
fn two() -> (Rig, Client, Client) {
    let rig = Rig::new(builder(2));
    let mut clients = rig.one_in_each(2).into_iter();
    let (a, b) = (clients.next().unwrap(), clients.next().unwrap());
    (rig, a, b)
}

#[test]
fn an_id_reaches_its_connection_from_every_loop() {
    let (rig, mut a, mut b) = two();
    let (here, there) = (a.place, b.place);
    assert!(rig.ask(here, move |cx| cx.write_to(b.id, b"written")));
    expect(&mut b.socket, "written");
    assert!(rig.ask(here, move |cx| cx.post_to(b.id, "posted") && cx.post_to(a.id, "posted here")));
    expect(&mut b.socket, "posted");
    expect(&mut a.socket, "posted here");
    assert!(!rig.ask(here, move |cx| cx.post(b.id, "not Send perhaps")), "a message of `post` stays in its loop");
    assert!(rig.ask(there, move |cx| cx.post(b.id, "at home")));
    expect(&mut b.socket, "at home");
    rig.ask(here, move |cx| assert_eq!((cx.peer_of(b.id), cx.queued_of(b.id)), (None, None)));

    assert!(rig.ask(here, move |cx| cx.pause_connection(b.id)));
    b.socket.write_all(b"unread").unwrap();
    rig.ask(there, |_| ()); // the pause has arrived
    b.socket.set_read_timeout(Some(ms(100))).unwrap();
    assert!(b.socket.read(&mut [0]).is_err(), "paused");
    b.socket.set_read_timeout(Some(kit::LONG)).unwrap();
    assert!(rig.ask(here, move |cx| cx.resume_connection(b.id)));
    expect(&mut b.socket, "unread");

    assert!(rig.ask(here, move |cx| cx.write_to(b.id, b"bye") && cx.close_connection(b.id)), "in order");
    assert_eq!(read_all(&mut b.socket), "bye");
    until("it is gone", || !rig.ask(there, move |cx| cx.close_connection(b.id)));
    assert!(rig.ask(here, move |cx| cx.write_to(b.id, b"x")), "that it is gone, only its own loop knows");

    assert!(rig.ask(there, move |cx| cx.abort_connection(a.id)));
    assert!(kit::read(&mut a.socket, &mut [0]).is_err(), "reset");
}

#[test]
fn a_handle_of_any_loop_reaches_every_connection() {
    let (rig, mut a, mut b) = two();
    for place in [a.place, b.place] {
        let handle = rig.handle(place);
        for client in [&mut a, &mut b] {
            handle.write(client.id, "written ").unwrap();
            handle.post(client.id, "posted").unwrap();
            expect(&mut client.socket, "written posted");
        }
    }
}

/// Ids of two reactors may have the same place and generation.
#[test]
fn an_id_of_another_reactor_stands_for_nothing() {
    let (rig, a, _b) = two();
    let (send, ids) = std::sync::mpsc::channel::<ConnId>();
    let mut other = Reactor::new().unwrap();
    let build = socketserver::factory(move |peer| {
        send.send(peer.id()).unwrap();
        Ignores
    });
    let port = other.listen_tcp(ANY, build).unwrap();
    let _clients: Vec<_> = (0..8).map(|_| kit::connect(port.local_addr().socket_addr().unwrap())).collect();
    let mut foreign = Vec::new();
    until("all are there", || {
        other.turn(Some(ms(1))).unwrap();
        foreign.extend(ids.try_iter());
        foreign.len() == 8
    });
    assert!(rig.ask(a.place, move |cx| {
        foreign.iter().all(|id| {
            !cx.write_to(*id, b"x")
                && !cx.post(*id, "x")
                && !cx.post_to(*id, "x")
                && !cx.close_connection(*id)
                && !cx.abort_connection(*id)
                && !cx.pause_connection(*id)
        })
    }));
}

struct Ignores;

impl socketserver::Protocol for Ignores {
    fn data_received(&mut self, _: &mut socketserver::Transport<'_>, _: &[u8]) -> socketserver::HandlerResult {
        Ok(())
    }
}

#[test]
fn a_broadcast_reaches_all_loops_in_the_order_of_its_sender() {
    for size in [6, 5000] {
        let rig = Rig::new(builder(3));
        let mut clients = rig.one_in_each(3);
        let (room, places) = (rig.room, clients.iter().map(|client| client.place).collect::<Vec<_>>());
        until("the others have left", || rig.ask(places[0], move |cx| cx.members(room)) == 3);
        for (n, place) in places.iter().enumerate() {
            let reached = rig.ask(*place, move |cx| {
                let text = |m: usize| format!("{:<size$}", format!("{n}.{m}"));
                (0..200).map(|m| cx.broadcast(room, text(m).as_bytes(), None)).collect::<Vec<_>>()
            });
            assert_eq!(reached, [3; 200]);
        }
        for client in &mut clients {
            let mut next = [0; 3];
            for _ in 0..600 {
                let mut text = vec![0; size];
                client.socket.read_exact(&mut text).unwrap();
                let text = String::from_utf8(text).unwrap();
                let (sender, m) = text.trim().split_once('.').unwrap();
                let sender: usize = sender.parse().unwrap();
                assert_eq!(m.parse(), Ok(next[sender]), "of {sender}");
                next[sender] += 1;
            }
        }
    }
}

#[test]
fn a_broadcast_can_leave_one_out_and_counts_no_former_member() {
    let (rig, mut a, mut b) = two();
    let (room, here) = (rig.room, a.place);
    until("the others have left", || rig.ask(here, move |cx| cx.members(room)) == 2);
    assert_eq!(rig.ask(here, move |cx| cx.broadcast(room, b"not b", Some(b.id))), 1);
    assert_eq!(rig.ask(here, move |cx| cx.broadcast(room, b"not a", Some(a.id))), 1);
    assert_eq!(rig.ask(here, move |cx| cx.broadcast(room, b", all", None)), 2);
    expect(&mut a.socket, "not b, all");
    expect(&mut b.socket, "not a, all");
    drop(b);
    until("it has left", || rig.ask(here, move |cx| cx.members(room)) == 1);
    assert_eq!(rig.ask(here, move |cx| cx.broadcast(room, b"alone", None)), 1);
    drop(a);
    until("all have left", || rig.ask(here, move |cx| (cx.members(room), cx.broadcast(room, b"x", None))) == (0, 0));
}

/// A loop that stands still does not fill the memory. What it is sent is bounded, and its members then count as
/// members that do not read.
#[test]
fn members_whose_loop_does_not_take_what_is_sent_are_cut_or_miss_it() {
    for (room, lossy) in [(Group::new(), false), (Group::lossy(), true)] {
        let each = EventLoop::new().water_marks(1000, 2000).max_queued(1 << 20);
        let rig = Rig::with(ServerBuilder::new().strategy(EventLoops::new(2).each(each)), room);
        let mut clients = rig.one_in_each(2);
        let (speaker, mut still) = (clients.remove(0), clients.remove(0));
        until("the others have left", || rig.ask(speaker.place, move |cx| cx.members(room)) == 2);
        rig.stand_still(&mut still);
        let reached = rig.ask(speaker.place, move |cx| {
            let text = vec![b'x'; 64 << 10];
            (0..200).map(|_| cx.broadcast(room, &text, Some(speaker.id))).sum::<usize>()
        });
        assert_eq!(reached, 128, "8 MiB wait for the loop, 8 times as much as for a connection");
        rig.go_on();
        assert_eq!(rig.ask(still.place, move |cx| cx.write_to(still.id, b"")), lossy, "it is cut, or stays");
        // Afterwards it is as before.
        let other = rig.client();
        until("the member that was cut has left", || {
            rig.ask(other.place, move |cx| cx.members(room)) == 2 + usize::from(lossy)
        });
        let reached = rig.ask(other.place, move |cx| cx.broadcast(room, b"news", None));
        assert!(
            reached == 2 || lossy && reached == 3,
            "{reached}: in its own loop, a member that is behind is not counted"
        );
    }
}

#[test]
fn a_shutdown_by_a_callback_gives_all_loops_its_limit() {
    let (rig, a, b) = two();
    // Half a request, as the protocol sees it: neither is idle.
    rig.ask(a.place, move |cx| cx.pause_connection(a.id) && cx.pause_connection(b.id));
    rig.ask(b.place, |_| ());
    let since = Instant::now();
    rig.ask(a.place, |cx| cx.shutdown(ms(300)));
    let report = rig.server.join();
    let took = since.elapsed();
    assert!(took >= ms(300) && took < AT_ONCE, "{took:?}; the server's own limit is 10 s");
    assert_eq!(report.forced, 2, "{report}");
}

#[test]
fn a_stop_by_a_callback_ends_all_loops_at_once() {
    let (rig, mut a, mut b) = two();
    let (since, handle) = (Instant::now(), rig.handle(b.place));
    rig.ask(a.place, |cx| cx.stop());
    rig.server.join();
    assert!(since.elapsed() < AT_ONCE);
    for client in [&mut a, &mut b] {
        assert_eq!(kit::read(&mut client.socket, &mut [0]).unwrap_or(0), 0);
    }
    assert!(handle.stop().is_err(), "the loop is gone");
}
