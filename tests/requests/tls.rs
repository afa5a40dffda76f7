//! Parked connections of TLS.

use crate::kit::{serve, until};
use crate::parked::parking;
use crate::support::pki::Pki;
use crate::support::tls::{trust, TlsClient};
use crate::ANY;
use socketserver::{per_request, Connection, HandlerResult, Next, ServerBuilder, TlsConfig};

/// Answers a line with its length.
fn length(conn: &mut Connection) -> HandlerResult<Next> {
    let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
    conn.send_line(line.len().to_string())?;
    Ok(Next::Request)
}

/// Requests that come in one record, or with their end, wait in the session and not in the kernel.
#[test]
fn parked_connections_miss_nothing_that_the_session_holds() {
    let Some(pki) = Pki::make() else { return };
    let config = TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap();
    for (name, strategy) in parking() {
        let builder = ServerBuilder::new().strategy(strategy).tls(config.clone()).read_buffer(64);
        let server = serve(builder.bind(ANY, per_request(length)).unwrap());
        let mut clients: Vec<_> = (0..10).map(|_| TlsClient::connect(server.addr(), trust(&pki))).collect();
        for n in [1, 100, 20_000] {
            for client in &mut clients {
                client.say("x".repeat(n) + "\n");
                client.expect(&format!("{n}\n"));
            }
        }
        until("they are parked", || server.handle.stats().parked == 10);
        for client in &mut clients {
            client.say("1\n22\n".repeat(500)); // many requests in a record
            client.expect(&"1\n2\n".repeat(500));
            for byte in "in pieces\n".bytes() {
                client.say([byte]);
            }
            client.expect("9\n");
            client.say("last\n");
            client.close_notify();
            assert_eq!(client.read_all(), "4\n", "{name}");
        }
        until("they have ended", || server.handle.stats().active == 0);
        let report = server.stop();
        assert_eq!((report.served, report.failed), (10, 0), "{name}: {report}");
    }
}
