use std::rc::Rc;

use socketserver::{factory, EventLoops, HandlerResult, Protocol, ServerBuilder, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn main() {
    let shared = Rc::new(7);
    let build = factory(move |_| {
        let _ = &shared;
        Echo
    });
    let _ = ServerBuilder::new().strategy(EventLoops::new(2)).bind_tcp("127.0.0.1:0", build);
}
