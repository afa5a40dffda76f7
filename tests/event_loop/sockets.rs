//! Where the kernel matters: half-close, resets, lingering, many descriptors.

use crate::kit;
use crate::script;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::time::Duration;

use crate::kit::{connect, expect, read_all, until, LONG};
use crate::script::teller::{assert_no_spin, made, next, teller, until_lost, News};
use crate::script::Echo;
use nix::sys::socket::{getpeername, getsockopt, setsockopt, sockopt, SockaddrIn};
use socketserver::{factory, HandlerResult, Protocol, Transport};

const ANY: &str = "127.0.0.1:0";

#[test]
fn p10_a_client_that_ends_its_stream_at_once_gets_the_whole_answer() {
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap());
    assert_eq!(kit::ask(looped.addr, "hello"), "hello");
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"2").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).len(), 20 << 20);
    assert_eq!(until_lost(&told), "closed");
}

#[test]
fn a_reply_arrives_whole_although_input_is_left_unread() {
    let (looped, told) = teller();
    for _ in 0..5 {
        let mut client = connect(looped.addr);
        client.write_all(b"4").unwrap();
        made(&told);
        assert_eq!(next(&told), News::Data(b"4".to_vec()));
        client.write_all(&[b'u'; 50_000]).unwrap();
        assert_eq!(read_all(&mut client).len(), 4 << 20);
        drop(client);
        assert_eq!(until_lost(&told), "closed");
    }
}

#[test]
fn a_reset_is_noticed_while_reading_is_paused() {
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"p").unwrap();
    made(&told);
    assert_eq!(next(&told), News::Data(b"p".to_vec()));
    reset(client);
    assert!(until_lost(&told).starts_with("broken: Connection reset"));
    until("it is counted", || looped.handle.server().stats().disconnected == 1);
    assert_no_spin(&looped, "afterwards");
}

fn reset(client: TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&client, sockopt::Linger, &linger).unwrap();
}

#[test]
fn an_abort_is_a_reset_for_the_client() {
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"a").unwrap();
    let error = kit::read(&mut client, &mut [0; 10]).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(until_lost(&told), "aborted, 4 bytes unsent");
}

#[test]
fn a2_a_client_that_is_gone_before_it_is_accepted_is_one_that_went_away() {
    let (looped, told) = teller();
    looped.handle.server().pause();
    for _ in 0..3 {
        reset(connect(looped.addr));
    }
    looped.handle.server().resume();
    let mut lost = 0;
    while lost < 3 {
        match next(&told) {
            News::Lost(why) => lost += usize::from(why.starts_with("broken: ")),
            news => assert!(matches!(news, News::Made(_)), "{news:?}"),
        }
    }
    until("they are counted", || looped.handle.server().stats().disconnected == 3);
    assert_eq!(looped.handle.server().stats().accepted, 3);
}

#[test]
fn an_error_with_output_that_nobody_takes_ends_with_the_client() {
    let (looped, told) = teller();
    let mut client = connect(looped.addr);
    client.write_all(b"e").unwrap();
    made(&told);
    assert_eq!(next(&told), News::Data(b"e".to_vec()));
    assert_no_spin(&looped, "while the client takes nothing");
    reset(client);
    assert!(until_lost(&told).starts_with("failed: asked to"));
}

#[test]
fn a16_descriptors_beyond_1024_are_like_the_others() {
    let looped = script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap());
    let idle: Vec<_> = (0..1100).map(|_| connect(looped.addr)).collect();
    assert!(idle.last().unwrap().as_raw_fd() > 1024);
    assert_eq!(kit::ask(looped.addr, "hello"), "hello");
    until("all are there", || looped.ask(|cx| cx.connections()) == 1100);
    assert_eq!(looped.handle.server().stats().active, 1100);
    drop(idle);
    until("all are gone", || looped.ask(|cx| cx.connections()) == 0);
}

