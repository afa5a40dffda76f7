//! Sockets and addresses as values, before any decision about them.
//!
//! [`Address`] is the text of a user, [`Addr`] the address of a socket. [`Socket`] is a connected socket. An
//! [`Arrival`] is what a listener hands over: an [`Accepted`] connection or a [`Packet`]. Nothing here waits,
//! counts or logs.

mod address;
mod arrival;
mod datagram;
mod numeric;
mod socket;

pub use address::{Addr, Address};
pub(crate) use arrival::{Accepted, Arrival, Birth, BirthRecord, Moved};
pub(crate) use datagram::{gone, no_reply_to, DatagramSocket, Packet, Received, Unsent, LONGEST_V4};
pub(crate) use numeric::numeric;
pub use socket::PeerCredentials;
pub(crate) use socket::Socket;
