use socketserver::{datagram_handler, handler, ServerBuilder};

fn main() {
    let _ = ServerBuilder::new().bind_udp("127.0.0.1:0", handler(|_| Ok(())));
    let _ = ServerBuilder::new().bind("127.0.0.1:0", datagram_handler(|_| Ok(())));
}
