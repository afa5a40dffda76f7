//! Nothing to do is no turn of the loop: whatever clients do, or do not.

use crate::kit;
use crate::script;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use crate::kit::{connect, read_all, until};
use crate::script::teller::{assert_no_spin, made, next, teller, until_lost, News, Teller};
use crate::script::Echo;
use nix::sys::socket::{send, MsgFlags};
use socketserver::factory;

const ANY: &str = "127.0.0.1:0";

#[test]
fn p13_an_urgent_byte_is_ignored() {
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap());
    let mut client = connect(looped.addr);
    send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
    assert_no_spin(&looped, "with an urgent byte");
    client.write_all(b"ab").unwrap();
    kit::expect(&mut client, "ab");
    send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
    client.write_all(b"c").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), "c");
}

#[test]
fn e9_a_paused_connection_whose_client_sends_on_costs_nothing() {
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"p").unwrap();
    let id = made(&told);
    assert_eq!(next(&told), News::Data(b"p".to_vec()));
    client.write_all(&[b'x'; 50_000]).unwrap();
    assert_no_spin(&looped, "paused, with input");
    client.shutdown(Shutdown::Write).unwrap();
    assert_no_spin(&looped, "paused, at the end of the stream");
    looped.ask(move |cx| assert!(cx.resume_connection(id)));
    let mut got = 0;
    loop {
        match next(&told) {
            News::Data(data) => got += data.len(),
            News::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got, until_lost(&told).as_str()), (50_000, "closed by the peer"));
}

#[test]
fn e6_half_closed_or_idle_or_slow_clients_cost_nothing() {
    let (looped, told) = teller();
    let mut half = connect(looped.addr);
    half.write_all(b"2").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let _idle = connect(looped.addr);
    until("both are there", || looped.ask(|cx| cx.connections()) == 2);
    while next(&told) != News::Eof {}
    assert_no_spin(&looped, "half-closed and blocked");
    drop(half);
    until_lost(&told);
}

#[test]
fn a_lingering_close_costs_nothing() {
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"4").unwrap();
    client.write_all(&[b'u'; 60_000]).unwrap();
    let mut got = vec![0; 4 << 20];
    client.read_exact(&mut got).unwrap();
    assert_no_spin(&looped, "lingering");
    drop(client);
    until_lost(&told);
}

#[test]
fn a_unix_client_that_sends_and_leaves_while_reading_is_paused_is_heard() {
    let folder = kit::Folder::new();
    let path = folder.path("socket");
    let (news, told) = mpsc::channel();
    let build = factory(move |_| Teller { news: news.clone(), left: 0 });
    let theirs = path.clone();
    let looped = script::run(move |reactor| {
        reactor.listen_unix(theirs, build).unwrap();
        reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap()
    });
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"p").unwrap();
    let id = made(&told);
    assert_eq!(next(&told), News::Data(b"p".to_vec()));
    client.write_all(b"last words").unwrap();
    drop(client);
    assert_no_spin(&looped, "paused, and the client is gone");
    assert!(looped.ask(move |cx| cx.resume_connection(id)), "{:?}", told.try_recv());
    assert_eq!(next(&told), News::Data(b"last words".to_vec()));
    assert_eq!((next(&told), until_lost(&told).as_str()), (News::Eof, "closed by the peer"));
}

#[test]
fn an_idle_loop_does_not_wake() {
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap());
    assert_eq!(kit::ask(looped.addr, "hello"), "hello");
    assert_no_spin(&looped, "idle");
}

#[test]
fn clients_that_wait_for_a_place_cost_nothing() {
    let looped = script::run(|reactor| {
        reactor.server().set_max_connections(1).unwrap();
        reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap()
    });
    let held = connect(looped.addr);
    until("it is there", || looped.ask(|cx| cx.connections()) == 1);
    let mut waits = connect(looped.addr);
    waits.write_all(b"x").unwrap();
    assert_no_spin(&looped, "at the limit");
    looped.handle.server().pause();
    drop(held);
    assert_no_spin(&looped, "paused");
    assert_eq!(looped.handle.server().stats().accepted, 1);
    looped.handle.server().resume();
    kit::expect(&mut waits, "x");
}
