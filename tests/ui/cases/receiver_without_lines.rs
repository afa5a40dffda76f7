use socketserver::event_loop::FramedTransport;
use socketserver::{factory, EventLoop, HandlerResult, LineReceiver, ServerBuilder};

struct Echo;

impl LineReceiver for Echo {
    fn line_received(&mut self, transport: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        transport.send_line(line)
    }
}

fn main() {
    let _ = ServerBuilder::new().strategy(EventLoop::new()).bind("127.0.0.1:0", factory(|_peer| Echo));
}
