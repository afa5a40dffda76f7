//! [`accepted()`]: a connection that another program has accepted.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::AddressFamily;

use super::inherited;
use crate::error::SERVE_ONE;
use crate::net::{Accepted, Addr, Address, Socket};
use crate::sys::socket::{self, Act, SockType};

/// Takes the connection that the program was started with.
pub(crate) fn accepted(address: &Address, no_delay: bool) -> Result<Accepted, (Act, io::Error)> {
    take(address)
        .and_then(|accepted| accepted.socket.set_no_delay(no_delay).map(|()| accepted))
        .map_err(|e| (SERVE_ONE, e))
}

fn take(address: &Address) -> io::Result<Accepted> {
    let wrong = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    address.check()?;
    let Address::Descriptor(text) = address else { return wrong("it is an address to listen on") };
    let mut sockets = inherited::take(text)?;
    let (Some(fd), true) = (sockets.pop(), sockets.is_empty()) else {
        return wrong("several sockets have this name");
    };
    let facts = socket::facts(fd.as_fd())?;
    if facts.kind != SockType::Stream || !facts.is_connected {
        return wrong(if facts.listens {
            "it listens, which `bind` takes"
        } else {
            "it is no connected stream socket"
        });
    }
    // Accepted sockets are blocking here: a read is one system call.
    match facts.family {
        AddressFamily::Inet | AddressFamily::Inet6 => {
            let socket = TcpStream::from(fd);
            socket.set_nonblocking(false)?;
            let peer = Addr::Ip(socket.peer_addr()?);
            Ok(Accepted::new(Socket::Tcp(socket), peer))
        }
        AddressFamily::Unix => {
            let socket = UnixStream::from(fd);
            socket.set_nonblocking(false)?;
            let peer = Addr::from_unix(&socket.peer_addr()?);
            Ok(Accepted::new(Socket::Unix(socket), peer))
        }
        _ => wrong("it is neither an IP socket nor a Unix socket"),
    }
}
