//! Stops under a flood: what was queued at the stop is served, by its count. The handlers bring new clients themselves,
//! so that no queue is ever found empty.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::mpsc::channel;
use std::sync::Mutex;
use std::time::Duration;

use crate::kit::datagrams::receive;
use crate::kit::{serve, strategies, until, Folder};
use socketserver::{datagram_handler, factory, handler, Connection, EventLoop, HandlerResult, Protocol, Sequential};
use socketserver::{ServerBuilder, Transport};

const ANY: &str = "127.0.0.1:0";
/// A drain limit that no test is to reach.
const FAR: Duration = Duration::from_secs(3600);

#[test]
fn a_flood_of_datagrams_does_not_delay_the_stop() {
    for (name, strategy) in strategies() {
        // Each datagram brings two more.
        let feeding = datagram_handler(|datagram| {
            let (socket, to) = (UdpSocket::bind(ANY)?, datagram.local_addr().socket_addr().unwrap());
            (0..2).try_for_each(|_| socket.send_to(b"x", to).map(drop))?;
            Ok(())
        });
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(FAR);
        let server = receive(builder.bind_udp(ANY, feeding).unwrap());
        UdpSocket::bind(ANY).unwrap().send_to(b"x", server.addr()).unwrap();
        until("the flood has begun", || server.handle.stats().served > 100);
        let report = server.stop();
        assert!(report.forced == 0 && report.failed == 0, "{name}: {report}");
    }
}

#[test]
fn nor_does_a_flood_of_datagrams_on_a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("s");
    let to = path.clone();
    let feeding = datagram_handler(move |_| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        // A full queue takes no more.
        (0..2).for_each(|_| drop(socket.send_to(b"x", &to)));
        Ok(())
    });
    let builder = ServerBuilder::new().strategy(Sequential).drain_timeout(FAR);
    let server = receive(builder.bind_unix_datagram(&path, feeding).unwrap());
    UnixDatagram::unbound().unwrap().send_to(b"x", &path).unwrap();
    until("the flood has begun", || server.handle.stats().served > 100);
    assert_eq!(server.stop().forced, 0);
}

#[test]
fn of_a_unix_listener_those_are_served_that_were_queued_at_the_stop() {
    let folder = Folder::new();
    let path = folder.path("s");
    let ((begins, begun), (release, released)) = (channel(), channel::<()>());
    let (begins, released, to) = (Mutex::new(begins), Mutex::new(released), path.clone());
    // The first one waits, until the server is told to stop. Each later one brings another.
    let feeding = handler(move |_conn: &mut Connection| {
        if begins.lock().unwrap().send(()).is_ok() {
            let _ = released.lock().unwrap().recv();
        } else {
            std::mem::forget(UnixStream::connect(&to)?);
        }
        Ok(())
    });
    let builder = ServerBuilder::new().strategy(Sequential).drain_timeout(FAR);
    let server = serve(builder.bind_unix(&path, feeding).unwrap());
    let clients: Vec<_> = (0..6).map(|_| UnixStream::connect(&path).unwrap()).collect();
    begun.recv().unwrap();
    drop(begun);
    server.handle.shutdown();
    drop(release);
    assert_eq!(server.join().served, clients.len() as u64);
}

/// Says hello, and brings another client.
struct Feeding(std::path::PathBuf);

impl Protocol for Feeding {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        if transport.server().is_shutting_down() {
            std::mem::forget(UnixStream::connect(&self.0)?);
        }
        transport.close();
        Ok(())
    }

    fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn an_event_loop_counts_a_unix_listener_too() {
    let folder = Folder::new();
    let path = folder.path("s");
    let to = path.clone();
    let builder = ServerBuilder::new().strategy(EventLoop::new()).drain_timeout(FAR);
    let mut server = builder.bind_unix(&path, factory(move |_| Feeding(to.clone()))).unwrap();
    let clients: Vec<_> = (0..6).map(|_| UnixStream::connect(&path).unwrap()).collect();
    server.handle().shutdown();
    assert_eq!(server.serve_forever().unwrap().accepted, clients.len() as u64);
}

/// A handler on the accepting thread is waited for, and is no drained one.
#[test]
fn a_handler_that_outlives_the_drain_limit_counts_as_forced() {
    let late = handler(|conn: &mut Connection| {
        writeln!(conn, "here")?;
        conn.flush()?;
        while !conn.server().is_shutting_down() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20)); // beyond the limit
        Ok(())
    });
    let builder = ServerBuilder::new().strategy(Sequential).drain_timeout(Duration::from_millis(10));
    let server = serve(builder.bind(ANY, late).unwrap());
    let mut client = server.connect();
    crate::kit::expect(&mut client, "here\n");
    let report = server.stop();
    assert_eq!((report.drained, report.forced), (0, 1), "{report}");
}
