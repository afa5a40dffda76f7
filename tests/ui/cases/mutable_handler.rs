use socketserver::{Connection, HandlerResult, ServerBuilder, StreamRequestHandlerMut, TcpServer, Threading};

struct Counter {
    lines: usize,
}

impl StreamRequestHandlerMut for Counter {
    fn handle(&mut self, _: &mut Connection) -> HandlerResult {
        self.lines += 1;
        Ok(())
    }
}

fn main() {
    let _ = TcpServer::<Counter, Threading>::bind("127.0.0.1:0", Counter { lines: 0 });
    let _ = ServerBuilder::new().bind("127.0.0.1:0", Counter { lines: 0 });
}
