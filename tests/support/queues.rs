//! What lies in the queues of TCP sockets, whatever process owns them. The kernel is asked by sock_diag(7). `/proc/net/tcp`
//! would tell the same, but it also prints the tens of thousands of connections that a machine full of tests has just ended.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{recv, send, socket, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};

/// How many clients wait to be accepted on this port.
pub fn accept_queue(port: u16) -> usize {
    sockets(port, 0).iter().filter(|s| s.listens).map(|s| s.received).sum()
}

/// How much the owner of the end at `local` has not read of what `remote` has sent; `None` where there is no such end.
pub fn unread(local: u16, remote: u16) -> Option<usize> {
    sockets(local, remote).iter().find(|s| !s.listens).map(|s| s.received)
}

/// How much servers on these ports have not read of what their clients have sent.
pub fn unread_on(ports: &[u16]) -> usize {
    let on = |port: &u16| sockets(*port, 0).iter().filter(|s| !s.listens).map(|s| s.received).sum::<usize>();
    ports.iter().map(on).sum()
}

/// The receive queue of a listening socket is the number of clients that wait.
struct Socket {
    listens: bool,
    received: usize,
}

const LISTEN: u8 = 10;
const TIME_WAIT: u8 = 6;
const DUMP_BY_FAMILY: u16 = 20;
const DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;

/// All IPv4 sockets with these ports that are in use; a remote port of 0 is any.
fn sockets(local: u16, remote: u16) -> Vec<Socket> {
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag);
    let kernel = kernel.expect("no netlink");
    // struct nlmsghdr, and struct inet_diag_req_v2 of <linux/inet_diag.h>.
    let mut question = vec![];
    question.extend(72u32.to_ne_bytes());
    question.extend([DUMP_BY_FAMILY, REQUEST_DUMP].map(u16::to_ne_bytes).concat());
    question.extend([0; 8]);
    question.extend([nix::libc::AF_INET as u8, nix::libc::IPPROTO_TCP as u8, 0, 0]);
    question.extend((!(1u32 << TIME_WAIT)).to_ne_bytes());
    question.extend([local, remote].map(u16::to_be_bytes).concat());
    question.resize(72, 0);
    send(kernel.as_raw_fd(), &question, MsgFlags::empty()).expect("no sock_diag(7)");

    let (mut found, mut buffer) = (vec![], vec![0; 1 << 16]);
    loop {
        let received = match recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received.expect("no answer of sock_diag(7)"),
        };
        let mut messages = &buffer[..received];
        while messages.len() >= 16 {
            let (message, rest) = messages.split_at(u32_at(messages, 0).next_multiple_of(4).min(messages.len()));
            match u16::from_ne_bytes([message[4], message[5]]) {
                DUMP_BY_FAMILY => found.push(Socket { listens: message[17] == LISTEN, received: u32_at(message, 72) }),
                DONE => return found,
                other => panic!("sock_diag(7) answers with a message of type {other}"),
            }
            messages = rest;
        }
    }
}

fn u32_at(message: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(message[at..at + 4].try_into().unwrap()) as usize
}
