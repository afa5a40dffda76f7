use socketserver::{datagram_handler, EventLoop, ServerBuilder};

fn main() {
    let _ = ServerBuilder::new().strategy(EventLoop::new()).bind_udp("127.0.0.1:0", datagram_handler(|_| Ok(())));
}
