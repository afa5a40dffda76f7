//! Sockets that go from one process to its successor, when a program is started anew.
//!
//! The former process describes its listeners in a text ([`describe`]), and the successor inherits the descriptors.
//! There, a bind of the same address takes the sockets that the text has for it ([`take`]). So a program needs no
//! code for it, and a free port (`:0`) stays the same. When all of them are served, the successor says so
//! ([`note_served`]).

use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::file::SocketFile;
use super::listener::Listener;
use crate::net::Address;
use crate::sys::inherited;
use crate::sys::socket::SockType;
use crate::sys::successor::Inheritance;

/// The name of what one bind has made, for the successor: the kind of socket, and the address as it was given.
pub(super) fn name(address: &Address, kind: SockType) -> Arc<str> {
    let mut name = String::from(if kind == SockType::Datagram { "d" } else { "s" });
    for byte in address.to_string().bytes() {
        match byte {
            b'=' | b',' | b'+' | b'%' => drop(write!(name, "%{byte:02x}")),
            _ if byte.is_ascii_graphic() => name.push(char::from(byte)),
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    name.into()
}

/// Describes the listeners, and returns the descriptors that the successor needs. The listeners of one bind
/// are a group, `NAME=SOCKET,SOCKET`; groups are apart by spaces.
pub(crate) fn describe<'a>(listeners: impl Iterator<Item = &'a Listener>) -> (String, Vec<BorrowedFd<'a>>) {
    let (mut text, mut descriptors, mut last) = (String::new(), Vec::new(), None);
    for listener in listeners {
        let Some(name) = listener.bound_as() else { continue };
        // Two binds of the same address have two names that are equal.
        let goes_on = last.replace(Arc::as_ptr(name)) == Some(Arc::as_ptr(name));
        let before =
            if goes_on { ",".to_owned() } else { format!("{}{name}=", if text.is_empty() { "" } else { " " }) };
        let _ = write!(text, "{before}{}", listener.as_fd().as_raw_fd());
        descriptors.push(listener.as_fd());
        for part in listener.file().into_iter().flat_map(SocketFile::descriptors) {
            let _ = write!(text, "+{}", part.as_raw_fd());
            descriptors.push(part);
        }
    }
    (text, descriptors)
}

/// A socket that was handed over, with the descriptors of its file: its lock and its folder.
pub(super) struct Handed {
    pub(super) socket: OwnedFd,
    pub(super) file: Vec<OwnedFd>,
}

/// What this process has got of a former one. `None` until an address is bound.
static GOT: Mutex<Option<Result<Option<Got>, String>>> = Mutex::new(None);

struct Got {
    inheritance: Inheritance,
    /// The groups that no bind has taken.
    groups: Vec<(String, Vec<Handed>)>,
    /// The number of sockets that are not served yet.
    left: usize,
}

/// Takes the sockets that the former process has for this name. `None`: bind anew.
pub(super) fn take(name: &str) -> io::Result<Option<Vec<Handed>>> {
    let mut got = GOT.lock();
    let got = got.get_or_insert_with(|| Got::from_environment().map_err(|e| e.to_string()));
    let got = got.as_mut().map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why.clone()))?;
    let Some(got) = got else { return Ok(None) };
    let place = got.groups.iter().position(|(of, _)| of == name);
    Ok(place.map(|place| got.groups.remove(place).1))
}

/// Notes that this number of sockets of the former process is served now. With the last one the successor is ready.
/// Returns the names of those that nobody has taken.
pub(crate) fn note_served(sockets: usize) -> Vec<String> {
    let mut all = GOT.lock();
    let Some(Ok(Some(got))) = &mut *all else { return Vec::new() };
    got.left = got.left.saturating_sub(sockets);
    let missing = got.groups.iter().map(|(name, _)| name.get(1..).unwrap_or("").to_owned()).collect();
    if got.left == 0 {
        got.inheritance.say_ready();
        *all = Some(Ok(None));
    }
    missing
}

/// True while a former process serves on, because this one does not serve all of its sockets.
pub(crate) fn is_followed() -> bool {
    matches!(&*GOT.lock(), Some(Ok(Some(_))))
}

impl Got {
    fn from_environment() -> io::Result<Option<Self>> {
        let Some(inheritance) = Inheritance::from_environment()? else { return Ok(None) };
        let groups = read(&inheritance.agreed, inherited::take)?;
        let left = groups.iter().map(|(_, sockets)| sockets.len()).sum();
        Ok(Some(Self { inheritance, groups, left }))
    }
}

fn read(text: &str, take: impl Fn(i32) -> io::Result<OwnedFd>) -> io::Result<Vec<(String, Vec<Handed>)>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidInput, format!("a socket is described as {text:?}"));
    let descriptor = |number: &str| take(number.parse().map_err(|_| malformed())?);
    let socket = |numbers: &str| {
        let mut parts = numbers.split('+').map(descriptor);
        let socket = parts.next().ok_or_else(malformed)??;
        Ok(Handed { socket, file: parts.collect::<io::Result<_>>()? })
    };
    let group = |group: &str| {
        let (name, sockets) = group.split_once('=').ok_or_else(malformed)?;
        Ok((name.to_owned(), sockets.split(',').map(socket).collect::<io::Result<_>>()?))
    };
    text.split_whitespace().map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::listen::{bind, BindOptions};

    #[test]
    fn names_tell_addresses_and_kinds_apart_and_have_no_signs_of_the_text() {
        let name_of = |address: &str, kind| name(&address.into(), kind).to_string();
        assert_eq!(name_of("[::1]:80", SockType::Stream), "s[::1]:80");
        assert_eq!(name_of("[::1]:80", SockType::Datagram), "d[::1]:80");
        assert_eq!(name_of("unix:/a=b,c+d e%é", SockType::Stream), "sunix:/a%3db%2cc%2bd%20e%25%c3%a9");
    }

    #[test]
    fn what_is_described_is_read_again_group_by_group() {
        let options = BindOptions::default();
        let bound = |address: &str| bind(&address.into(), options).unwrap();
        let (first, second) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let (text, descriptors) = describe(first.iter().chain(&second));
        assert_eq!(descriptors.len(), 2);
        let groups = read(&text, |number| {
            let of = descriptors.iter().find(|fd| fd.as_raw_fd() == number).unwrap();
            of.try_clone_to_owned()
        });
        let groups = groups.unwrap();
        for ((name, mut sockets), listener) in groups.into_iter().zip(first.iter().chain(&second)) {
            let socket = sockets.pop().unwrap();
            assert_eq!((name.as_str(), sockets.len(), socket.file.len()), ("s127.0.0.1:0", 0, 0));
            let socket = TcpListener::from(socket.socket).local_addr().unwrap();
            assert_eq!(Some(socket), listener.local_addr().socket_addr());
        }
    }

    #[test]
    fn a_text_that_makes_no_sense_is_an_error() {
        for text in ["x", "x=", "x=a", "x=1+", "x=1,", "=99999999999"] {
            let told = read(text, |_| Err(io::ErrorKind::Other.into())).map(drop).unwrap_err();
            assert!(!told.to_string().is_empty(), "{text:?}");
        }
    }
}
