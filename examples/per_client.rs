//! How many connections each client has: taken when one opens, given back when it closes, however it ends.
//! `cargo run --example per_client`, then `nc 127.0.0.1 1234` twice.

mod common;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use socketserver::{handler, Closed, Observer, Opened, ServerBuilder};

#[derive(Default)]
struct PerClient(Mutex<HashMap<IpAddr, usize>>);

impl Observer for PerClient {
    fn opened(&self, opened: &Opened<'_>) {
        let Some(ip) = opened.peer.ip() else { return }; // a client of a Unix socket
        *self.0.lock().unwrap().entry(ip).or_default() += 1;
    }

    fn closed(&self, closed: &Closed<'_>) {
        let (Some(ip), mut counts) = (closed.peer.ip(), self.0.lock().unwrap()) else { return };
        let left = counts.remove(&ip).unwrap_or(0).saturating_sub(1);
        (left > 0).then(|| counts.insert(ip, left)); // a client that has gone takes no memory
    }
}

fn main() -> socketserver::Result<()> {
    let args = common::args("Tells each client how many connections every client has.", &[common::LIMITS]);
    let clients = Arc::new(PerClient::default());
    let builder = args.limits(ServerBuilder::new().handle_signals().observer(clients.clone()));
    let tells = handler(move |conn| {
        conn.send_line(format!("{:?}", clients.0.lock().unwrap()))?;
        Ok(conn.next_line().map(drop)?) // stays until the client says something or leaves
    });
    let mut server = builder.bind(&args.addr, tells)?;
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
