use socketserver::{handler, EventLoop, ServerBuilder};

fn main() {
    let _ = ServerBuilder::new().strategy(EventLoop::new()).bind_tcp("127.0.0.1:0", handler(|_| Ok(())));
}
