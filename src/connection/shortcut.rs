//! The way past the queue. While the thread of a connection waits for its peer and nothing is queued, a sender writes
//! to the socket itself. That is one system call in place of four, and no thread wakes.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{now, Mutex};
use crate::sys::socket;

/// Longest message that a sender writes itself, in bytes. So a sender's time stays short.
const LONGEST: usize = 16 << 10;

/// The time after a message in which further ones are queued. In a burst, one wake-up and one system call for many
/// messages cost less than one call for each.
const BURST: Duration = Duration::from_micros(50);

/// Whether senders may write, and what they have written.
#[derive(Debug, Default)]
pub(super) struct Shortcut(Mutex<Way>);

#[derive(Debug, Default)]
struct Way {
    /// The socket, while its thread waits with an empty buffer. It is not closed meanwhile.
    socket: Option<RawFd>,
    written: Written,
    /// When a sender has last written.
    last: Option<Instant>,
}

/// What senders have written while the thread waited.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) bytes: u64,
    /// The message that the socket did not take whole, and how much of it has gone. The thread sends the rest first.
    pub(super) begun: Option<(Arc<[u8]>, usize)>,
}

/// What has become of a sender's try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// The message has gone.
    Sent,
    /// A part has gone. The thread must be woken, and sends the rest.
    Begun,
    /// The message must be queued.
    No,
}

impl Shortcut {
    /// Sends a message, if that is possible now. `is_queued` says if there are messages that must go first.
    ///
    /// Of two senders at once, one queues: neither waits for the other. An error is left to the thread, which meets it too.
    pub(super) fn try_send(&self, message: &Arc<[u8]>, is_queued: impl FnOnce() -> bool) -> Tried {
        let Some(mut way) = self.0.try_lock() else { return Tried::No };
        // Under the lock: while the way is open, nobody takes from the queue.
        let Some(socket) = way.socket.filter(|_| way.written.begun.is_none() && !is_queued()) else { return Tried::No };
        let now = now();
        let in_burst = way.last.replace(now).is_some_and(|last| now.saturating_duration_since(last) < BURST);
        if in_burst || message.len() > LONGEST {
            return Tried::No;
        }
        let Ok(sent) = socket::send(socket, message, &[], false) else { return Tried::No };
        way.written.bytes += sent as u64;
        if sent == message.len() {
            return Tried::Sent;
        }
        way.written.begun = Some((message.clone(), sent));
        Tried::Begun
    }

    /// Lets senders write to this socket until the value is dropped. Nobody else may write meanwhile.
    pub(super) fn open(&self, socket: RawFd) -> Open<'_> {
        self.0.lock().socket = Some(socket);
        Open(self)
    }
}

/// While it lives, senders may write.
#[derive(Debug)]
pub(super) struct Open<'a>(&'a Shortcut);

impl Open<'_> {
    /// Ends it, and returns what was written meanwhile.
    pub(super) fn close(self) -> Written {
        let mut way = self.0 .0.lock();
        way.socket = None;
        std::mem::take(&mut way.written)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0 .0.lock().socket = None;
    }
}

#[cfg(test)]
impl Shortcut {
    pub(super) fn is_open(&self) -> bool {
        self.0.lock().socket.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;

    fn tcp() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// What the client has now.
    fn read(client: &mut TcpStream, len: usize) -> usize {
        match client.read(&mut vec![0; len]) {
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
            Err(e) => panic!("{e}"),
        }
    }

    /// A try after any burst is over.
    fn try_send(shortcut: &Shortcut, message: &Arc<[u8]>, is_queued: bool) -> Tried {
        thread::sleep(BURST);
        shortcut.try_send(message, || is_queued)
    }

    #[test]
    fn senders_write_only_while_the_thread_waits_and_nothing_is_queued() {
        let (socket, mut client) = tcp();
        let (shortcut, message) = (Shortcut::default(), Arc::from(*b"news"));
        assert_eq!(try_send(&shortcut, &message, false), Tried::No, "its thread is at work");
        let open = shortcut.open(socket.as_raw_fd());
        assert_eq!(try_send(&shortcut, &message, true), Tried::No, "others go first");
        assert_eq!(try_send(&shortcut, &Arc::from(vec![0; LONGEST + 1]), false), Tried::No, "it is long");
        assert_eq!(try_send(&shortcut, &message, false), Tried::Sent);
        let locked = shortcut.0.lock();
        assert_eq!(shortcut.try_send(&message, || false), Tried::No, "another sender writes");
        drop(locked);
        let written = open.close();
        assert!(written.bytes == 4 && written.begun.is_none());
        assert_eq!(try_send(&shortcut, &message, false), Tried::No);
        while read(&mut client, 100) != 4 {}
        drop(client);
        drop(shortcut.open(socket.as_raw_fd()));
        assert!(!shortcut.is_open());
    }

    #[test]
    fn a_burst_is_queued() {
        let (socket, _client) = tcp();
        let (shortcut, message) = (Shortcut::default(), Arc::from(*b"news"));
        let _open = shortcut.open(socket.as_raw_fd());
        assert_eq!(shortcut.try_send(&message, || false), Tried::Sent);
        shortcut.0.lock().last = Some(now() + BURST); // as if no time had passed
        assert_eq!(shortcut.try_send(&message, || false), Tried::No);
        assert_eq!(try_send(&shortcut, &message, false), Tried::Sent);
    }

    /// What the thread sends then is the rest, to the byte.
    #[test]
    fn a_message_that_is_begun_is_left_to_the_thread() {
        let (socket, mut client) = tcp();
        let (shortcut, message) = (Shortcut::default(), Arc::from([7; LONGEST]));
        let open = shortcut.open(socket.as_raw_fd());
        let (mut whole, mut heard) = (0, 0);
        loop {
            match try_send(&shortcut, &message, false) {
                Tried::Sent => whole += LONGEST,
                Tried::Begun => break,
                Tried::No => heard += read(&mut client, 10_000), // it is full to the byte
            }
        }
        assert_eq!(try_send(&shortcut, &message, false), Tried::No, "the rest goes first");
        let written = open.close();
        let (begun, sent) = written.begun.unwrap();
        assert!(Arc::ptr_eq(&begun, &message) && written.bytes == (whole + sent) as u64);
        drop(socket);
        while heard < whole + sent {
            heard += read(&mut client, 100_000);
        }
        assert_eq!((heard, client.read(&mut [0]).ok()), (whole + sent, Some(0)));
    }

    #[test]
    fn an_error_is_left_to_the_thread() {
        let (socket, client) = tcp();
        let shortcut = Shortcut::default();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let _open = shortcut.open(socket.as_raw_fd());
        assert_eq!(try_send(&shortcut, &Arc::from(*b"news"), false), Tried::No);
        drop(client);
    }
}
