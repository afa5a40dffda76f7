//! The settings of [`ServerBuilder`] for what a connection begins with, before its handler.

use std::sync::Arc;
use std::time::Duration;

use super::ServerBuilder;
use crate::config::PerSource;
use crate::proxy::ProxyProtocol;
#[cfg(feature = "__tls")]
use crate::tls::TlsConfig;

/// What comes before the handler.
impl<S> ServerBuilder<S> {
    /// Serves behind a proxy, such as HAProxy or nginx. A connection from these networks begins with a header of the
    /// [PROXY protocol](crate::proxy), version 1 or 2, which names the client. The server reads it before
    /// [`verify_request`](Self::verify_request) and before the handler. From then on
    /// [`peer_addr`](crate::Connection::peer_addr) is the client's, in the log and in all hooks too, and
    /// [`proxy_header`](crate::Connection::proxy_header) has all that the proxy tells. A proxy that does not name its
    /// client (`UNKNOWN`, or a health check by LOCAL) is the peer itself.
    ///
    /// A connection from another network is refused, because its client could claim any address. With
    /// [`or_direct`](ProxyProtocol::or_direct) it is served as it is. So name the proxies' networks only, and
    /// no network from which clients can connect past the proxy. `unix:` names connections over Unix sockets;
    /// [`unix_mode`](Self::unix_mode) says which users may make them.
    ///
    /// A header has at most 107 bytes in version 1 and 4096 in version 2. No byte beyond it is read. A malformed
    /// header ends its connection, and so does [`handshake_timeout`](Self::handshake_timeout).
    /// [`Stats::greetings`](crate::Stats::greetings) counts these ends by their reasons. Defaults to off. A network
    /// that is none is an error when the server is bound. [The guide](crate::guide::exposing) shows the proxies'
    /// part.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use socketserver::{handler, ServerBuilder};
    ///
    /// let mut server = ServerBuilder::new()
    ///     .proxy_protocol(["127.0.0.0/8", "::1"])
    ///     .bind_tcp("127.0.0.1:0", handler(|conn| {
    ///         conn.send_line(format!("hello {}", conn.peer_addr()))
    ///     }))?;
    /// let address = server.local_addr().socket_addr().unwrap();
    /// let mut proxy = std::net::TcpStream::connect(address)?;
    /// proxy.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 56324 443\r\n")?;
    /// assert!(server.handle_request(None)?);
    /// let mut reply = String::new();
    /// proxy.read_to_string(&mut reply)?;
    /// assert_eq!(reply, "hello 203.0.113.9:56324\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn proxy_protocol(mut self, networks: impl Into<ProxyProtocol>) -> Self {
        self.plan.settings.proxy_protocol = Some(Arc::new(networks.into()));
        self
    }

    /// Sets how long a connection may take to begin: the waits for the header of a
    /// [proxy](Self::proxy_protocol) and for the handshake of TLS, both together. Then it is closed and its
    /// permit is free. A stop ends these waits at once. Time in [`verify_request`](Self::verify_request) does
    /// not count. Defaults to 10 s. Zero is an error when the server is bound.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.plan.settings.handshake_timeout = limit;
        self
    }

    /// Limits how many connections one source has, and how fast it connects: see [`PerSource`]. The limits are exact,
    /// over all threads, loops and processes of the server. A connection beyond them is closed without a message (a
    /// client of TLS reads an alert), and counted by its reason in [`Stats::sources`](crate::Stats::sources). It is
    /// told to [`handle_error`](Self::handle_error); the log has a line a second, at `debug`. Defaults to no limits.
    ///
    /// The source is that of the client, so behind a [proxy](Self::proxy_protocol) it is known once the header has
    /// come, before [`verify_request`](Self::verify_request). Without a proxy it is known at once, and a refusal
    /// starts no thread and no process. Connections over Unix sockets have no source, nor has one that a proxy makes
    /// for itself; datagrams have one that anybody can forge. They are not counted. After a
    /// [restart](Self::restartable) the new process counts from zero, and the old one goes on with its own: while that
    /// drains, a source may have the limit twice.
    /// [The guide](crate::guide::exposing#one-source-of-many) says what to set.
    ///
    /// ```
    /// use std::io::read_to_string;
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use socketserver::{handler, PerSource, ServerBuilder};
    ///
    /// let hourly = PerSource::new().at_once(20).rate(1, Duration::from_secs(3600));
    /// let mut server = ServerBuilder::new()
    ///     .per_source(hourly)
    ///     .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")))?;
    /// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    /// let serving = std::thread::spawn(move || server.serve_forever());
    ///
    /// assert_eq!(read_to_string(TcpStream::connect(addr)?)?, "hello\n");
    /// assert_eq!(read_to_string(TcpStream::connect(addr)?)?, ""); // too soon
    ///
    /// handle.shutdown();
    /// let report = serving.join().unwrap()?;
    /// assert_eq!((report.served, report.sources.rate), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn per_source(mut self, limits: PerSource) -> Self {
        self.plan.settings.per_source = Some(limits);
        self
    }

    /// Serves by TLS. Each connection begins with a handshake, under [`handshake_timeout`](Self::handshake_timeout), on
    /// the thread or in the process that serves it. A client that is slow to begin holds up no other. The handler comes
    /// after it, and [`Connection::tls`](crate::Connection::tls) tells what was agreed upon.
    #[cfg(feature = "__tls")]
    pub fn tls(mut self, config: TlsConfig) -> Self {
        self.plan.settings.tls = Some(config);
        self
    }
}
