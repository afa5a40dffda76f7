//! A closure is no handler for `TcpServer::bind` either.
use socketserver::{Sequential, TcpServer};

fn main() {
    let _ = TcpServer::<_, Sequential>::bind("127.0.0.1:0", |_: &mut socketserver::Connection| Ok(()));
}
