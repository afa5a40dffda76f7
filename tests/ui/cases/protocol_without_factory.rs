use socketserver::{EventLoop, HandlerResult, Protocol, ServerBuilder, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn main() {
    let _ = ServerBuilder::new().bind("127.0.0.1:0", Echo);
    let _ = ServerBuilder::new().strategy(EventLoop::new()).bind("127.0.0.1:0", Echo);
}
