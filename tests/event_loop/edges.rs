//! The kernel reports input once: none is left behind, wherever a read ends.

use std::any::Any;
use std::cell::Cell;
use std::io::{IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;

use crate::kit::{ms, Folder, LONG};
use nix::sys::socket::{send, sendmsg, ControlMessage, MsgFlags};
use socketserver::event_loop::{Eof, Peer, RateLimit, TimerId};
use socketserver::{factory, HandlerResult, Protocol, Reactor, Transport};

/// What a loop reads from one connection at a time.
const READ: usize = 64 << 10;

#[derive(Clone, Default)]
struct Heard {
    bytes: Rc<Cell<usize>>,
    end: Rc<Cell<bool>>,
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Plain,
    Limited,
    /// Reading begins some time after all has come.
    Late,
}

/// Counts what it hears, and stops the loop when that is all.
struct Counter {
    how: How,
    heard: Heard,
    wanted: usize,
    wants_end: bool,
}

impl Counter {
    fn stop_after_all(&self, t: &mut Transport<'_>) {
        if self.heard.bytes.get() >= self.wanted && self.heard.end.get() == self.wants_end {
            t.stop();
        }
    }
}

impl Protocol for Counter {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        match self.how {
            How::Plain => {}
            How::Limited => t.limit_reading(&RateLimit::new(1 << 30).burst(1 << 30)),
            How::Late => {
                t.pause_reading();
                t.set_timer(ms(20));
            }
        }
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        t.resume_reading();
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.heard.bytes.set(self.heard.bytes.get() + data.len());
        self.stop_after_all(t);
        Ok(())
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.heard.end.set(true);
        self.stop_after_all(t);
        Ok(Eof::KeepOpen)
    }
}

/// A loop that begins when the kernel has it all: this number of bytes and, after some of them, the end.
fn hears_all((how, wants_end, wanted): Case, send: &dyn Fn(&mut Reactor, Counter) -> Box<dyn Any>) {
    let heard = Heard::default();
    let mut reactor = Reactor::new().unwrap();
    let client = send(&mut reactor, Counter { how, heard: heard.clone(), wanted, wants_end });
    reactor.context().call_later(LONG, |cx| cx.stop());
    reactor.run().unwrap();
    assert_eq!((heard.bytes.get(), heard.end.get()), (wanted, wants_end), "of {wanted} bytes");
    drop(client);
}

fn sizes() -> impl Iterator<Item = usize> {
    [1, READ - 1, READ, READ + 1, 2 * READ].into_iter()
}

fn only(counter: Counter) -> impl socketserver::event_loop::Factory {
    let counter = Cell::new(Some(counter));
    factory(move |_: &Peer| counter.take().unwrap())
}

#[test]
fn input_that_was_there_before_is_read_to_its_end_from_tcp() {
    for (how, ends, size) in cases() {
        hears_all((how, ends, size), &|reactor, counter| {
            let port = reactor.listen_tcp("127.0.0.1:0", only(counter)).unwrap();
            let mut client = TcpStream::connect(port.local_addr().socket_addr().unwrap()).unwrap();
            client.write_all(&vec![b'x'; size]).unwrap();
            if ends {
                client.shutdown(Shutdown::Write).unwrap();
            }
            Box::new(client)
        });
    }
}

#[test]
fn input_that_was_there_before_is_read_to_its_end_from_a_unix_socket() {
    let folder = Folder::new();
    for (how, ends, size) in cases() {
        hears_all((how, ends, size), &|reactor, counter| {
            let path = folder.path("socket");
            reactor.listen_unix(&path, only(counter)).unwrap();
            let mut client = UnixStream::connect(&path).unwrap();
            client.write_all(&vec![b'x'; size]).unwrap();
            match ends {
                true => Box::new(()), // the client is gone: the end, and a hang-up
                false => Box::new(client),
            }
        });
    }
}

/// How it is read, whether it ends, and how much it is.
type Case = (How, bool, usize);

fn cases() -> impl Iterator<Item = Case> {
    let hows = [How::Plain, How::Limited, How::Late];
    hows.into_iter()
        .flat_map(|how| [false, true].map(|ends| (how, ends)))
        .flat_map(|(how, ends)| sizes().map(move |size| (how, ends, size)))
}

/// TCP's reads stop at urgent data, a Unix socket's at a descriptor that is passed: what they bring is less than what is
/// there.
#[test]
fn input_behind_urgent_data_and_behind_a_passed_descriptor_is_read() {
    hears_all((How::Plain, true, 6), &|reactor, counter| {
        let port = reactor.listen_tcp("127.0.0.1:0", only(counter)).unwrap();
        let mut client = TcpStream::connect(port.local_addr().socket_addr().unwrap()).unwrap();
        client.write_all(b"abc").unwrap();
        send(client.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        client.write_all(b"def").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        Box::new(client)
    });
    let folder = Folder::new();
    hears_all((How::Plain, false, 6), &|reactor, counter| {
        let path = folder.path("socket");
        reactor.listen_unix(&path, only(counter)).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let passed = [client.as_raw_fd()];
        let (part, rights) = ([IoSlice::new(b"abc")], [ControlMessage::ScmRights(&passed)]);
        sendmsg::<()>(client.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).unwrap();
        client.write_all(b"def").unwrap();
        Box::new(client)
    });
}

/// As many bytes in each turn.
struct Turns(Rc<Cell<usize>>);

impl Protocol for Turns {
    fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.0.set(self.0.get() + data.len());
        Ok(())
    }
}

#[test]
fn a_long_input_is_read_up_to_four_times_in_a_turn() {
    let (mut reactor, bytes) = (Reactor::new().unwrap(), Rc::new(Cell::new(0)));
    let heard = bytes.clone();
    let port = reactor.listen_tcp("127.0.0.1:0", factory(move |_: &Peer| Turns(heard.clone()))).unwrap();
    let addr = port.local_addr().socket_addr().unwrap();
    // It sends until it is cut.
    let sends = thread::spawn(move || {
        let mut stream = TcpStream::connect(addr).unwrap();
        while stream.write_all(&[b'x'; 1 << 20]).is_ok() {}
    });
    let (mut all, mut most) = (0, 0);
    while all < 20 << 20 || (most <= READ && all < 1 << 30) {
        assert!(reactor.turn(Some(LONG)).unwrap());
        assert!(bytes.get() <= 4 * READ, "{} in a turn", bytes.get());
        most = most.max(bytes.get());
        all += bytes.take();
    }
    assert!(most > READ, "never more than one read");
    drop(reactor);
    sends.join().unwrap();
}