#[test]
fn e3_a_place_that_is_used_again_hears_nothing_of_the_one_before() {
    let made = Arc::new(AtomicUsize::new(0));
    let theirs = made.clone();
    let build = factory(move |_| {
        theirs.fetch_add(1, SeqCst);
        Echo
    });
    let looped = script::run(move |reactor| reactor.listen_tcp(ANY, build).unwrap());
    for round in 0..50 {
        let (mut old, mut other) = (connect(looped.addr), connect(looped.addr));
        until("both are there", || made.load(SeqCst) == round * 3 + 2);
        let (send, go) = mpsc::channel::<()>();
        looped.handle.call_from_thread(move |_| go.recv_timeout(LONG).expect("the test goes on")).unwrap();
        old.write_all(b"old").unwrap();
        reset(old);
        other.write_all(b"other").unwrap();
        let mut new = connect(looped.addr);
        new.write_all(b"new").unwrap();
        send.send(()).unwrap();
        kit::expect(&mut new, "new");
        kit::expect(&mut other, "other");
        drop((new, other));
        until("all are gone", || looped.ask(|cx| cx.connections()) == 0);
    }
}

/// What the kernel says of the socket in this process whose peer has this address. These are no delay, keep-alive,
/// the silence before the first probe, and the time for an acknowledgement in ms.
#[allow(unsafe_code)]
fn options(peer: SocketAddr) -> (bool, bool, u32, u32) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut all = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it = |fd: &i32| getpeername::<SockaddrIn>(*fd).is_ok_and(|its| peer == SocketAddrV4::from(its).into());
    let number = all.find(is_it).expect("a connection to this peer");
    // SAFETY: its connection is open, and this test keeps it open until it has looked.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    (
        getsockopt(&fd, sockopt::TcpNoDelay).unwrap(),
        getsockopt(&fd, sockopt::KeepAlive).unwrap(),
        getsockopt(&fd, sockopt::TcpKeepIdle).unwrap(),
        getsockopt(&fd, sockopt::TcpUserTimeout).unwrap(),
    )
}

/// Sets what it is told to, and says that it has.
struct Sets;

impl Protocol for Sets {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        match data {
            b"delay" => t.set_no_delay(false)?,
            b"no delay" => t.set_no_delay(true)?,
            b"probes" => t.set_keep_alive(Some(Duration::from_secs(60)))?,
            b"no probes" => t.set_keep_alive(None)?,
            _ => {
                for time in [Duration::ZERO, Duration::from_millis(5999), Duration::from_secs(32_768), Duration::MAX] {
                    let error = t.set_keep_alive(Some(time)).unwrap_err();
                    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
                }
            }
        }
        Ok(t.write(b"done")?)
    }
}

#[test]
fn no_delay_and_keep_alive_reach_the_socket_of_either_side() {
    let upstream = TcpListener::bind(ANY).unwrap();
    let to = upstream.local_addr().unwrap();
    let looped = script::run(move |reactor| {
        reactor.context().connect_tcp(to, factory(|_| Sets));
        reactor.listen_tcp(ANY, factory(|_| Sets)).unwrap()
    });
    let (theirs, _) = upstream.accept().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    for mut peer in [connect(looped.addr), theirs] {
        let addr = peer.local_addr().unwrap();
        let mut after = |act: &str| {
            peer.write_all(act.as_bytes()).unwrap();
            expect(&mut peer, "done");
            options(addr)
        };
        let (no_delay, keep_alive, first_probe, unacknowledged) = after("nothing");
        assert!(no_delay && keep_alive && unacknowledged == 0, "the defaults");
        assert_eq!(after("delay"), (false, true, first_probe, 0));
        assert_eq!(after("no delay"), (true, true, first_probe, 0));
        assert_eq!(after("probes"), (true, true, 30, 60_000));
        assert_eq!(after("a time that cannot be"), (true, true, 30, 60_000));
        assert_eq!(after("no probes"), (true, false, 30, 0));
    }
}
