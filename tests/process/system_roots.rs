//! The authorities that a client of TLS trusts if it names none.

use std::time::Instant;

use socketserver::event_loop::Connect;
use socketserver::tls::TlsClientConfig;
use socketserver::{handler, Connection, Reactor, ServerBuilder, TlsConfig};

use crate::kit::{ms, serve, LONG};
use crate::script::clients::Client;
use crate::script::{Journal, Script};
use crate::support::pki::Pki;

#[test]
fn system_roots_reads_the_file_that_the_environment_names() {
    alone!(); // the environment belongs to the whole process
    let Some(pki) = Pki::make() else { return };
    std::env::remove_var("SSL_CERT_DIR");
    std::env::set_var("SSL_CERT_FILE", pki.file("server.key"));
    let error = TlsClientConfig::system_roots().unwrap_err().to_string();
    assert!(error.contains("authorities") && error.contains("install ca-certificates"), "{error}");

    std::env::set_var("SSL_CERT_FILE", pki.file("ca.pem"));
    let trust = TlsClientConfig::system_roots().unwrap();
    let config = TlsConfig::from_pem(pki.file("server.pem"), pki.file("server.key")).unwrap();
    let greet = handler(|conn: &mut Connection| conn.send_line("hello"));
    let server = serve(ServerBuilder::new().tls(config).bind("127.0.0.1:0", greet).unwrap());

    let (mut reactor, journal) = (Reactor::new().unwrap(), Journal::default());
    let client = Client::new(&journal).with(|journal| Some(Script::new(journal)));
    let address = format!("localhost:{}", server.addr().port());
    reactor.context().connect(Connect::to(address.as_str()).tls(&trust), client);
    let by = Instant::now() + LONG;
    while journal.count("stop") == 0 {
        assert!(Instant::now() < by, "the attempt does not end");
        reactor.turn(Some(ms(10))).unwrap();
    }
    let heard = journal.take();
    assert!(heard.contains("data:hello"), "{heard}");
}
