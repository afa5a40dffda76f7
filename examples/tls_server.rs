//! The greeting by TLS: `cargo run --example tls_server -- 127.0.0.1:1234 --tls-cert cert.pem --tls-key key.pem`, then
//! `openssl s_client -quiet -connect 127.0.0.1:1234`. Without a certificate, the example makes one that lasts a day.
//! In a program of your own, this is all that TLS takes:
//! `ServerBuilder::new().tls(TlsConfig::from_pem("cert.pem", "key.pem")?)`. The guide shows how to make a certificate.

mod common;

use common::tls::TLS;
use socketserver::{handler, Connection, ServerBuilder};

fn main() -> socketserver::Result<()> {
    let args = common::args("Greets each client, in secret.", &[TLS, common::LIMITS]);
    let greet = handler(|conn: &mut Connection| conn.send_line("Thank you for connecting"));
    let builder = args.tls_always(args.limits(ServerBuilder::new().handle_signals()));
    let mut server = builder.bind(&args.addr, greet)?;
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
