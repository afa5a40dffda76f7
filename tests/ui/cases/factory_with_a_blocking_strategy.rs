use socketserver::{factory, HandlerResult, Protocol, ServerBuilder, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn main() {
    let _ = ServerBuilder::new().bind_tcp("127.0.0.1:0", factory(|_| Echo));
}
