//! The PROXY protocol: how a proxy tells a server which client it speaks for.
//!
//! A server behind HAProxy, nginx or a cloud's load balancer sees connections of the proxy only. With this
//! protocol the proxy sends a header before the client's first byte. The header names the client's address,
//! and in version 2 also what the proxy knows of the client's TLS. The format is HAProxy's
//! (`doc/proxy-protocol.txt`), versions 1 and 2.
//!
//! [`ServerBuilder::proxy_protocol`](crate::ServerBuilder::proxy_protocol) turns it on, for the networks of
//! the proxies. From then on [`peer_addr`](crate::Connection::peer_addr) is the client's address everywhere,
//! and [`proxy_header`](crate::Connection::proxy_header) returns the [`ProxyHeader`].
//! [The guide](crate::guide::exposing) has the configuration of HAProxy and nginx.

// Here is no I/O: the bytes of a header, what they mean, and the networks that may send them. `greeting` reads
// them from sockets. The walk: `parse` → `v1` or `v2` → `ProxyHeader`.

mod crc32c;
mod header;
mod networks;
mod parse;
#[cfg(test)]
mod tests;
mod tlv;

pub use header::{ProxyHeader, ProxyTls};
pub use networks::ProxyProtocol;
pub(crate) use networks::Trust;
pub use parse::ProxyError;
pub(crate) use parse::LONGEST;
