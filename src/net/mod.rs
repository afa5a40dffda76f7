//! Sockets and addresses as values: what the kernel hands over, before anybody decides about it.
//!
//! An [`Arrival`] is what has come to a listener: an [`Accepted`] connection, or a [`Packet`]. Nothing here waits, counts
//! or logs.

mod address;
mod arrival;
mod datagram;
mod socket;

pub use address::{Addr, Address};
pub(crate) use arrival::{Accepted, Arrival};
pub(crate) use datagram::{DatagramSocket, Packet, Received, LONGEST_V4};
pub use socket::PeerCredentials;
pub(crate) use socket::Socket;
