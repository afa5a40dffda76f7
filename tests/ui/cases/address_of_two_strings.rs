use socketserver::{handler, ServerBuilder};

fn main() {
    let _ = ServerBuilder::new().bind(("127.0.0.1", "1234"), handler(|_| Ok(())));
    let _ = ServerBuilder::new().bind(1234, handler(|_| Ok(())));
}
