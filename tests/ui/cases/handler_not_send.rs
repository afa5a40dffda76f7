use std::rc::Rc;

use socketserver::{handler, ServerBuilder};

fn main() {
    let shared = Rc::new(1);
    let count = handler(move |_| {
        let _ = &shared;
        Ok(())
    });
    let _ = ServerBuilder::new().bind("127.0.0.1:0", count);
}
